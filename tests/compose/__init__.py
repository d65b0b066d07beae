"""The compose stack, from a clean checkout, with the real model: `python -m tests.compose`."""
