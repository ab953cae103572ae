"""Retraining on drift: only where the alerts of enough series say so, not too often, and on what came after."""

import json
import logging
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tides import HOUR, JOB, START, history, tide
from waiting import Idle

from deploy.data import DataSource
from deploy.lifecycle.drift import Drift, DriftCheck
from deploy.lifecycle.retrain import run_retraining
from deploy.models.loading import load_onnx
from deploy.serving import loop
from deploy.serving.loop import Service
from deploy.serving.tasks import task_for
from deploy.settings.serve import ServeConfig
from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from pipeline.datasets.history import from_frame
from pipeline.formats.alerts import Alert, AlertKind, Phase, encode_alert
from pipeline.formats.events import Event, encode
from pipeline.log.connect import connect
from tidecast.errors import ConfigError, DataError, UnknownTopic

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]
Found = dict[str, Any]
TRAINED = 799
"""The hour of the champion's last training data."""


def alert(hour: int, series: str = "harbour", phase: Phase = "begin", kind: AlertKind = "drift", **more: Any) -> Alert:
    ts = START + HOUR * hour
    return Alert(series=series, kind=kind, phase=phase, size=2, text="", **{"ts": ts, "since": ts} | more)


class Harbour:
    """A table of the tides, an alerts topic, and what a retraining on drift makes of them."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self._table, self._registry = folder / "tides.csv", registry
        self.address = f"sqlite:{folder / 'alerts.db'}"
        with closing(connect(self.address)) as log:
            log.create_topic("out-alerts", 2)

    def tell(self, *alerts: Alert | bytes) -> None:
        with closing(connect(self.address)) as log, closing(log.producer()) as producer:
            for each in alerts:
                value = each if isinstance(each, bytes) else encode_alert(each)
                producer.send("out-alerts", len(value) % 2 if isinstance(each, bytes) else 1, b"", value)
            producer.flush()

    def retrain(self, hours: int = 1800, others: int = 0, **settings: Any) -> Found:
        """With a history of the harbour, and of so many other series beside it."""
        tides = history(hours, turn=900).frame.select("series", "ts", "value")
        names = [f"pier-{number}" for number in range(others)]
        pl.concat([tides, *(tides.with_columns(series=pl.lit(name)) for name in names)]).write_csv(self._table)
        check = DriftCheck(**{"bootstrap": self.address, "output": "out", "share": 0.2, "at_most_every": 0, **settings})
        return run_retraining(JOB, DataSource(file=str(self._table)), self._registry.tracking_uri, check)

    @property
    def versions(self) -> int:
        return len(self._registry.versions("tides"))


@pytest.fixture
def harbour(tmp_path: Path, registry: Registry) -> Harbour:
    return Harbour(tmp_path, registry)


def test_without_a_drift_nothing_is_read_or_trained(harbour: Harbour, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "deploy")
    harbour.tell(
        *(alert(hour, kind=kind) for hour, kind in [(900, "spike"), (910, "gap"), (920, "level_shift")]),  # type: ignore[arg-type]
        *(alert(TRAINED, "told before"), alert(900, "over"), alert(990, "over", "end", since=START + 900 * HOUR)),
        *(b"{", b"[]"),
    )
    check = DriftCheck(bootstrap=harbour.address, output="out", share=0.2, at_most_every=0)
    found = run_retraining(JOB, DataSource(file="none.csv"), str(harbour._registry.tracking_uri), check)
    assert (found["model"], found["decision"]) == ("tides/1", "no drift")
    why = "none is open since the champion's last training data (2024-02-03 07:00 UTC): nothing to do"
    assert f"tides/1: no drift: {why}" in caplog.text
    assert "out-alerts: 2 records are no alerts, and are left out" in caplog.text
    assert harbour.versions == 1


def test_a_drift_in_too_few_series_is_no_reason(harbour: Harbour) -> None:
    harbour.tell(alert(1000), alert(1000, "of another topic"))
    found = harbour.retrain(others=5)
    assert (found["decision"], harbour.versions) == ("no drift", 1)
    assert found["drift"] == {"series": 1, "of": 6, "share": 1 / 6, "since": "2024-02-11 16:00"}
    assert "1 of 6 series (0.167) drift, since 2024-02-11 16:00 UTC, fewer than 0.2" in found["why"]


def test_after_a_drift_it_learns_from_what_came_after_once_the_newest_version_is_old_enough(harbour: Harbour) -> None:
    harbour.tell(alert(1000), alert(1100, "pier-0"))
    early = harbour.retrain(others=1, at_most_every=3_600_000)
    assert (early["decision"], harbour.versions) == ("too soon", 1)
    assert "(--at-most-every)" in early["why"]
    found = harbour.retrain(others=1)
    assert (found["model"], found["decision"]) == ("tides/2", "promote"), found
    assert found["learned"]["from"] == found["drift"]["since"] == "2024-02-11 16:00"
    assert found["learned"]["events"] + found["judged"]["events"] == (1800 - 1000) + (1800 - 1100)
    assert harbour.retrain(others=1)["decision"] == "no drift", "both were told before the new champion was trained"


def test_it_waits_until_enough_has_come_after_the_change(harbour: Harbour) -> None:
    needed = 48 + 2 * 6 + 125
    harbour.tell(alert(1000))
    early = harbour.retrain(1000 + needed - 10)
    assert (early["decision"], early["missing"], harbour.versions) == ("undecided", 10, 1)
    assert "since 2024-02-11 16:00 UTC; of what came after, 10 steps are missing" in early["why"]
    later = harbour.retrain(1000 + needed)
    assert later["decision"] == "undecided"
    assert "what came after is not enough: too few windows" in later["why"]


def test_without_the_topic_of_alerts_it_is_an_error(harbour: Harbour) -> None:
    with pytest.raises(UnknownTopic, match=r"no topic nowhere-alerts: no service has written alerts; serve without"):
        harbour.retrain(output="nowhere")
    with pytest.raises(ConfigError, match=r"out-alerts is the topic of the alerts: give that of the forecasts, out$"):
        harbour.retrain(output="out-alerts")


def test_records_that_are_all_no_alerts_are_an_error_and_not_no_drift(harbour: Harbour) -> None:
    harbour.tell(b"{", b"[]")
    with pytest.raises(DataError, match=r"^out-alerts: none of its 2 records is an alert of Tidecast$"):
        harbour.retrain()


def test_a_name_without_a_model_is_refused_as_nothing_can_have_drifted(
    harbour: Harbour, registry: Registry, tidecast: Tidecast
) -> None:
    stored = ("--tracking-uri", registry.tracking_uri, "--bootstrap", harbour.address)
    ended = tidecast("retrain", "--on-drift", "--name", "tydes", "--topic", "tides", *stored)
    assert ended.returncode == 78
    assert "no model is called tydes: tidecast train --name tydes trains one; there are: tides" in ended.stderr
    assert registry.names() == ["tides"]


@pytest.mark.parametrize("command", [("retrain",), ("schedule", "--every", "1h")])
def test_options_of_a_drift_are_refused_without_it(tidecast: Tidecast, command: tuple[str, ...]) -> None:
    for option, value in (("--drift-share", "0.5"), ("--at-most-every", "1d"), ("--output", "out")):
        ended = tidecast(*command, "--name", "tides", "--topic", "tides", option, value)
        assert ended.returncode == 78, ended.stderr
        assert f"{option} is for --on-drift only" in ended.stderr
    for option, value in (("--drift-share", "5"), ("--at-most-every", "soon")):
        ended = tidecast(*command, "--name", "tides", "--topic", "tides", "--on-drift", option, value)
        assert ended.returncode == 78, "a schedule says it at its start"
        assert f"{option[2:]}: " in ended.stderr


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_a_share_is_one(share: float) -> None:
    with pytest.raises(ConfigError, match="drift-share"):
        DriftCheck(bootstrap="", output="", share=share, at_most_every=0)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 30), min_size=1))
def test_each_series_has_only_what_came_after_its_own_change(since: dict[str, int]) -> None:
    names = sorted("abcde" * 20)
    events = from_frame(pl.DataFrame({"series": names, "ts": [*range(20)] * 5, "value": 1.0}))
    champion = Version("m", "1", "r", "", {"trained_until": "4"})
    drift = Drift.of(since, events, champion)
    assert (drift.series, set(drift.since)) == (5, set(since) - {"f"})
    if drift.since:
        left = set(drift.after(events).frame.select("series", "ts").iter_rows())
        first = min(drift.since.values())
        assert left == {(name, ts) for name in "abcde" for ts in range(drift.since.get(name, first), 20)}


def served(address: str, topic: str, values: "np.ndarray[Any, Any]", registry: Registry, folder: Path) -> None:
    """Publish and serve what the harbour's level was."""
    version = registry.resolve("tides")
    predictor = load_onnx(registry.download(version, folder), version.label, "cpu")
    config = ServeConfig(topic=topic, group=topic, instance="a").with_outputs("forecasts", shadow=False)
    with closing(connect(address)) as log, closing(log.producer()) as producer:
        log.create_topic(topic, 1)
        for hour, value in enumerate(values):
            producer.send(topic, 0, b"harbour", encode(Event("harbour", START + hour * HOUR, (float(value),))))
        producer.flush()
        service = Service(log, predictor, task_for(predictor, config), config)
        service.run(Idle(lambda: service.stats.taken))


@pytest.mark.parametrize("changes", [True, False])
def test_a_served_stream_that_changes_is_learned_from_after_its_change_and_a_stable_one_is_not(
    registry: Registry, tidecast: Tidecast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, changes: bool
) -> None:
    monkeypatch.setattr(loop, "POLL_S", 0.0)
    address = f"sqlite:{tmp_path / 'log.db'}"
    level = tide(1800, 900) if changes else tide(1800, 10**9)
    level[900:] += 2 * (level[900:] - 10) * changes
    served(address, "tides", level, registry, tmp_path / "cache")
    command = [*("retrain", "--name", "tides", "--topic", "tides", "--arch", "linear", "--on-drift", "--json")]
    command += ["--bootstrap", address, "--tracking-uri", registry.tracking_uri]
    first = tidecast(*command)
    assert first.returncode == 0, first.stderr
    if not changes:
        assert json.loads(first.stdout)["decision"] == "no drift"
        assert "no drift: none is open since the champion" in first.stderr
        return
    assert json.loads(first.stdout)["decision"] == "too soon", "the champion was trained just now"
    ended = tidecast(*command, "--at-most-every", "1ms")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["model"], found["decision"]) == ("tides/2", "promote"), found
    assert found["learned"]["from"] == found["drift"]["since"] > "2024-02-07 12:00", "the hour of the change"
    assert registry.resolve("tides").label == "tides/2"


@pytest.mark.slow
def test_a_schedule_looks_at_the_alerts_each_time(
    harbour: Harbour, registry: Registry, start_tidecast: Callable[..., "subprocess.Popen[str]"]
) -> None:
    harbour.tell(alert(900), alert(990, phase="end"))
    process = start_tidecast(
        *("schedule", "--on-drift", "--name", "tides", "--topic", "tides", "--output", "out", "--every", "1s"),
        *("--bootstrap", harbour.address, "--tracking-uri", registry.tracking_uri),
    )
    assert process.stderr is not None
    looked = 0
    for line in process.stderr:
        looked += "no drift: none is open" in line
        if looked == 2:
            break
    process.terminate()
    assert process.wait() == 0
