"""RunPod's entry point over `diarization`. The SDK is imported here alone, and by `handler.main` only."""
