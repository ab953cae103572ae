"""What the page is shown."""
