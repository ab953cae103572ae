"""The training loop, what is trained by it, and how several networks become one model."""
