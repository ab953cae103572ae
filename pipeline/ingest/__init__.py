"""Ingestors, which publish events to a topic. Imports nothing by itself."""
