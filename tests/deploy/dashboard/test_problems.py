"""What is said to be wrong with a service, and that nothing is said when all is well."""

import shlex
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from dashboards import MINUTE, START, Kept, StartPage, Writer, forecast, new_state
from hypothesis import given
from hypothesis import strategies as st

from deploy.dashboard.topics.alerts import OpenAlerts
from deploy.dashboard.topics.followed import Followed
from deploy.dashboard.topics.letters import Letters
from deploy.dashboard.topics.reader import Reader
from deploy.dashboard.topics.service import Service
from deploy.dashboard.topics.state import State
from deploy.dashboard.views.letters import letters_view
from deploy.dashboard.views.parameters import Query
from deploy.dashboard.views.problems import Problem, problems
from pipeline.formats.alerts import Alert
from pipeline.formats.dead_letters import ADVICE, REASONS, DeadLetter, InvalidEvent, advice, encode_dead_letter
from pipeline.log import Bounds, Commit, Member
from pipeline.log.sqlite import SqliteLog

Clock = Callable[[float], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets both clocks forward."""
    wall, steady, passed = time.time(), time.monotonic(), [0.0]
    monkeypatch.setattr(time, "time", lambda: wall + passed[0])
    monkeypatch.setattr(time, "monotonic", lambda: steady + passed[0])

    def go(seconds: float) -> None:
        passed[0] += seconds

    return go


def told(state: State, error: str | None = None) -> list[Problem]:
    """The problems as a reader that is at the end sees them."""
    with TemporaryDirectory() as folder, closing(SqliteLog(f"{folder}/log.db")) as log:
        reader = Reader(lambda: log, log, state, None, members=False)
        reader.error = error
        return problems(state, reader)


def events(state: State, count: int) -> None:
    state.take("input", [Kept(b"{}", number) for number in range(count)], live=True)


def refuse(state: State, count: int, reason: str = "bad_time") -> None:
    message = encode_dead_letter(Kept(b"x"), InvalidEvent(reason, "why"))  # type: ignore[arg-type]
    records = [Kept(message.value, number, headers=message.headers) for number in range(count)]
    state.take("dead_letters", records, live=True)


def test_records_that_are_all_refused_are_a_problem(later: Clock) -> None:
    state = new_state()
    state.take("output", [Kept(forecast(0, 0, "tides/1"))], live=True)
    since = time.time()
    for _ in range(6):
        later(10)
        events(state, 10)
        refuse(state, 10)
    (problem,) = told(state)
    assert problem.what == "refused"
    assert problem.since == since
    assert "nothing was forecast since" in problem.sentence
    assert "100% of" in problem.sentence
    assert "bad_time" in problem.sentence


def test_records_that_are_forecast_are_no_problem(later: Clock) -> None:
    state = new_state()
    for step in range(100):
        later(3)
        events(state, 1)
        state.take("output", [Kept(forecast(0, step, "tides/1"), step)], live=True)
        assert told(state) == []
    later(3600)
    assert told(state) == [], "nothing comes any more"


def test_windows_that_are_filling_are_told_from_records_that_are_refused(later: Clock) -> None:
    state = new_state()
    events(state, 10)
    later(20)
    (problem,) = told(state)
    assert problem.what == "nothing"
    assert "none is refused" in problem.sentence


def test_a_few_per_cent_of_refused_records_are_a_problem(later: Clock) -> None:
    state = new_state()
    events(state, 1000)
    state.take("output", [Kept(forecast(0, 0, "tides/1"))], live=True)
    refuse(state, 20)
    assert told(state) == []
    refuse(state, 15, "schema")
    refuse(state, 5)
    (problem,) = told(state)
    assert "4% of" in problem.sentence
    assert "62% of those as bad_time" in problem.sentence
    later(600)
    assert told(state) == []


def test_a_group_without_members_is_a_problem_once_it_stays_so(later: Clock) -> None:
    state = new_state()
    for members in ([Member("a", "h")], [], []):
        state.service.look({0: Bounds(0, 10)}, {0: Commit(10)}, members)
        assert told(state) == []
    later(20)
    (problem,) = told(state)
    assert problem.what == "nobody"
    state.service.look({0: Bounds(0, 10)}, {0: Commit(10)}, [Member("a", "h")])
    assert told(state) == []


def test_a_partition_that_does_not_move_is_stuck(later: Clock) -> None:
    state, ends = new_state(), {0: Bounds(0, 100), 1: Bounds(0, 50)}
    state.service.look(ends, {0: Commit(40), 1: Commit(50)}, [Member("a", "h")])
    assert told(state) == []
    later(60)
    state.service.look(ends, {0: Commit(40), 1: Commit(50)}, [Member("a", "h")])
    (problem,) = told(state)
    assert problem.sentence.startswith("Partition 0 has not moved since")
    assert "60 records" in problem.sentence
    state.service.look(ends, {0: Commit(41), 1: Commit(50)}, [Member("a", "h")])
    assert told(state) == []


def test_an_old_checkpoint_is_a_problem_while_records_come(later: Clock) -> None:
    state = new_state()
    state.checkpoints[0] = round(time.time() * 1000), 40
    state.service.look({0: Bounds(0, 100)}, {0: Commit(100)}, None)
    later(1000)
    assert told(state) == [], "nothing comes"
    state.take("output", [Kept(forecast(0, 0, "tides/1"))], live=True)
    (problem,) = told(state)
    assert problem.what == "checkpoint"
    state.checkpoints[0] = round(time.time() * 1000), 100
    assert told(state) == []


def test_a_log_that_can_t_be_read_comes_first() -> None:
    state = new_state()
    refuse(state, 100)
    assert [each.what for each in told(state, "no route to host")] == ["log", "refused"]


def test_a_transaction_s_marker_is_no_lag() -> None:
    topic = Followed("input", "tides", "id", {0: Bounds(0, 11), 1: Bounds(0, 11), 2: Bounds(0, 1)})
    topic.positions, topic.newest = {0: 11, 1: 8, 2: 1}, {0: 9, 1: 7}
    topic.behind, topic.floor = {0: 0, 1: 0, 2: 0}, {0: 0, 1: 0, 2: 0}
    assert {number: each.end for number, each in topic.ends.items()} == {0: 10, 1: 11, 2: 0}
    service = Service()
    service.look(topic.ends, {0: Commit(10), 1: Commit(8), 2: Commit(0)}, None)
    assert service.lag == {0: 0, 1: 3, 2: 0}


def test_a_latency_of_long_ago_is_none(later: Clock) -> None:
    service = Service()
    service.note_latency([Kept(b"", timestamp=START), Kept(b"", timestamp=round(time.time() * 1000) - 250)])
    assert service.latency["count"] == 1
    assert service.latency["p50_ms"] == pytest.approx(250, abs=2)
    measured = service.latency["newest_ts"]
    later(400)
    assert service.latency["p50_ms"] is None
    assert service.latency["count"] == 0
    assert service.latency["newest_ts"] == measured == pytest.approx(1000 * (time.time() - 400), abs=2)


def test_a_burst_of_one_reason_hides_no_other_and_equal_details_are_one() -> None:
    forwards, backwards = Letters(), Letters()
    told = [("schema", "no value")] + [("bad_time", f"{n} lies ahead") for n in range(1000)] + [("late", "x")]
    letters = [
        DeadLetter(topic="t", partition=0, offset=n, timestamp=n, reason=reason, detail=detail, key=None, value=None,
                   letter=f"d/0/{n}")
        for n, (reason, detail) in enumerate(told)
    ]  # fmt: skip
    for letter in letters:
        forwards.add(letter, newest=True)
    for letter in reversed(letters):
        backwards.add(letter, newest=False)
    for found in (forwards, backwards):
        assert [(each.reason, each.offset, count) for each, count in found.newest(None)] == [
            ("schema", 0, 1), ("bad_time", 1000, 1000), ("late", 1001, 1),
        ]  # fmt: skip
        reason, most = found.most_frequent[0]
        assert (reason, most.count, most.first, most.newest) == ("bad_time", 1000, 1, 1000)
        assert found.total == 1002


def test_a_reason_that_others_wrote_is_a_short_line_and_harmless_in_a_command() -> None:
    state, hostile = new_state(), "x; rm -rf ~\n\x1b[31m" + "y" * 1000
    refuse(state, 10, hostile)
    ((reason, _),) = state.letters.most_frequent
    assert (len(reason), reason.isprintable()) == (40, True)
    (row,) = letters_view(state, Query({}))["rows"]
    assert shlex.split(row["command"])[4] == row["reason"]
    assert row["advice"] is None
    (problem,) = told(state)
    assert problem.sentence.isprintable()


def test_there_is_advice_for_every_reason() -> None:
    assert set(ADVICE) == REASONS
    assert all(advice(reason) and "\n" not in ADVICE[reason] for reason in REASONS)
    assert advice("other") is None


@given(st.permutations(range(5)))
def test_findings_are_open_until_their_end_however_they_are_read(order: list[int]) -> None:
    def alert(kind: str, phase: str, since: int) -> Alert:
        fields = {"series": "s", "kind": kind, "phase": phase, "ts": since, "since": since, "size": 1.0, "text": ""}
        return msgspec.convert(fields, Alert)

    told = [alert("spike", "begin", 1), alert("spike", "end", 1), alert("spike", "begin", 5)]
    told += [alert("drift", "begin", 2), alert("drift", "end", 2)]
    found = OpenAlerts()
    for number in order:
        found.add(told[number])
    assert [(each.kind, each.since) for each in found.newest_first] == [("spike", 5)]


def test_the_worst_is_said_in_every_view(start_page: StartPage, writer: Writer, address: str, tmp_path: Path) -> None:
    now = round(time.time() * 1000) - MINUTE
    writer.send("tides", [(None, b"{}", []) for _ in range(8)], now)
    for _ in range(8):
        writer.dead_letter(b"{}", "schema", now)
    page = start_page("--bootstrap", address)
    page.until_read()
    page.until(lambda page: page.get("overview")["problem"] is not None)
    service = page.get("service")
    assert page.get("overview")["problem"] == {"sentence": service["problems"][0]["sentence"], "view": "service"}
    assert service["stuck"] == service["problems"][0]["sentence"]
    assert "100% of" in service["stuck"]
