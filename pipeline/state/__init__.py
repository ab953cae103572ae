"""A partition's state in a compacted topic: records, checkpoints, recovery."""
