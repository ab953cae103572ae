"""Whether the last swap helped, and how sure that is."""

from typing import Any

import msgspec
import numpy as np
import pytest
from dashboards import MINUTE, START, Kept, new_state

from deploy.dashboard.views.swap import last_swap
from pipeline.formats.forecasts import Forecast
from pipeline.formats.scores import ModelScores, SeriesScores, encode_scores

BUCKET = 10 * MINUTE
SWAP = START + 100 * BUCKET


def bucket(series: str, number: int, model: str, error: float, naive: float = 2.0) -> bytes:
    sums: dict[str, Any] = {"squared_error": [error**2], "absolute_error": [error], "width": [1.0], "winkler": [1.0]}
    sums |= {"naive_squared_error": [naive**2], "naive_absolute_error": [naive]}
    sums |= {name: [1] for name in ("count", "intervals", "inside")}
    row = ModelScores(model=model, target="v", **sums)
    start = START + number * BUCKET
    return encode_scores(
        SeriesScores(series=series, start=start, until=start + 9 * MINUTE, steps=[1], naive=1, coverage=0.9,
                     scale={"v": 2.0}, unscored={"v": [0]}, scores=[row])
    )  # fmt: skip


def swapped(after: float, buckets: int, series: int = 3, constant: int = 0) -> Any:
    """The last swap, of a version with errors around 1 to one with errors around `after`; some series are constant."""
    state, random = new_state(), np.random.default_rng(1)
    messages = [
        Forecast("s0", ts, ts + MINUTE, MINUTE, [1.0], "model", model) for ts, model in ((START, "a/1"), (SWAP, "a/2"))
    ]
    state.take("output", [Kept(msgspec.json.encode(each), n) for n, each in enumerate(messages)], live=True)
    rows = []
    for number in range(100 + buckets):
        model, mean = ("a/1", 1.0) if number < 100 else ("a/2", after)
        errors = (mean * random.uniform(0.5, 1.5, series)).tolist()
        rows += [bucket(f"s{at}", number, model, error) for at, error in enumerate(errors)]
        rows += [bucket(f"c{at}", number, model, 0.0, 0.0) for at in range(constant)]
    state.take("scores", [Kept(row, n) for n, row in enumerate(rows)], live=True)
    return last_swap(state)


@pytest.mark.parametrize(("after", "verdict"), [(0.5, "better"), (1.5, "worse"), (1.0, "no clear difference")])
def test_a_swap_is_better_or_worse_only_if_that_is_sure(after: float, verdict: str) -> None:
    found = swapped(after, 50)
    assert found["verdict"] == verdict
    assert (found["from"], found["to"], found["ts"]) == ("a/1", "a/2", SWAP)
    assert found["low"] < found["difference"] < found["high"]
    assert found["low"] < (1 - after) / 2 < found["high"]
    assert found["difference"] == pytest.approx(found["after"]["skill"] - found["before"]["skill"])
    spans = [side["to"] - side["from"] for side in (found["before"], found["after"])]
    assert spans[0] == spans[1]
    assert found["after"]["from"] == SWAP + MINUTE, "all scored steps are of the new one"
    assert swapped(after, 50) == found, "it is the same whenever it is asked"


def test_series_are_drawn_where_there_is_little_time() -> None:
    found = swapped(0.5, 3, series=20)
    assert found["verdict"] == "better"
    assert found["series"] == 20


def test_it_may_be_too_early() -> None:
    for found in (swapped(0.5, 0), swapped(0.5, 3)):
        assert found["verdict"] == "too early"
        assert (found["low"], found["high"]) == (None, None)
        assert found["why"].startswith("Too early")
    assert last_swap(new_state()) is None


def test_series_without_naive_errors_are_left_out_and_counted() -> None:
    found = swapped(0.5, 50, constant=2)
    assert found["left_out"] == 2
    assert found["series"] == 3
    assert "2 series left out" in found["why"]
    assert found["after"]["count"] == 3 * 49
