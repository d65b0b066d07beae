"""One job at RunPod, once: its HTTP APIs, a run until it is over, the diarizer that is there."""
