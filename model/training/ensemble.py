"""The default ensemble: which networks are trained, and the weights of their average."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from model.card import InputSpec, OutputSpec, Setting

MAX_SEGMENT = 48
MANY = 1_000_000
"""From so many training windows on, one LSTM per location is trained: the time is better spent on more steps, and
fewer members make forecasting that many windows faster."""
ROUNDS = 20
"""Rounds of greedy selection; its weights are multiples of 1 / ROUNDS."""
LEAST = 0.03
"""Members with a smaller weight are dropped."""

Reals = npt.NDArray[np.float64]


def recipe(
    inputs: InputSpec,
    outputs: OutputSpec,
    network: Mapping[str, Setting],
    cycles: Sequence[str] = (),
    windows: int = 0,
) -> tuple[dict[str, Setting], ...]:
    """The settings of the candidate networks for windows of this length and frequency.

    `network` holds the settings that the LSTMs share, `cycles` the calendar cycles that the data covers twice and a
    window does not, `windows` is the number of training windows.
    """
    seq_len = inputs.seq_len
    lags = list(inputs.lags.values())
    season = next((lag for lag in lags if 2 * lag <= seq_len), 0)
    seasons = [season, *(lag for lag in lags if lag != season and season + lag <= seq_len)] if season else []
    segment = season if 1 < season <= MAX_SEGMENT else max(1, min(MAX_SEGMENT, seq_len // 8, outputs.horizon))
    shorter = [look for look in (seq_len // 2, seq_len // 4) if look >= 2 * max(segment, season)]
    shared = {"arch": "segment", **network, "segment": segment}
    kinds = list(_lstms(seasons, shorter, cycles))
    if windows >= MANY:
        kinds = list({kind["location"]: kind for kind in reversed(kinds)}.values())[::-1]
    return (*({**shared, **own} for own in kinds), *_baselines(season, shorter))


def _baselines(season: int, shorter: list[int]) -> Iterator[dict[str, Setting]]:
    yield {"arch": "linear", "location": "last"}
    for look in shorter[:1]:
        yield {"arch": "linear", "location": "last", "look": look}
    if season:
        yield {"arch": "linear", "location": "season", "lag": season}
        yield {"arch": "naive", "location": "season", "lag": season}
    yield {"arch": "naive", "location": "last"}


def _lstms(seasons: list[int], shorter: list[int], cycles: Sequence[str]) -> Iterator[dict[str, Setting]]:
    yield {"location": "last"}
    if cycles:
        yield {"location": "mean", "calendar": ",".join(cycles)}
    for look in shorter:
        yield {"location": "last", "look": look}
    if not seasons:
        yield {"location": "mean"}
        return
    yield {"location": "last", "skip": seasons[0]}
    yield {"location": "mean", "skip": seasons[0]}
    for look in shorter[:1]:
        yield {"location": "mean", "skip": seasons[0], "look": look}
    for cycle in seasons:
        yield {"location": "season", "lag": seasons[0], "skip": cycle}


def member_names(networks: Sequence[Mapping[str, Setting]]) -> list[str]:
    """A name for each network by its arch: segment-1, segment-2, linear-1."""
    count = Counter[str]()
    names = []
    for arch in (str(each["arch"]) for each in networks):
        count[arch] += 1
        names.append(f"{arch}-{count[arch]}")
    return names


def weigh(errors: npt.NDArray[np.floating]) -> Reals:
    """The weights (M,), summing to 1, of M members with these errors (M,T) on the same targets.

    The mean of greedy selection and weights by the inverse cube of the mean squared error: the first finds members
    that complement each other but overfits short validation data; the second is robust but would keep all members.
    """
    mse = np.square(errors, dtype=np.float64).mean(axis=1)
    inverse = (np.maximum(mse.min(), np.finfo(np.float64).tiny) / np.maximum(mse, np.finfo(np.float64).tiny)) ** 3
    weights = (_greedy(errors) + inverse / inverse.sum()) / 2
    weights[weights < LEAST] = 0
    return np.asarray(weights / weights.sum())


def _greedy(errors: npt.NDArray[np.floating]) -> Reals:
    """Selection with replacement (Caruana et al. 2004): each round adds the member that lowers the error most.

    Ties go to the earlier member; of all rounds the best is returned.
    """
    cross = errors.astype(np.float64) @ errors.T.astype(np.float64)
    count, best = np.zeros(len(errors)), (np.inf, np.zeros(len(errors)))
    for size in range(1, ROUNDS + 1):
        added = count + np.eye(len(errors))
        totals = np.einsum("mi,ij,mj->m", added, cross, added) / size**2
        count = added[int(totals.argmin())]
        if totals.min() < best[0]:
            best = float(totals.min()), count / size
    return best[1]
