"""What is read from the topics, and what is kept of it."""
