"""Windows: the grid, what waits, the store of the streaming path and the sliding windows of the batch path."""
