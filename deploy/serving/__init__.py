"""The consumer service; without torch and polars."""
