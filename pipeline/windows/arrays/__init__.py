"""What a window store keeps of its series, in arrays with a row for each, and how many events change it at once."""
