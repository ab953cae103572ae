"""The default recipe: which networks are trained, and by what weights they are averaged."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from model.naive import seasonal_lags
from model.spec import InputSpec, OutputSpec, Setting

MAX_SEGMENT = 48
ROUNDS = 20
"""Picks; a member's weight is a multiple of one over it."""

Reals = npt.NDArray[np.float64]


def recipe(inputs: InputSpec, outputs: OutputSpec, network: Mapping[str, Setting]) -> tuple[dict[str, Setting], ...]:
    """The networks that are tried for windows of this length and spacing; `network` is what they share."""
    seq_len, horizon = inputs.seq_len, outputs.horizon
    seasons = sorted(lag for lag in seasonal_lags(inputs.freq).values() if 2 * lag <= seq_len - 2)
    shortest = seasons[0] if seasons else 0
    segment = shortest if 1 < shortest <= MAX_SEGMENT else max(1, min(MAX_SEGMENT, seq_len // 8, horizon))
    base: dict[str, Setting] = {"arch": "segment", **network, "segment": segment}
    trials = [base | {"location": "last"}, base | {"location": "mean"}]
    if seasons:
        trials[1]["skip"] = shortest
        trials.append(base | {"location": "last", "skip": shortest})
    return tuple(trials + [base | {"location": "season", "lag": lag, "skip": lag} for lag in seasons])


def weigh(errors: npt.NDArray[np.floating]) -> Reals:
    """The weights (M,), together 1, of M members with these errors (M,T) of the same targets.

    Greedy selection with replacement (Caruana et al. 2004): again and again the member is added that lowers the mean's
    squared error most. Ties, and what helps nothing, go to the earlier one.
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
