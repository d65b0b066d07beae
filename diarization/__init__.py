"""A recording in, speaker turns out. This package knows no queue."""

__version__ = "0.1.0"
