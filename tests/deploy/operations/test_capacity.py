"""What a machine can do with a model, and how many of them a fleet needs."""

import json
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.operations.capacity import measure
from deploy.operations.capacity.plan import BUSY, FULL, PER_WORKER, Capacity, plan
from pipeline.log.connect import connect

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]
capacities = st.builds(
    Capacity,
    one=st.floats(100, 1e5),
    whole=st.floats(100, 1e6),
    workers=st.integers(1, 128),
    memory=st.integers(1 << 30, 1 << 40),
    process=st.integers(1 << 20, 1 << 28),
    series=st.floats(500, 1e5),
    state=st.floats(100, 1e5),
    event=st.floats(10, 1e4),
    forecast=st.floats(10, 1e5),
)


@given(capacities, st.integers(1, 10**8), st.floats(1, 86_400))
def test_a_plan_is_enough_and_no_machine_more(capacity: Capacity, series: int, every_s: float) -> None:
    planned = plan(capacity, series, every_s, 100_000, 30.0)
    if capacity.room < 1:
        assert planned.instances == 0
        return

    def enough(instances: int, by: float) -> bool:
        busy = planned.rate <= instances * capacity.whole * BUSY * by
        return busy and series <= instances * capacity.room * by

    assert enough(planned.instances, 1.000001)
    assert planned.instances == 1 or not enough(planned.instances - 1, 0.999999)
    assert planned.memory <= FULL * capacity.memory * 1.000001
    assert planned.workers == planned.instances * capacity.workers
    assert planned.partitions % planned.workers == 0
    assert planned.partitions >= PER_WORKER * planned.workers
    assert planned.partitions * 100_000 >= series
    assert 0 < planned.catch_up_s <= 60 * BUSY / (1 - BUSY) * 1.000001


@given(capacities, st.floats(1, 86_400))
def test_a_machine_takes_as_many_series_as_need_one_like_it(capacity: Capacity, every_s: float) -> None:
    most = capacity.most_series(every_s)
    if most >= 1:
        assert plan(capacity, most, every_s, 100_000, 30.0).instances == 1


@pytest.mark.slow
def test_a_machine_is_measured_on_a_log_and_leaves_nothing_there(
    log_address: str, own_model: Path, tidecast: Tidecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "SERIES", 40)
    monkeypatch.setattr(measure, "RECORDS", 400)
    monkeypatch.setattr(measure, "INFERENCE_S", 0.05)
    as_json = ["--json"] if log_address.startswith("sqlite:") else []
    options = ["--model", own_model, "--bootstrap", log_address, "--workers", 2, "--fleet", 10_000_000]
    done = tidecast("bench", *options, *as_json)
    assert done.returncode == 0, done.stderr
    with closing(connect(log_address)) as log:
        assert not [name for name in log.topics() if name.startswith("tidecast-bench")]
    if not as_json:
        assert "10,000,000 series, each a value every 1 m\n" in done.stdout
        assert "machines like this one" in done.stdout
        return
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["workers"] == 2
    assert all(found[name] > 0 for name in ("onnxruntime", "one_process", "all_processes", "event_bytes"))
    assert found["forecast_bytes"] > found["event_bytes"]
    assert found["plan"]["rate"] == pytest.approx(10_000_000 / 60)
    assert found["plan"]["workers"] == 2 * found["plan"]["instances"]


def test_a_fleet_has_an_interval(tidecast: Tidecast) -> None:
    done = tidecast("bench", "--model", "m.onnx", "--fleet", 10, "--interval", "0")
    assert (done.returncode, done.stderr) == (78, "tidecast: interval: 0 is no time between two values\n")
    assert tidecast("bench", "--model", "none.onnx").returncode == 78
