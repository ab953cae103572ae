"""A model as a file: its export, what it may hold, and the registry it is kept in."""
