"""Sources that publish events to a topic. Imports nothing by itself."""
