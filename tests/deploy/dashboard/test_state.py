"""What is kept of topics, in whichever direction they are read, and of which versions."""

import gzip
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from dashboards import HOSTILE, MINUTE, SERIES, START, STEPS, Kept, StartPage, Writer, forecast, new_state, value
from hypothesis import given
from hypothesis import strategies as st

from deploy.dashboard.topics.state import State
from deploy.dashboard.topics.store import PARTS, Store
from deploy.dashboard.views.parameters import Query
from deploy.dashboard.views.past import ahead
from deploy.dashboard.views.series import series_view
from deploy.dashboard.views.shadow import shadow_rows
from deploy.dashboard.views.times import step_times
from pipeline.formats.forecasts import Forecast
from pipeline.formats.labels import Label
from pipeline.log import Record
from pipeline.log.connect import connect

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "b0baf3e"
KINDS = {"input": "", "output": "-forecasts", "scores": "-forecasts-scores", "alerts": "-forecasts-alerts"}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Record]]:
    """All records of a log, by kind of topic."""
    with closing(connect(f"sqlite:{tmp_path_factory.mktemp('log') / 'log.db'}")) as log:
        Writer(log).all()
        topics = {kind: f"tides{ending}" for kind, ending in KINDS.items()}
        return {
            kind: [each for batch in log.read(topic, 0, *log.bounds(topic)[0]) for each in batch]
            for kind, topic in topics.items()
        }


def shown(state: State) -> list[Any]:
    """All that depends on the order of records."""
    views = [series_view(state, Query({"series": name})) for name in SERIES]
    silent = [state.fleet.is_silent(track) for track in state.fleet.ordered("", "name", False, None, None)]
    rows = [[row.model, row.count, row.mae, row.since] for row in state.graded.totals.rows("model")]
    for view in views:
        view["scores"] = None  # sums whose order differs
    return [views, silent, state.models.swaps, state.models.labels, rows]


@given(st.integers(0, STEPS * len(SERIES)), st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_past_read_backwards_leaves_what_reading_on_leaves(
    records: dict[str, list[Record]], live: int, chunk: int, random: Any
) -> None:
    """Of each topic the newest are live, and all others come before them in chunks, from the end backwards."""
    forwards, backwards = new_state(), new_state()
    kinds = list(records)
    for kind in sorted(kinds, reverse=True):  # scores first
        forwards.take(kind, records[kind], live=True)
    random.shuffle(kinds)
    for kind in kinds:
        at = max(0, len(records[kind]) - live)
        past, new = records[kind][:at], records[kind][at:]
        ends = range(len(past), 0, -chunk)
        for number, end in enumerate(ends):
            if number == len(ends) // 2:
                backwards.take(kind, new, live=True)
                new = []
            backwards.take(kind, past[max(0, end - chunk) : end], live=False)
        backwards.take(kind, new, live=True)
    one, other = shown(forwards), shown(backwards)
    assert other[0] == one[0]
    assert other[1:4] == one[1:4]
    assert [each[:2] for each in other[4]] == [each[:2] for each in one[4]]


def test_scores_that_were_written_twice_count_once_and_the_last_counts(records: dict[str, list[Record]]) -> None:
    state = new_state()
    state.take("scores", records["scores"], live=True)
    before = state.graded.totals.rows("model")
    state.take("scores", records["scores"], live=True)
    assert state.graded.totals.rows("model") == before


def test_the_store_keeps_the_newest_within_its_limit() -> None:
    store = Store(limit=2_000_000)
    for step in range(40_000):
        store.forecasts.add([(0, step, step, 1, 0, 0.0, 0.9, "model", 0, step, b"x" * 40, None, None)], 100)
    kept = [row[0] for row in store.forecasts.select("ts", "track = ?", (0,), "ORDER BY ts")]
    assert kept == list(range(40_000 - len(kept), 40_000))
    assert (PARTS - 1) / PARTS * 12_000 <= len(kept) <= 12_000
    assert store.forecasts.dropped > 0
    store.close()


@pytest.mark.parametrize("topic", ["power", "plant", "meter", "tide"])
def test_forecasts_of_earlier_versions_are_shown(start_page: StartPage, tmp_path: Path, topic: str) -> None:
    (tmp_path / "log.db").write_bytes(gzip.decompress((FIXTURES / "log.db.gz").read_bytes()))
    output = "plant-out" if topic == "plant" else f"{topic}-forecasts"
    page = start_page("--bootstrap", "sqlite:log.db", "--topic", topic, "--output", output)
    page.until_read()
    rows = page.get("fleet", limit=500)["rows"]
    series = [page.get("series", series=row["series"], target=row["target"]) for row in rows]
    assert any(each["values"]["ts"] for each in series)
    made = [each["forecast"] for each in series if each["forecast"]]
    assert made
    for each in made:
        assert len(each["times"]) == len(each["forecast"])
        assert each["ts"] < each["times"][0]
        assert each["times"] == sorted(set(each["times"]))
        assert each["lower"] is None
    if topic == "tide":
        assert made[0]["times"][:3] == months("2025-01", 3)
    if topic == "plant":
        assert {row["target"] for row in rows} == {"load", "temp"}


def test_a_forecast_that_says_no_times_has_those_of_its_series_steps() -> None:
    state, steps = new_state(), range(5)
    events = [msgspec.json.encode({"series": "s", "ts": START + n * MINUTE, "value": 1.0}) for n in steps]
    state.take("input", [Kept(each, n, timestamp=START + n * MINUTE) for n, each in enumerate(events)], live=True)
    message = msgspec.json.encode({"series": "s", "ts": START + 4 * MINUTE, "forecast": [1.0, 2.0], "model": "m"})
    state.take("output", [Kept(message)], live=True)
    found = series_view(state, Query({"series": "s"}))["forecast"]
    assert found["times"] == [START + 5 * MINUTE, START + 6 * MINUTE]
    assert (found["lower"], found["coverage"], found["sha256"]) == (None, None, None)


def test_texts_have_their_labels(start_page: StartPage, writer: Writer, address: str) -> None:
    writer.log.create_topic("sms", 1)
    writer.log.create_topic("sms-labels", 1)
    texts = [f"text {number} {HOSTILE}" for number in range(5)]
    labels = ["spam", "ham", "ham", "ham", "spam"]
    writer.send("sms", [(f"{n}".encode(), msgspec.json.encode({"text": text}), []) for n, text in enumerate(texts)])
    headers = [[("tidecast.input", b"sms/0"), ("tidecast.offsets", b"%d-%d" % (n, n))] for n in range(5)]
    answers = [msgspec.json.encode(Label(f"{n}", label, 0.5 + n / 10, "sms/1")) for n, label in enumerate(labels)]
    writer.send("sms-labels", [(None, each, about) for each, about in zip(answers, headers, strict=True)])
    page = start_page("--bootstrap", address, "--topic", "sms")
    page.until_read()
    assert page.get("overview")["task"] == "labels"
    assert page.get("models")["answers"] == [{"model": "sms/1", "count": 5, "since": START, "until": START}]
    found = page.get("texts")
    assert [each["text"] for each in found["newest"]] == texts[::-1]
    assert found["newest"][0] == {
        "id": "4", "ts": START, "label": "spam", "probability": 0.9, "model": "sms/1", "text": texts[4],
    }  # fmt: skip
    assert [(each["label"], each["count"]) for each in found["labels"]] == [("ham", 3), ("spam", 2)]
    assert found["labels"][1]["mean_probability"] == pytest.approx(0.7)
    assert found["over_time"]["counts"] == {"ham": [3], "spam": [2]}
    assert found["over_time"]["shares"] == {"ham": [0.6], "spam": [0.4]}
    assert found["over_time"]["partial"] is True
    assert sum(found["confidence"]["counts"]) == 5
    assert (found["confidence"]["bounds"][0], found["confidence"]["bounds"][-1]) == (0.5, 1.0)
    spam = page.get("texts", label="spam")
    assert (spam["over_time"]["counts"], spam["over_time"]["shares"]) == ({"spam": [2]}, {"spam": [0.4]})
    assert sum(spam["confidence"]["counts"]) == 2
    assert [each["id"] for each in page.get("texts", label="ham")["newest"]] == ["3", "2", "1"]


def test_confidence_begins_where_a_guess_does_and_the_last_time_may_be_partial() -> None:
    state = new_state("sms-labels")
    for number in range(300):
        label = Label(str(number), "abc"[number % 3], 0.34 + 0.0022 * number, "sms/1")
        ts = START - START % MINUTE + number * 1000
        state.take("output", [Kept(msgspec.json.encode(label), number, timestamp=ts)], live=True)
    found = state.texts.view(None, 10)
    assert found["confidence"]["bounds"][0] == pytest.approx(1 / 3)
    assert sum(found["confidence"]["counts"]) == 300
    assert min(found["confidence"]["counts"]) > 20
    assert (len(found["over_time"]["ts"]), found["over_time"]["partial"]) == (5, True)
    assert all(sum(each) == pytest.approx(1) for each in zip(*found["over_time"]["shares"].values(), strict=True))
    rare = Label("x", "a", 0.1, "sms/1")
    state.take("output", [Kept(msgspec.json.encode(rare), 300, timestamp=START)], live=True)
    assert state.texts.view(None, 10)["confidence"]["bounds"][0] == pytest.approx(0.1), "there are more labels"


def months(start: str, count: int) -> list[int]:
    first = np.datetime64(start, "M")
    return [int(each) for each in (first + np.arange(count)).astype("datetime64[ms]").astype(np.int64)]


def test_steps_of_months_and_of_business_days_have_their_own_times() -> None:
    state = new_state()
    first, second = months("2026-01", 2)
    track = state.fleet.track("s", "")
    assert track is not None
    assert step_times(state, track, first, second, second - first, 5) == months("2026-02", 5)
    day, monday = 1440 * MINUTE, int(np.datetime64("2026-01-05", "ms").astype(np.int64))
    for number in range(20):
        track.add_value(monday + (number // 5 * 7 + number % 5) * day, 1.0)
    friday = monday + (3 * 7 + 4) * day
    assert step_times(state, track, friday, friday + 3 * day, 3 * day, 3) == [friday + each * day for each in (3, 4, 5)]
    thursday = friday - day
    assert step_times(state, track, thursday, friday, day, 3) == [friday + each * day for each in (0, 3, 4)]


def test_a_swap_and_the_way_back_are_both_told() -> None:
    state = new_state()
    models = ["a/1", "a/1", "a/2", "a/2", "a/1"]
    messages = [
        msgspec.json.encode(Forecast("s", START + n * MINUTE, START + (n + 1) * MINUTE, MINUTE, [1.0], "model", model))
        for n, model in enumerate(models)
    ]
    state.take("output", [Kept(each, offset) for offset, each in enumerate(messages)], live=False)
    swaps = [(START + 2 * MINUTE, "a/1", "a/2"), (START + 4 * MINUTE, "a/2", "a/1")]
    told = [{"ts": ts, "from": before, "to": since} for ts, before, since in swaps]
    assert state.models.swaps == told
    assert series_view(state, Query({"series": "s"}))["swaps"] == told
    assert ahead(state, Query({"series": "s"}))["model"] == models


def test_a_shadow_is_graded_beside_what_served_at_the_same_origins(records: dict[str, list[Record]]) -> None:
    state = new_state()
    for kind in ("scores", "output", "input"):
        state.take(kind, records[kind], live=True)
    assert shadow_rows(state) == []
    ones = [number for number in range(3 * STEPS) if number % 3 == 0]
    exact = [
        Kept(forecast(0, number // 3, "tides/9", forecast=[value(0, number // 3 + k) for k in range(1, 5)]), number)
        for number in ones
    ]
    state.take("shadow", exact, live=True)
    shadow, *served = shadow_rows(state)
    assert (shadow["model"], shadow["mae"], shadow["skill"]) == ("tides/9", 0.0, None)  # the naive is exact as well
    assert {row["model"] for row in served} == {"tides/1", "tides/2"}
    assert {row["mae"] for row in served} == {0.5}, "1 off, where the scale is 2"
    assert sum(row["count"] for row in served) == shadow["count"] > 0
    assert state.models.swaps == [{"ts": START + 20 * MINUTE, "from": "tides/1", "to": "tides/2"}]


def test_what_is_no_message_is_counted_and_nothing_breaks() -> None:
    state = new_state()
    wrong: Sequence[bytes | None] = (None, b"", b"\xff", b"[]", b"{}", b'{"series": 1}', b'{"ts": 1, "forecast": "x"}')
    for kind in ("input", "output", "scores", "alerts", "dead_letters", "state", "shadow"):
        state.take(kind, [Kept(each) for each in wrong], live=True)
    assert state.unreadable["output"] == len(wrong)
    assert not state.fleet.tracks


def test_a_long_time_is_thinned_to_its_extremes() -> None:
    state = new_state()
    events = [
        msgspec.json.encode({"series": "s", "ts": START + n * MINUTE, "value": float(n == 777)}) for n in range(2000)
    ]
    state.take("input", [Kept(each, n, timestamp=START + n * MINUTE) for n, each in enumerate(events)], live=True)
    values = series_view(state, Query({"series": "s", "from": str(START), "limit": "100"}))["values"]
    assert len(values["ts"]) <= 101
    assert values["value"][values["ts"].index(START + 777 * MINUTE)] == 1.0


def test_no_line_is_drawn_through_a_time_without_forecasts() -> None:
    state, steps = new_state(), [0, 1, 2, 10, 11]
    messages = [forecast(0, step, "tides/1") for step in steps]
    state.take("output", [Kept(each, n) for n, each in enumerate(messages)], live=True)
    found = ahead(state, Query({"series": SERIES[0], "k": "2"}))
    assert found["ts"] == [START + (step + 2) * MINUTE for step in (0, 1, 2, 3, 10, 11)]
    for name in ("forecast", "lower", "upper", "model", "made"):
        assert [each is None for each in found[name]] == [False, False, False, True, False, False], name
