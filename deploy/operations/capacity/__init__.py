"""`tidecast bench`: what a machine can do with a model, and how many of them a fleet of series needs."""
