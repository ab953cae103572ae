"""`serve --workers`: several processes of one group on one machine, and the one that looks after them."""
