"""Figures that the docs may state, each from a command anyone can run."""
