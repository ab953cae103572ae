"""Forecasts on every event: what a program imports of Tidecast."""
