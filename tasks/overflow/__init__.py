"""When jobs may go to RunPod: whether it pays, what it costs, what stands in the way. Knows nothing of its API."""
