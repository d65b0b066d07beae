"""A recording in, speaker turns out. This package knows no queue."""
