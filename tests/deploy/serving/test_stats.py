"""What a service knows of itself."""

from deploy.serving.stats import Histogram, ServiceStats


def test_a_histogram_counts_up_to_each_bound_and_above() -> None:
    histogram = Histogram((1, 10, 100))
    histogram.add([0.5, 1, 2, 10, 99])
    histogram.add([1000])
    assert histogram.counts.tolist() == [2, 2, 1, 1]
    assert histogram.total == 1112.5
    assert [histogram.quantile(share) for share in (0.3, 0.5, 0.8)] == [1, 10, 100]
    assert histogram.quantile(0.99) is None, "above all bounds"


def test_nothing_yet() -> None:
    stats = ServiceStats("forecasts")
    assert stats.line() == "0 records, 0 forecasts, 0 dead letters"
    assert stats.gauges_line() == "lag 0, no latency yet"


def test_lines_and_summary_are_two_readers_of_the_same_numbers() -> None:
    stats = ServiceStats("forecasts", model="power/7", device="cpu", records=1200, forecasts=1100)
    stats.dead_letters.update({"schema": 3, "bad_time": 1})
    stats.lag = {0: 5, 1: 7}
    stats.latency_ms.add([3] * 99 + [40])
    assert stats.line() == "1,200 records, 1,100 forecasts, 4 dead letters"
    assert stats.gauges_line() == "lag 12, latency p50 up to 5 ms, p99 up to 5 ms"
    summary = stats.summary()
    assert (summary["model"], summary["records"], summary["dead_letters"]) == ("power/7", 1200, 4)
    assert summary["dead_letters_by_reason"] == {"schema": 3, "bad_time": 1}
    assert summary["latency_ms"] == {"p50": 5, "p99": 5}
