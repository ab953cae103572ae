"""Events to windows: ingestors, the log, and the one definition of a window. Imports nothing by itself."""
