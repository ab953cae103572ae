"""The whole life of a forecast on one screen."""
