"""What can be chosen of windows, and the limits that hold unless others are; light, as every command has them."""

from typing import Literal

Aggregate = Literal["mean", "sum", "last", "count", "min", "max"]
"""How several events in a step become one value."""
SERIES_LIMIT = 100_000
"""Series of a partition."""
WAITING_LIMIT = 1_000_000
"""A partition's pending steps, which take about 400 bytes each."""
OnDataLoss = Literal["fail", "earliest"]
"""What to do if records that are still needed are no longer in the log."""
