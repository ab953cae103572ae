"""Retraining, schedules, versions and aliases."""
