"""Looking into videos: probe, clip, zoom, each frame with its time and address."""
