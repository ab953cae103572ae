"""What a running service tells of itself: what it counts and measures, whether it is alive and ready, over HTTP."""
