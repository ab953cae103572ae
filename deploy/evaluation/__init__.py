"""Backtests, replays, forecasts of files, and the comparison of models."""
