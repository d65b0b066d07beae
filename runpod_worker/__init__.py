"""RunPod's entry point over `diarization`; its handler comes with the overflow."""
