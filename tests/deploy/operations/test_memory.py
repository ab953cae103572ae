"""What series will take is said beforehand, and is what they take."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import Idle

from deploy.models.loading import load_onnx
from deploy.operations.memory import Needs, memory, reserved, series_needs, size
from deploy.operations.sample import Sample, read_sample
from deploy.serving import loop
from deploy.serving.loop import Service
from deploy.serving.tasks import task_for
from deploy.settings.machine import available_memory
from deploy.settings.serve import ServeConfig, window_config
from model.card import Card
from model.online.tracks import Field, TrackStore
from pipeline.formats.events import Event, encode
from pipeline.log.connect import connect
from pipeline.windows.arrays.buffers import StepBuffers
from pipeline.windows.arrays.table import ROW_BYTES, Table

HOUR, START = 3_600_000, 1_704_067_200_000
GIB = 1 << 30


@pytest.mark.parametrize("grades", [True, False])
@pytest.mark.parametrize("freq", ["1h", None])
def test_a_series_takes_what_was_said(
    own_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, grades: bool, freq: str | None
) -> None:
    monkeypatch.setattr(loop, "POLL_S", 0.0)
    predictor = load_onnx(own_model, "tiny.onnx", "cpu")
    assert isinstance(predictor.card, Card)
    card = msgspec.structs.replace(predictor.card, input=msgspec.structs.replace(predictor.card.input, freq=freq))
    predictor = replace(predictor, card=card)
    options = {} if grades else {"coverage": None, "scores": False, "alerts": False}
    config = ServeConfig(topic="pumps", group="g", instance="a", **options).with_outputs("forecasts", shadow=False)  # type: ignore[arg-type]
    task = task_for(predictor, config)
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log, closing(log.producer()) as producer:
        log.create_topic("pumps", 1)
        for hour, value in enumerate(np.random.default_rng(0).normal(10, 1, 40)):
            producer.send("pumps", 0, b"pump", encode(Event("pump", START + hour * HOUR, (float(value),))))
        producer.flush()
        sample = read_sample(log, "pumps", task.decode)
        needs = series_needs(task, card, window_config(card.input), config, sample)
        service = Service(log, predictor, task, config)
        service.run(Idle(lambda: service.stats.taken))
        records = [
            each for part in log.read_partitions(config.state_topic, log.bounds(config.state_topic)) for each in part
        ]
    (record,) = [each for each in records if each.key == b"s:pump"]
    held = len(record.key or b"") + len(record.value or b"")
    assert held * 0.95 < needs.state < held * 1.05
    store = task.windower(None)
    assert needs.windows * 16 <= store.nbytes < needs.windows * 17, "what is reserved for the first series"  # type: ignore[attr-defined]
    assert (needs.grading > 0) == grades
    if service._grading:
        assert needs.grading == service._grading.live.store.series_bytes


def seen(series: int) -> Sample:
    sample = Sample()
    for number in range(series):
        sample.partitions[f"s{number}"].add(number % 2)
    return sample


@pytest.mark.parametrize(
    ("series", "limit", "available", "verdict"),
    [
        (1000, 100_000, 4 * GIB, "ok"),
        (1000, 100_000, GIB, "ok"),  # the default limit is no plan
        (1000, 99_999, GIB, "warning"),
        (200_000, 100_000, GIB, "warning"),
        (2, 100_000, 1 << 20, "warning"),
    ],
)
def test_a_warning_where_the_memory_is_less(series: int, limit: int, available: int, verdict: str) -> None:
    needs = Needs(windows=4_000, grading=5_000, objects=1_000, state=6_000)
    config = ServeConfig(topic="t", group="g", instance="a", series_limit=limit)
    (found,) = memory(needs, seen(series), 2, config, available)
    assert found.verdict == verdict
    total, free = size(needs.total(series, 2)), size(max(0, available - 200_000_000))
    assert found.found.startswith(f"{series:,} series: up to {total} of memory, {size(6_000 * series)} of g-state; ")
    at_limit = f"at --series-limit ({limit:,} x 2 partitions): {size(needs.total(2 * limit, 2))} of the {free} that"
    assert at_limit in found.found
    parts = {"series_windows": 4_000, "series_grading": 5_000, "series_objects": 1_000, "series_state": 6_000}
    assert found.numbers == parts | {
        "seen": series,
        "seen_total": needs.total(series, 2),
        "limit": 2 * limit,
        "limit_total": needs.total(2 * limit, 2),
        "available": available,
        "process": 200_000_000,
    }
    if verdict == "warning":
        room = int(found.todo.rpartition(" ")[2])
        better = ServeConfig(topic="t", group="g", instance="a", series_limit=room)
        assert available < GIB or [each.verdict for each in memory(needs, seen(1), 2, better, available)] == ["ok"]


@given(st.integers(0, 5_000))
def test_the_arrays_have_the_room_that_is_counted(series: int) -> None:
    """As those of the windows and of the tracks grow."""
    rows, tracks = StepBuffers(1, 1, timed=False), TrackStore({"x": Field("<f4")}, 2)
    table = Table(rows.reserve)
    for number in range(series):
        table.row(f"series {number}")
        tracks.allocate()
    assert reserved(series) == tracks.nbytes // tracks.series_bytes == rows.nbytes // rows.row_bytes
    assert reserved(series) == table.nbytes // ROW_BYTES


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "1000", "memory.max": "2000"}, 1000),
        ("0::/\n", {"memory.max": "3000"}, 3000),
        ("0::/a\n", {}, None),
        ("5:cpu:/x\n4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "700", "cpu/x/memory.max": "1"}, 700),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": str(2**63 - 4096)}, None),
        (None, {"memory.max": "1"}, None),
    ],
)
def test_the_memory_of_a_process_is_the_least_that_its_cgroups_allow(
    tmp_path: Path, own: str | None, limits: dict[str, str], expected: int | None
) -> None:
    for name, text in limits.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    if own is not None:
        (tmp_path / "own").write_text(own)
    found = available_memory(tmp_path / "cgroup", tmp_path / "own")
    assert found == expected if expected else found > GIB


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_600, "1 MB"), (5 * 10**12, "5,000 GB")]
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert size(count) == text
