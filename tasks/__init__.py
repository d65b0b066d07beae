"""What runs where, and what happens when it breaks: the job queue over `diarization`."""
