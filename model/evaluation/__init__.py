"""Splits in time, errors, baselines and the promotion test; without torch and polars."""
