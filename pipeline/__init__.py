"""Events to windows: ingestors, the log, formats, windows and their state. Imports nothing by itself."""
