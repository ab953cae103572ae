"""Commands for people who run a service: check, explain, dead letters, trace, tail, ingest, generate."""
