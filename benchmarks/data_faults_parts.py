"""The streams of data_faults.py: synthetic ones, parts of public series, and each with a fault put in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
STEPS = 2000
LASTS = 2
"""Days that a stuck value and a gap last, and within which a fault counts as found."""
UNITS: tuple[tuple[float, float], ...] = ((1000, 0), (60, 0), (3.6, 0), (1.8, 32), (1 / 60, 0), (1 / 1000, 0))
KINDS = ("level_shift", "unit_change", "stuck", "gap", "spike")


@dataclass
class Stream:
    """Values by step, NaN where there is no event; the steps of a day; and the fault, if there is one."""

    name: str
    values: Floats
    day: int
    fault: str = ""
    since: int = STEPS


def synthetic(rng: np.random.Generator) -> Iterator[Stream]:
    """Streams of ten kinds in turn, without end."""
    while True:
        t = np.arange(STEPS)
        for kind, shape in enumerate(SHAPES):
            level, noise = 10 ** rng.uniform(0, 4), rng.normal(size=STEPS)
            day = np.sin(2 * np.pi * (t + rng.integers(24)) / 24) + 0.4 * np.sin(4 * np.pi * t / 24)
            yield Stream(f"{shape.__name__} {kind}", shape(rng, level, day, noise), 24)


def daily(rng: np.random.Generator, level: float, day: Floats, noise: Floats) -> Floats:
    """A daily shape and white noise."""
    return level * (1 + rng.uniform(0.1, 0.4) * day + rng.uniform(0.01, 0.1) * noise)


def sensor(rng: np.random.Generator, level: float, day: Floats, noise: Floats) -> Floats:
    """The same with one decimal, around 20, as thermometers give it."""
    return np.round(20 + rng.uniform(2, 6) * day + ar(noise, 0.9) * 0.5, 1)


def correlated(rng: np.random.Generator, level: float, day: Floats, noise: Floats) -> Floats:
    """A daily shape and autocorrelated noise."""
    return level * (1 + 0.2 * day + 0.03 * ar(noise, rng.uniform(0.5, 0.95)))


def walk(rng: np.random.Generator, level: float, day: Floats, noise: Floats) -> Floats:
    """A random walk."""
    return level * (1 + 0.01 * np.cumsum(noise))


def white(rng: np.random.Generator, level: float, day: Floats, noise: Floats) -> Floats:
    """White noise around a level."""
    return level * (1 + rng.uniform(0.02, 0.2) * noise)


def trend(rng: np.random.Generator, level: float, day: Floats, noise: Floats) -> Floats:
    """A rising daily shape with noise that grows with it."""
    return level * (1 + np.arange(STEPS) / STEPS) * (1 + 0.2 * day) * (1 + 0.05 * noise)


def counts(rng: np.random.Generator, level: float, day: Floats, noise: Floats) -> Floats:
    """Counts with a daily shape."""
    return rng.poisson(rng.uniform(5, 300) * np.exp(day)).astype(float)


def heavy(rng: np.random.Generator, level: float, day: Floats, noise: Floats) -> Floats:
    """A daily shape and noise with heavy tails."""
    return level * (1 + 0.3 * day + 0.03 * rng.standard_t(4, STEPS))


def weekly(rng: np.random.Generator, level: float, day: Floats, noise: Floats) -> Floats:
    """A daily shape that is lower at weekends."""
    weekend = np.arange(STEPS) // 24 % 7 >= 5
    return level * (1 + 0.3 * day - 0.2 * weekend + 0.04 * noise)


def zero_mean(rng: np.random.Generator, level: float, day: Floats, noise: Floats) -> Floats:
    """Around zero, with a daily shape."""
    return level * (day + 0.2 * noise)


SHAPES: tuple[Callable[[np.random.Generator, float, Floats, Floats], Floats], ...] = (
    daily,
    sensor,
    correlated,
    walk,
    white,
    trend,
    counts,
    heavy,
    weekly,
    zero_mean,
)


def ar(noise: Floats, factor: float) -> Floats:
    """Autocorrelated noise of the same variance."""
    out: Floats = np.empty_like(noise)
    last = 0.0
    for at, once in enumerate(noise.tolist()):
        out[at] = last = factor * last + (1 - factor**2) ** 0.5 * once
    return out


def real(folder: Path) -> Iterator[Stream]:
    """Parts of public series, in turn."""
    for name, values, day in public(folder):
        for part in range(len(values) // STEPS):
            yield Stream(f"{name} {part}", values[part * STEPS : (part + 1) * STEPS], day)


def public(folder: Path) -> Iterator[tuple[str, Floats, int]]:
    """Electricity, transformers, pedestrians, and taxis before the labelled anomalies of autumn."""
    yield "taylor", pl.read_csv(folder / "taylor.csv")["Y"].to_numpy().astype(float), 48
    yield "elec2", pl.read_csv(folder / "elec2" / "elec2.csv")["y"].to_numpy(), 48
    yield "taxi", pl.read_csv(folder / "nab" / "nyc_taxi.csv")[:, 1].to_numpy().astype(float)[:5800], 48
    transformers = pl.read_csv(folder / "ett" / "ETTh1.csv").drop("date")
    rows = transformers.to_numpy()
    repeated = np.concatenate([[False], (rows[1:] == rows[:-1]).sum(1) >= 6])
    days = ~(repeated[: len(rows) // 24 * 24].reshape(-1, 24).sum(1) > 2)
    for name in transformers.columns:  # on other days six or seven of these seven sensors were stuck at once
        yield f"ETTh1 {name}", transformers[name].to_numpy()[: len(days) * 24].reshape(-1, 24)[days].reshape(-1), 24
    pedestrians = pl.read_csv(folder / "pedestrian.csv")
    for (name,), part in pedestrians.group_by("Sensor", maintain_order=True):
        if name == "Birrarung Marr":
            continue  # events there draw crowds: it is not clean
        yield f"pedestrians {name}", part["Count"].to_numpy().astype(float), 24


def quiet(rng: np.random.Generator) -> Iterator[Stream]:
    """Constant and intermittent streams."""
    for at in range(20):
        share = (0, 0.02, 0.1, 0.3)[at % 4]
        yield Stream(f"intermittent {share}", np.where(rng.random(STEPS) < share, rng.poisson(3, STEPS), 0.0), 24)


def broken(stream: Stream, fault: str, rng: np.random.Generator) -> Stream:
    """The stream with a fault."""
    values, since = stream.values.copy(), int(rng.integers(STEPS // 2, STEPS * 9 // 10))
    spread, sign = values[:since].std(), rng.choice([-1, 1])
    lasting = slice(since, since + LASTS * stream.day)
    if fault == "level_shift":
        values[since:] += float(sign * rng.uniform(3, 6) * spread)
    elif fault == "spike":
        values[since] += sign * rng.uniform(5, 15) * spread
    elif fault == "unit_change":
        scale, zero = UNITS[rng.integers(len(UNITS))]
        values[since:] = scale * values[since:] + zero
    elif fault == "stuck":
        values[lasting] = values[since - 1]
    else:
        values[lasting] = np.nan
    return Stream(stream.name, values, stream.day, fault, since)
