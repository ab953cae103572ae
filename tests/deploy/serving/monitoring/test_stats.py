"""A service's metrics and how they are reported."""

import pytest

from deploy.serving.monitoring.stats import Histogram, ServiceStats
from model.online.values import Tally


def test_histogram_counts_values_by_bucket() -> None:
    histogram = Histogram((1, 10, 100))
    histogram.observe([0.5, 1, 2, 10, 99])
    histogram.observe([1000])
    assert histogram.counts.tolist() == [2, 2, 1, 1]
    assert histogram.sum == 1112.5
    assert [histogram.quantile(q) for q in (0.3, 0.5, 0.8)] == [1, 10, 100]
    assert histogram.quantile(0.99) is None, "above all bounds"


def test_lines_before_the_first_record() -> None:
    stats = ServiceStats("forecasts")
    assert stats.counts_line() == "0 records, 0 forecasts, 0 dead letters"
    assert stats.delay_line() == "lag 0, no latency yet"


def test_lines_and_summary_report_the_same_numbers() -> None:
    stats = ServiceStats("forecasts", model="power/7", device="cpu", records=1200, predictions=1100)
    stats.dead_letters.update({"schema": 3, "bad_time": 1})
    stats.lag = {0: 5, 1: 7}
    stats.latency_ms.observe([3] * 99 + [40])
    assert stats.counts_line() == "1,200 records, 1,100 forecasts, 4 dead letters"
    assert stats.delay_line() == "lag 12, latency p50 up to 5 ms, p99 up to 5 ms"
    summary = stats.summary()
    assert (summary["model"], summary["records"], summary["dead_letters"]) == ("power/7", 1200, 4)
    assert summary["dead_letters_by_reason"] == {"schema": 3, "bad_time": 1}
    assert summary["latency_ms"] == {"p50": 5, "p99": 5}


def test_what_was_graded_is_said_as_values_and_left_to_the_scores_to_rate() -> None:
    """A skill that is added up as errors come would depend on the batches, and differ from that of `tidecast score`."""
    stats = ServiceStats("forecasts", tally=Tally(graded=1_200, intervals=1_000, inside=897))
    assert stats.counts_line().endswith("; 1,200 forecast values graded, 89.7% inside")
    assert (stats.summary()["graded"], stats.summary()["coverage"]) == (1_200, 0.897)
    assert "skill" not in stats.summary()


def test_forecasts_count_once_they_are_committed_and_never_fall() -> None:
    """A counter that falls is a restart to Prometheus, which adds all of it again."""
    stats = ServiceStats("forecasts", predictions=10, produced=5)
    assert stats.predictions == 10
    stats.count_committed(refused=2)
    assert (stats.predictions, stats.produced) == (13, 0)
    stats.count_committed(refused=0)
    assert stats.predictions == 13


def test_a_value_counts_as_one_of_many() -> None:
    one, many = Histogram((1, 10)), Histogram((1, 10))
    for value in (0.5, 1, 1.5, 10, 99):
        one.observe_one(value)
        many.observe([value])
    assert (one.counts.tolist(), one.sum) == (many.counts.tolist(), many.sum)


def test_what_is_changed_is_written_and_counted_anew() -> None:
    stats = ServiceStats("forecasts", since_checkpoint=7, checkpoint_at=1.0)
    stats.begin_checkpoint()
    stats.since_checkpoint += 3  # committed meanwhile, and not in it
    assert stats.checkpoint_at == 1.0
    stats.end_checkpoint()
    assert (stats.since_checkpoint, stats.checkpoint_at > 1.0) == (3, True)
    with pytest.raises(RuntimeError), stats.stage("checkpoint"):
        raise RuntimeError
    assert stats.stages["checkpoint"].counts.sum() == 0, "what failed is no stage"
