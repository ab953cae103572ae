"""What really came after a forecast, read from its topic."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.operations.explain import read_steps, recompute_forecast
from model.artifacts.versions import sha256
from pipeline.formats.headers import INPUT, MODEL, OFFSETS, VERSION
from pipeline.log import EventLog
from pipeline.log.connect import connect

START, HOUR = 1_704_067_200_000, 3_600_000
Served = Callable[[list[int], int], Any]


def event(series: str, hour: int) -> tuple[bytes, bytes]:
    body = {"series": series, "ts": START + hour * HOUR, "value": 100.0 + hour}
    return series.encode(), json.dumps(body).encode()


@pytest.fixture
def served(tmp_path: Path, own_model: Path) -> Served:
    """A topic with these hours of two series, and the forecast that a service would have made at an hour of one."""

    def write(hours: list[int], at: int) -> Any:
        with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
            for topic in ("power", "power-forecasts"):
                log.create_topic(topic, 1)
            last = 2 * hours.index(at)
            headers = [(MODEL, sha256(own_model).encode()), (VERSION, b"tiny.onnx"), (INPUT, b"power/0")]
            headers.append((OFFSETS, f"0-{last}".encode()))
            ts = START + at * HOUR
            forecast = {"series": "a", "ts": ts, "start": ts + HOUR, "step": HOUR, "forecast": [0.0] * 4}
            value = json.dumps(forecast | {"source": "model", "model": "tiny.onnx"}).encode()
            with closing(log.producer()) as producer:
                for hour in hours:
                    for series in ("a", "b"):
                        producer.send("power", 0, *event(series, hour))
                producer.send("power-forecasts", 0, b"a", value, headers=headers)
                producer.flush()
            return _came(log, own_model)

    return write


def _came(log: EventLog, model: Path) -> Any:
    recomputed = recompute_forecast(log, "power-forecasts", 0, 0, str(model), "", None)
    steps = read_steps(log, recomputed)
    assert steps.ts[steps.number == 0].tolist() == [recomputed.forecast.ts]
    assert recomputed.times.tolist() == [recomputed.forecast.ts + k * HOUR for k in (1, 2, 3, 4)]
    return steps.came(4)[:, 0]


def test_what_came_is_read_from_the_topic(served: Served) -> None:
    assert served(list(range(40)), 20).tolist() == [121, 122, 123, 124]


def test_what_is_missing_or_has_not_come_yet_is_not_made_up(served: Served) -> None:
    hours = [hour for hour in range(24) if hour != 22]
    np.testing.assert_array_equal(served(hours, 20), [121, np.nan, 123, np.nan])


def test_nothing_has_come_after_the_newest_forecast(served: Served) -> None:
    assert np.isnan(served(list(range(24)), 23)).all()
