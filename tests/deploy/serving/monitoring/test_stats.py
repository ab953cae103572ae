"""A service's metrics and how they are reported."""

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
