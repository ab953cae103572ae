"""Times as calendars have them, regular and with jitter."""

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from pipeline.windows.steps import DAY, Ints

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000


def dates(start: str, periods: int, freq: str, zone: str | None = None) -> Ints:
    found = pd.date_range(start, periods=periods, freq=freq, tz=zone)
    return np.asarray(found.as_unit("ms").astype("int64").to_numpy())


def shifted(ts: Ints, most: int, seed: int = 0) -> Ints:
    """Times, each up to `most` milliseconds off."""
    return ts + np.random.default_rng(seed).integers(-most, most + 1, len(ts))


CALENDARS = ("h", "30min", "5min", "D", "W-WED", "W-SUN", "B", "MS", "ME", "QS-MAR", "QE-JAN", "YS-APR", "YE-JUN")


@st.composite
def jittered(draw: st.DrawFn) -> tuple[Ints, Ints]:
    """Regular times of a random calendar and phase, and the same with jitter of up to a sixth of a step."""
    calendar = draw(st.sampled_from(CALENDARS))
    ts = dates("2001-01-01", draw(st.integers(60, 90)), calendar)
    least = int(np.diff(ts).min())
    phases = {"S": [0, 9 * HOUR, 14 * DAY], "E": [0, -9 * HOUR]}.get(
        calendar.partition("-")[0][-1], [0, least // 3, least // 2, least * 5 // 6]
    )
    ts = ts + draw(st.sampled_from(phases))
    share = draw(st.sampled_from([0, 0.001, 0.05, 0.16]))
    return ts, shifted(ts, int(least * share), draw(st.integers(0, 99)))
