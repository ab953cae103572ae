"""The consumer service: records in, forecasts or labels out. Runs without torch and polars."""
