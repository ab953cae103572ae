"""`tidecast score`: the table of a service's live scores."""

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len

from deploy.console import TextConsole
from deploy.grading.totals import Totals
from deploy.operations.score import Report
from deploy.settings.values import ScoreView
from pipeline.formats.decoding import Refusals
from pipeline.formats.scores import ModelScores, SeriesScores, encode_scores
from pipeline.log import EventLog
from pipeline.log.connect import connect

Tidecast = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
HOUR, START = 3_600_000, 1_700_002_800_000
"""2023-11-14 23:00."""


def bucket(
    series: str, number: int, error: float, naive: float, model: str = "tides/1", count: int = 2
) -> SeriesScores:
    """A bucket of two steps, so many points each, whose errors are all the same."""
    scores = ModelScores(
        model=model,
        target="value",
        count=[count, count],
        squared_error=[count * error**2] * 2,
        absolute_error=[count * error] * 2,
        naive_squared_error=[count * naive**2] * 2,
        naive_absolute_error=[count * naive] * 2,
        intervals=[count, count],
        inside=[count, 0],
        width=[count * 2 * error] * 2,
        winkler=[count * 3 * error] * 2,
    )
    return SeriesScores(
        series=series,
        start=START + number * HOUR,
        until=START + (number + 1) * HOUR - 60_000,
        steps=[1, 2],
        naive=1,
        coverage=0.9,
        scale={"value": naive},
        unscored={"value": [0, 1]},
        scores=[scores] if count else [],
    )


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'log.db'}"


@pytest.fixture
def log(address: str) -> Iterator[EventLog]:
    with closing(connect(address)) as log:
        for topic in ("tides", "tides-forecasts", "tides-forecasts-scores"):
            log.create_topic(topic, 2)
        yield log


def write(log: EventLog, *records: SeriesScores | bytes, topic: str = "tides-forecasts-scores") -> None:
    with closing(log.producer()) as producer:
        for record in records:
            value = record if isinstance(record, bytes) else encode_scores(record)
            partition = 0 if isinstance(record, bytes) else ord(record.series[0]) % 2
            producer.send(topic, partition, None, value)
        producer.flush()


Score = Callable[..., dict[str, Any]]


@pytest.fixture
def score(tidecast: Tidecast, address: str, log: EventLog) -> Score:
    def run(*options: object) -> dict[str, Any]:
        ended = tidecast("score", "tides-forecasts", "--bootstrap", address, "--json", *options)
        assert ended.returncode == 0, ended.stderr
        found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return found

    return run


def names(rows: Sequence[dict[str, Any]], field: str = "series") -> list[Any]:
    return [row[field] for row in rows]


def test_worst_against_the_naive_first_and_all_of_it_as_data(log: EventLog, score: Score) -> None:
    write(log, bucket("good", 0, 1.0, 2.0), bucket("bad", 0, 30.0, 10.0), bucket("fair", 0, 1.0, 1.0))
    write(log, bucket("good", 1, 3.0, 2.0, "tides/2"), bucket("none", 0, 0, 0, count=0))
    found = score()
    assert names(found["series"]) == ["bad", "fair", "good"], "of equal ones in the order of their names"
    good = found["series"][2]
    assert (good["count"], good["mae"], good["mse"], good["naive_mae"], good["unscored"]) == (8, 2.0, 5.0, 2.0, 2)
    assert (good["skill"], good["mse_skill"], good["scaled_mae"]) == (0.0, -0.25, 1.0)
    assert (good["coverage"], good["width"], good["winkler"]) == (0.5, 4.0, 6.0)
    assert (good["since"], good["until"]) == (START, START + 2 * HOUR - 60_000)
    assert {row["model"]: (row["count"], row["mae"]) for row in found["models"]} == {
        "tides/1": (12, pytest.approx((0.5 + 3 + 1) / 3)),
        "tides/2": (4, 1.5),
    }
    assert [(row["step"], row["count"], row["coverage"]) for row in found["steps"]] == [(1, 8, 1.0), (2, 8, 0.0)]
    assert (found["all"]["count"], found["all"]["skill"], found["all"]["unscored"]) == (16, -0.5, 5)
    assert found["left_out"] == {"series_without_scores": 1}


def test_what_is_selected(log: EventLog, score: Score) -> None:
    write(log, *(bucket(series, number, number + 1.0, 1.0) for number in range(4) for series in "ab"))
    since, until = ("2023-11-15T00:00", "2023-11-15T02:00")
    (row,) = score("--series", "b", "--from", since, "--to", until)["series"]
    assert (row["series"], row["count"], row["mae"], row["since"]) == ("b", 8, 2.5, START + HOUR)
    assert names(score("--top", 1)["series"]) == ["a"]
    assert score("--series", "c")["why"] == "tides-forecasts-scores: no series c; there are: a, b"
    assert score("--series", "c", "--series", "a")["notes"] == ["no series c; there are: a, b"]
    there = "the first are of 2023-11-14 23:00, the last of 2023-11-15 02:00"
    assert score("--from", "2024-01-01")["why"].endswith(f"-scores: no scores from 2024-01-01 00:00 on: {there}")
    assert score("--from", "2020-01-01", "--to", "2020-01-02")["why"].endswith(f" and before 2020-01-02 00:00: {there}")


def test_a_period_that_ends_before_it_begins(log: EventLog, tidecast: Tidecast) -> None:
    ended = tidecast("score", "tides-forecasts", "--from", "2016-11-01", "--to", "2016-10-01")
    assert (ended.returncode, ended.stderr.count("\n")) == (78, 1)
    assert "from: --from 2016-11-01 is not before --to 2016-10-01" in ended.stderr


def test_a_topic_of_others_has_no_scores(log: EventLog, tidecast: Tidecast, address: str) -> None:
    write(log, b'{"id":1}', b'{"id":2}')
    ended = tidecast("score", "tides-forecasts", "--bootstrap", address)
    assert (ended.returncode, ended.stdout) == (65, "")
    assert "tides-forecasts-scores: these are no scores of Tidecast: 2 schema, such as: Object missing" in ended.stderr


def test_a_bucket_that_is_written_twice_counts_once_and_the_last_one(log: EventLog, score: Score) -> None:
    write(log, bucket("a", 0, 1.0, 1.0), bucket("a", 1, 1.0, 1.0), bucket("a", 0, 1.0, 1.0), bucket("a", 1, 5.0, 1.0))
    (row,) = score()["series"]
    assert (row["count"], row["mae"]) == (8, 3.0)


def test_what_can_not_be_read_is_counted_by_its_reason(log: EventLog, score: Score) -> None:
    short = msgspec.structs.replace(bucket("a", 1, 1.0, 1.0), steps=[1])
    write(log, bucket("a", 0, 1.0, 1.0), short, b"{", b'{"series":"a"}')
    found = score()
    assert (found["all"]["count"], found["left_out"]) == (
        4,
        {"malformed_json": 1, "schema": 2, "series_without_scores": 0},
    )
    assert found["notes"][0].startswith("left out: 2 schema, such as: ")


@pytest.mark.parametrize(
    "option", [("--lateness", "5m"), ("--idle", "7d"), ("--series-limit", 9), ("--model", "tides.onnx")]
)
def test_what_only_a_recomputation_takes_is_refused_without_it(tidecast: Tidecast, option: tuple[object, ...]) -> None:
    ended = tidecast("score", "tides-forecasts", *option)
    name = str(option[0])[2:]
    assert (ended.returncode, ended.stderr) == (78, f"tidecast: {name}: --{name} is for --recompute only\n")


@pytest.mark.parametrize(
    ("topic", "code", "line"),
    [
        ("tides", 78, "tides is a topic of events: give that of the forecasts, tides-forecasts"),
        ("tides-forecasts-scores", 78, "give that of the forecasts, tides-forecasts"),
        ("tides-forecasts-alerts", 78, "is the topic of the alerts: give that of the forecasts, tides-forecasts"),
        ("waves", 78, "there is no topic waves: `tidecast serve` writes it"),
        ("unscored", 78, "there is no topic unscored-scores; a service writes it unless --score-every is off"),
        ("tides-forecasts", 0, "tides-forecasts: no forecasts yet, and so no scores"),
    ],
)
def test_one_line_says_why_there_are_no_scores(
    log: EventLog, tidecast: Tidecast, address: str, topic: str, code: int, line: str
) -> None:
    log.create_topic("unscored", 1)
    log.create_topic("tides-forecasts-alerts", 1)
    ended = tidecast("score", topic, "--bootstrap", address)
    assert (ended.returncode, (ended.stdout + ended.stderr).count("\n")) == (code, 1)
    assert line in ended.stdout + ended.stderr


def test_no_bucket_closed_yet(log: EventLog, score: Score) -> None:
    write(log, b"{}", topic="tides-forecasts")
    assert "no scores yet; a series' first ones come with its first value after a whole bucket" in score()["why"]


def test_the_table_follows_what_is_written(
    log: EventLog, address: str, start_tidecast: Start, tidecast: Tidecast
) -> None:
    write(log, bucket("a", 0, 1.0, 2.0))
    following = start_tidecast("score", "tides-forecasts", "--bootstrap", address, "--follow", "--json")
    assert following.stdout
    assert json.loads(following.stdout.readline())["all"]["count"] == 4
    write(log, bucket("a", 1, 3.0, 2.0))
    assert json.loads(following.stdout.readline())["all"]["mae"] == 1.0
    following.terminate()
    refused = tidecast("score", "tides-forecasts", "--bootstrap", address, "--follow")
    assert (refused.returncode, "there is no terminal" in refused.stderr) == (78, True)


def test_the_table(log: EventLog, tidecast: Tidecast, address: str) -> None:
    write(log, bucket("a", 0, 1.0, 2.0), bucket("b", 0, 4.0, 2.0))
    lines = tidecast("score", "tides-forecasts", "--bootstrap", address, "--top", 1).stdout.splitlines()
    assert lines[0] == "tides-forecasts, steps 1, 2 ahead: 1 of 2, worst against the naive first"
    assert " ".join(lines[1].split()) == "series MAE naive MAE MASE skill coverage width Winkler n unscored since"
    assert lines[2].split() == ["b", "4", "2", "2", "-1.000", "50.0%", "8", "12", "4", "1", "2023-11-14", "23:00"]
    assert lines[3].startswith("MAE: in the series' unit; naive MAE: the seasonal naive's; MASE: MAE")
    assert lines[4] == (
        "8 forecast values of 2 series graded since 2023-11-14 23:00: skill -0.250 against the naive, "
        "50.0% of values inside their intervals of 0.9"
    )
    by_step = tidecast("score", "tides-forecasts", "--bootstrap", address, "--by", "step").stdout.splitlines()
    assert " ".join(by_step[1].split()) == "step MASE naive MASE skill coverage width Winkler n unscored since"
    assert by_step[5].startswith("MASE: MAE / the naive's MAE one step ahead, as width and Winkler; naive MASE: ")


@pytest.mark.parametrize("by", ["model", "step"])
def test_series_that_their_naive_always_hits_have_no_scale(
    log: EventLog, tidecast: Tidecast, address: str, by: ScoreView
) -> None:
    write(log, bucket("flat", 0, 0.0, 0.0))
    ended = tidecast("score", "tides-forecasts", "--bootstrap", address, "--by", by)
    assert ended.returncode == 0, ended.stderr
    assert "1 series have no scale (their naive is never wrong), and are left out of all but theirs" in ended.stderr


@pytest.mark.parametrize("by", ["series", "model", "step"])
@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_numbers_are_whole_however_narrow_the_terminal(width: int, by: ScoreView) -> None:
    totals = Totals()
    for name in ("Birrarung Marr, the bridge at Batman Avenue", "b", "\u6f6e" * 30):
        totals.add(bucket(name, 0, 11_083.4, 2_000.1, model="pedestrians-in-melbourne/12", count=1_234_567))
    console = TextConsole(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(Report("walks-forecasts", totals, Refusals(), by, None).on_terminal(width))
    text = captured.get()
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= width
    left_out = set(" ".join(text.split()).partition("too narrow for ")[2].partition(":")[0].split(", "))
    numbers = {
        "series": {"MAE": "11,083", "naive MAE": "2,000", "width": "22,167", "Winkler": "33,250", "n": "2,469,134"},
        "model": {"naive MASE": " 1 ", "width": "11.08", "Winkler": "16.62", "n": "7,407,402"},
        "step": {"naive MASE": " 1 ", "width": "11.08", "Winkler": "16.62", "n": "3,703,701"},
    }[by] | {"MASE": "5.541", "skill": "-4.541", "coverage": "50.0%", "since": "2023-11-14 23:00"}
    table = "\n".join(line for line in lines if line.startswith(("Birr", "pedes", "1 ", "all")))
    for heading, shown in numbers.items():
        assert (shown in table) != (heading in left_out), f"{heading} is whole, or said to be left out"
    assert not left_out & {"MAE", "MASE", "skill", "coverage", "n"}
    assert width < 120 or left_out == {""}


def test_a_terminal_of_80_columns(log: EventLog, address: str) -> None:
    write(log, bucket("Birrarung Marr, the bridge", 0, 11_083.4, 2_000.1))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "tidecast", "score", "tides-forecasts", "--bootstrap", address]
    with closing(os.fdopen(master, "rb", buffering=0)) as terminal:
        subprocess.run(command, stdout=slave, check=True, timeout=60)
        os.close(slave)
        shown = terminal.read(65_536).decode()
    assert "11,083" in shown
    assert "2,000" in shown
    assert "too narrow for Winkler" in " ".join(shown.split())
