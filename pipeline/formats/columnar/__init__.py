"""Columnar messages: one record whose value is a stream of Arrow's IPC format, and holds many points or forecasts.

`ipc` and `metadata` read such a stream, `writing` writes one. `points` are its events, `forecasts` what came of them.
"""
