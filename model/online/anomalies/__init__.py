"""How unusual actual values are, and what in the data went wrong."""
