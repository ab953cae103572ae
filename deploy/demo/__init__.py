"""The demo: the service, a registry and a replayed series on one screen."""
