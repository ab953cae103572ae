"""Which topics are shown, and what becomes of the page as they come, go and change."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dashboards import MINUTE, START, STEPS, Page, StartPage, Writer, streamed, value
from waiting import until

from deploy.dashboard.topics.reader import Reader
from deploy.dashboard.topics.state import State, Topics
from pipeline.log import Bounds, Record
from pipeline.log.connect import connect
from pipeline.log.sqlite import SqliteLog
from pipeline.log.topics import TopicIdentity
from tidecast.errors import NotAuthorized


def test_new_values_and_forecasts_arrive_by_themselves(start_page: StartPage, writer: Writer, address: str) -> None:
    writer.steps(range(3))
    page = start_page("--bootstrap", address)
    page.until_read()
    with streamed(page, view="series", series="good") as events:
        first = next(body for name, body in events if name == "points")
        assert first["values"]["ts"] == [START + step * MINUTE for step in range(3)]
        writer.steps([3])
        new = [*first["values"]["ts"]]
        for name, body in events:
            new += body["values"]["ts"] if name == "points" else []
            if name == "points" and body["forecast"]["ts"] == START + 3 * MINUTE and len(new) > 3:
                break
        assert new == [START + step * MINUTE for step in range(4)]
    with streamed(page, view="fleet", sort="name") as events:
        assert next(body for name, body in events if name == "fleet")["total"] == 3
    page.until(lambda page: page.get("service")["throughput"]["over_s"] > 0)


def test_a_stream_goes_on_from_a_time(shown: Page) -> None:
    with streamed(shown, view="series", series="good", since=START + 25 * MINUTE) as events:
        points = next(body for name, body in events if name == "points")
    assert points["values"]["ts"] == [START + step * MINUTE for step in range(26, STEPS)]


def test_a_slow_page_holds_up_no_other(shown: Page) -> None:
    with streamed(shown, view="fleet"), streamed(shown, view="fleet") as events:  # the first is never read
        assert next(body for name, body in events if name == "fleet")["total"] == 3


@pytest.mark.slow
def test_topics_may_come_later_go_and_come_again(start_page: StartPage, tmp_path: Path) -> None:
    address = f"sqlite:{tmp_path / 'log.db'}"
    page = start_page("--bootstrap", address, "--topic", "tides")
    assert page.get("overview")["series"] == 0
    assert page.get("overview")["topics"]["input"] is None
    with closing(connect(address)) as log:
        Writer(log).steps(range(3))
    page.until(lambda page: page.get("overview")["series"] == 3)
    for file in tmp_path.glob("log.db*"):
        if file.is_file():
            file.unlink()
    page.until(lambda page: page.get("overview")["topics"]["input"] is None)
    assert page.get("series", series="good")["values"]["value"] == [value(0, step) for step in range(3)]
    assert not (tmp_path / "log.db").exists(), "it is not for the page to make it"
    with closing(connect(address)) as log:
        Writer(log).steps([3])
    page.until(lambda page: len(page.get("series", series="good")["values"]["value"]) == 4)


def test_the_only_topic_with_forecasts_is_taken(start_page: StartPage, writer: Writer, address: str) -> None:
    overview = start_page("--bootstrap", address).get("overview")
    assert (overview["topic"], overview["group"]) == ("tides", "tidecast-tides-m")


def test_the_group_is_the_one_that_has_read_the_topic(
    start_page: StartPage, writer: Writer, address: str, tmp_path: Path
) -> None:
    writer.all()
    Writer(writer.log, "waves", "others")
    assert start_page("--bootstrap", address, "--topic", "tides").get("overview")["group"] == "tidecast-tides-m"
    assert start_page("--bootstrap", address, "--topic", "waves").get("overview")["group"] is None
    assert "--group NAME" in (tmp_path / "err.log").read_text()


def test_of_several_topics_one_is_asked_for(tidecast: Callable[..., Any], writer: Writer, address: str) -> None:
    Writer(writer.log, "waves", "tidecast-waves-m")
    ended = tidecast("dashboard", "--bootstrap", address, "--port", 0)
    assert ended.returncode == os.EX_CONFIG
    assert "--topic NAME" in ended.stderr
    assert "tides" in ended.stderr
    assert "waves" in ended.stderr


def test_whatever_else_runs_there_comes_first(start_page: StartPage, writer: Writer, address: str) -> None:
    assert os.getpriority(os.PRIO_PROCESS, start_page("--bootstrap", address).process.pid) == 19


def test_what_comes_too_fast_is_read_later_the_newest_first(
    writer: Writer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.dashboard.topics.reader.FAR_BEHIND", 40)
    monkeypatch.setattr("deploy.dashboard.topics.reader.CHUNK", 10)
    writer.steps(range(5))
    state, taken = State(Topics(input="tides", output="tides-forecasts", group=None)), list[int]()
    reader = Reader(lambda: SqliteLog(address[7:]), SqliteLog(address[7:]), state, None, members=False)
    take = state.take

    def noted(kind: str, records: Sequence[Record], *, live: bool) -> None:
        taken.extend(record.offset for record in records if kind == "input")
        take(kind, records, live=live)

    monkeypatch.setattr(state, "take", noted)
    reader.start()
    until(lambda: bool(reader.progress["caught_up"]))
    with state.lock:  # the reader waits
        writer.steps(range(5, STEPS))
    until(lambda: len(taken) == 3 * STEPS)
    reader.stop()
    assert sorted(taken) == list(range(3 * STEPS)), "each once"
    assert taken[15] > 40, "the newest first"
    assert reader.progress["skipped"] == 0
    assert state.service.throughput["records_s"] >= 0
    (track, *_) = state.fleet.of_series("good")
    rows = state.store.values.select("ts", "track = ?", (track.number,), "ORDER BY ts")
    assert [ts for (ts,) in rows] == [START + step * MINUTE for step in range(STEPS)]


def test_the_page_ends_at_a_signal(start_page: StartPage, writer: Writer, address: str) -> None:
    page = start_page("--bootstrap", address)
    with streamed(page, view="fleet") as events:
        next(events)
        page.process.terminate()
        assert page.process.wait(20) in (0, 143)


def test_a_topic_that_may_not_be_read_is_left_out(writer: Writer, address: str) -> None:
    class Guarded(SqliteLog):
        def identities(self, topics: Iterable[str]) -> dict[str, TopicIdentity]:
            names = list(topics)
            if "tidecast-tides-m-state" in names:
                raise NotAuthorized("no Describe")
            return super().identities(names)

        def bounds(self, topic: str) -> dict[int, Bounds]:
            if topic == "tides-forecasts-alerts":
                raise NotAuthorized("no Read")
            return super().bounds(topic)

    writer.all()
    state = State(Topics(input="tides", output="tides-forecasts", group="tidecast-tides-m"))
    reader = Reader(lambda: Guarded(address[7:]), Guarded(address[7:]), state, None, members=False)
    reader.start()
    until(lambda: bool(reader.progress["caught_up"]))
    reader.stop()
    assert len(state.fleet.tracks) == 3
    assert {each.kind: each.refused for each in reader.topics if each.refused} == {
        "state": "no Describe", "alerts": "no Read",
    }  # fmt: skip
    assert reader.error is None
