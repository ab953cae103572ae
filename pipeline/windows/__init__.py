"""Windows: the grid, the reorder buffer, the store of the streaming path, and sliding windows for the batch path."""
