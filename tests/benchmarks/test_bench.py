"""What `make bench` makes of what it measured."""

import json
from pathlib import Path
from typing import Any

import bench
from bench_report import ratios, table

MACHINE = {"processor": "a processor", "cores": 2}
SPEED = {"m": {"Tidecast": [300, 100], "Tidecast, exactly once": [150, 150], "Kafka Streams": [50, 50]}}
LATENCY = {"500": {"Tidecast": [{"p50_ms": 1.0, "p99_ms": 2.0, "p999_ms": 3.0}]}}


def results() -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps({"machine": MACHINE, "speed": SPEED, "latency": LATENCY}))
    return copy


def test_ratios_are_of_medians_over_all_rounds_of_all_runs(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    bench.store(results(), file)
    kept = bench.kept(file)
    bench.add(kept, {"speed": {"m": {"Tidecast": [200], "Quix": [100]}}})
    assert kept["speed"]["m"]["Tidecast"] == [300, 100, 200]
    assert ratios(kept["speed"])["m"]["Tidecast"] == {
        "Tidecast, exactly once": 1.333,
        "Kafka Streams": 4.0,
        "Quix": 2.0,
    }
    assert set(ratios(kept["speed"])["m"]) == {"Tidecast", "Tidecast, exactly once"}


def test_a_file_has_its_picture_beside_it(tmp_path: Path) -> None:
    bench.store(results(), tmp_path / "docs" / "speed.json")
    assert (tmp_path / "docs" / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_has_all_parts_that_were_measured_and_no_other() -> None:
    text = table({**results(), "start": {"help": [0.5, 0.25, 0.25]}})
    assert "Kafka Streams" in text
    assert "4.00" in text  # the median of ours, 200, to its 50
    assert "latency at 500 records/s" in text
    assert text.splitlines()[-1].split() == ["help", "0.25"]
    assert "stages" not in text


def test_runs_that_measured_no_speed_are_kept_without_a_picture(tmp_path: Path) -> None:
    bench.store({"machine": MACHINE, "start": {"help": [0.5]}}, tmp_path / "speed.json")
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]
