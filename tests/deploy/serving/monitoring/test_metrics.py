"""The metrics: their names, their values, and what is left out where it is not known."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.models.updates import Following
from deploy.serving.monitoring import exposition as expositions
from deploy.serving.monitoring.exposition import Exposition
from deploy.serving.monitoring.group_offsets import KNOWN_S, GroupOffsets
from deploy.serving.monitoring.metrics import METRICS
from deploy.serving.monitoring.stats import STAGES, ServiceStats
from model.online.scores import SUMS, Bucket, Part
from model.online.values import Tally

OPERATIONS = Path(__file__).resolve().parents[4] / "docs" / "operations.md"


def full() -> ServiceStats:
    """Everything that a service may tell."""
    about = {"topic": "power", "output": "power-forecasts", "group": 'g"\n', "instance": "a"}
    stats = ServiceStats("forecasts", about, missing="", records=7, predictions=5, model="power/7", device="cpu")
    stats.dead_letters.update({"schema": 2})
    stats.latency_ms.observe([3, 30, 99_999_999])
    for stage in STAGES:
        with stats.stage(stage):
            pass
    stats.batch_sizes.observe_one(5)
    stats.model_since, stats.trained_until, stats.coverage = 1_700_000_000.5, 1_700_000_000_000, 0.9
    stats.webhook, stats.shadow = {"posted": 1, "failed": 2, "not_sent": 3}, {"failed": 1}
    stats.following = Following(checked=1_700_000_000.0, up_to_date=False, refused=1)
    stats.workers = {"0": (True, 2)}
    stats.offsets = GroupOffsets({0: 10, 1: 5}, {0: 7, 1: 5}, 1, True, time.monotonic())
    stats.tally = Tally(100, 90, 81, anomalies=2)
    stats.tally.findings["drift", "begin"] += 1
    return stats


def samples(stats: ServiceStats) -> dict[tuple[str, ...], float]:
    """By name and the values of labels, which are sorted."""
    text = Exposition(lambda: stats).render().decode()
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(each.name, *each.labels.values()): each.value for each in found}


def test_names_follow_prometheus_conventions() -> None:
    names = [each.name for each in METRICS]
    assert len(set(names)) == len(names)
    for each in METRICS:
        assert re.fullmatch(r"tidecast_[a-z]+(_[a-z]+)*", each.name)
        assert each.name.endswith("_total") == (each.kind == "counter"), each.name
        assert not re.search(r"_(ms|milliseconds|minutes|mib|percent|count|sum|bucket)\b", each.name), each.name
        assert each.text.endswith("."), each.name
        assert not {"series", "key", "le"} & {*each.labels}, f"{each.name}: a label with too many values"


def test_all_of_it_is_exposed_as_it_is() -> None:
    found = samples(full())
    names = {re.sub("_(bucket|count|sum)$", "", name) for name, *_ in found}
    assert {each.name for each in METRICS} <= names
    assert found["tidecast_records_total",] == 7
    assert found["tidecast_lag_records", "0"] == 3
    assert found["tidecast_lag_records", "1"] == 0
    assert found["tidecast_dead_letters_total", "schema"] == 2
    assert found["tidecast_alerts_total", "drift", "begin"] == 1
    assert found["tidecast_dead_letters_total", "bad_time"] == found["tidecast_alerts_total", "spike", "end"] == 0
    assert found["tidecast_model_info", "cpu", "power", "", "7"] == 1
    assert found["tidecast_model_up_to_date",] == 0
    assert found["tidecast_webhook_alerts_total", "failed"] == 2
    assert found["tidecast_model_trained_until_timestamp_seconds",] == 1_700_000_000
    assert found["process_resident_memory_bytes",] > 1_000_000


def test_a_histogram_is_cumulative_and_in_seconds() -> None:
    found = samples(full())
    buckets = {float(key[1]): value for key, value in found.items() if key[0] == "tidecast_latency_seconds_bucket"}
    assert (buckets[0.002], buckets[0.005], buckets[0.05], buckets[3600], buckets[float("inf")]) == (0, 1, 2, 2, 3)
    assert found["tidecast_latency_seconds_count",] == 3
    assert found["tidecast_latency_seconds_sum",] == pytest.approx(100_000.032)
    assert list(buckets) == sorted(buckets)


def test_what_is_not_known_is_left_out() -> None:
    found = {name for name, *_ in samples(ServiceStats("labels"))}
    unknown = ("model_info", "model_up_to_date", "registry_up", "lag_records", "broker_up", "coverage_target_ratio")
    assert not {f"tidecast_{name}" for name in (*unknown, "shadow_failures_total", "webhook_alerts_total")} & found
    assert {"tidecast_ready", "tidecast_records_total", "tidecast_checkpoint_timestamp_seconds"} <= found


def test_an_old_answer_of_the_broker_is_no_lag() -> None:
    stats = full()
    stats.offsets.answered = time.monotonic() - KNOWN_S - 1
    found = samples(stats)
    assert not [key for key in found if key[0] in ("tidecast_lag_records", "tidecast_committed_offset")]
    assert (found["tidecast_broker_up",], found["tidecast_broker_errors_total",]) == (0, 1)


def test_however_many_ask_it_is_looked_up_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = full()
    exposition = Exposition(lambda: stats)
    first = exposition.render()
    stats.records += 1
    assert exposition.render() is first
    monkeypatch.setattr(expositions, "RENDERED_EVERY_S", 0.0)
    assert b"tidecast_records_total 8.0" in exposition.render()


def test_skill_is_that_of_closed_buckets_relative_to_each_series_scale() -> None:
    tally = Tally()
    sums = np.zeros((2, len(SUMS)))
    sums[:, SUMS.index("absolute_error")], sums[:, SUMS.index("naive_absolute_error")] = (1, 3), (4, 6)
    tally.add_bucket(Bucket(0, 1, [Part(0, 1, sums), Part(1, 1, sums)], [[0, 0], [0, 0]], [2.0, None]))
    assert (tally.scaled_error, tally.naive_scaled_error) == (2.0, 5.0)


def test_the_manual_has_each_metric() -> None:
    rows = dict(re.findall(r"^\| `(tidecast_\w+)` \| ([^|]*) \|", OPERATIONS.read_text(), re.MULTILINE))
    assert rows == {each.name: ", ".join(f"`{label}`" for label in each.labels) for each in METRICS}


def test_promtool_finds_nothing_wrong() -> None:
    if not (promtool := shutil.which("promtool")):
        pytest.skip("promtool is not installed: it comes with Prometheus")
    text = Exposition(full).render()
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
