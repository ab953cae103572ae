"""Settings: what serving needs to know, the settings file, and the values of options."""
