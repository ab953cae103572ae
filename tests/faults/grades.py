"""Forecasts without what a service adds to them from their series' past."""

import re

ADDED = re.compile(rb',"(coverage|anomaly)":.*}$', re.DOTALL)


def ungraded(forecast: bytes) -> bytes:
    """A forecast's message as it was before there were intervals and anomalies, which lie at its end."""
    return ADDED.sub(b"}", forecast)
