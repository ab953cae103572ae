"""Commands for operating a service: check, explain, dead letters, redrive, trace, tail, ingest, generate."""
