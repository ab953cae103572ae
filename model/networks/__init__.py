"""The networks, and the shapes that data has on its way through them."""
