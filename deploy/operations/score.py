"""`tidecast score`: how good a service's forecasts have been, by its live scores or recomputed from the topics."""

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.console import out, print_table
from deploy.grading.reader import ScoreReader, Selection
from deploy.grading.table import number, score_table
from deploy.grading.topics import topic_beside
from deploy.grading.totals import Row, Totals
from deploy.operations.tail import INTERVAL_S
from deploy.settings.values import ScoreView
from pipeline.formats.decoding import Refusals
from pipeline.log import EventLog
from tidecast.errors import ConfigError, DataError
from tidecast.times import format_time

logger = logging.getLogger(__name__)
MOST_STEPS = 4
"""Steps in a row that are listed one by one."""
SHOWN = 20
"""Rows of the table, unless it is said how many."""
NULLABLE = ("scaled_mae", "skill", "mse_skill", "coverage", "width", "winkler")
"""Fields that are null where they are not known; others are left out."""
VIEWS: tuple[ScoreView, ...] = ("series", "model", "step")


@dataclass(frozen=True, slots=True)
class Report:
    """Scores as people and programs see them."""

    topic: str
    """Of the forecasts."""
    totals: Totals
    refused: Refusals
    by: ScoreView
    top: int | None
    unknown: str = ""
    """Which of the wanted series are not there."""

    @property
    def notes(self) -> list[str]:
        """What is left out, and why."""
        totals, notes = self.totals, [self.unknown] if self.unknown and self.totals.parts else []
        if count := totals.without_scores:
            notes.append(f"{count:,} series have no scored forecasts yet, and are left out")
        if count := totals.without_scale:
            notes.append(
                f"{count:,} series have no scale (their naive is never wrong), and are left out of all but theirs"
            )
        if len(totals.coverage) > 1:
            shares = ", ".join(f"{each:g}" for each in sorted(totals.coverage))
            notes.append(f"the intervals are of several coverages, {shares}: --from leaves out earlier ones")
        return notes + [f"left out: {line}" for line in self.refused.in_words()]

    def as_data(self) -> dict[str, Any]:
        """All of it, for programs; of the series the `top`, if that is given."""
        views = {name: list(map(_as_data, self.totals.rows(name))) for name in VIEWS}
        overall, shares = self.totals.overall(), sorted(self.totals.coverage)
        return {
            "topic": self.topic,
            "coverage": shares[0] if len(shares) == 1 else None,
            "all": overall and _as_data(overall),
            "series": views["series"][: self.top],
            "models": views["model"],
            "steps": views["step"],
            "left_out": {**self.refused, "series_without_scores": self.totals.without_scores},
            "notes": self.notes,
        }

    def table(self, width: int | None = None) -> tuple[Table, str]:
        """A row for each series, version or step, of at most `width` characters if they suffice; and a legend."""
        rows, top = self.totals.rows(self.by), self.top or SHOWN
        shown = rows[:top] if self.by == "series" else rows
        title = f"{self.topic}, {self._steps()}"
        if self.by != "series":
            return score_table(title, self.by, [self.by], shown, self.totals.overall(), width)
        some = f"{len(shown):,} of {len(rows):,}, " if len(shown) < len(rows) else ""
        names = ["series", "target"] if len(self.totals.targets) > 1 else ["series"]
        return score_table(f"{title}: {some}worst against the naive first", self.by, names, shown, None, width)

    def _steps(self) -> str:
        """Which steps ahead are scored."""
        steps = sorted({step for key in self.totals.parts for step in key.steps})
        if len(steps) <= MOST_STEPS or len(steps) <= steps[-1] - steps[0]:
            return f"step{'s' * (len(steps) > 1)} {', '.join(map(str, steps))} ahead"
        return f"steps {steps[0]} to {steps[-1]} ahead"

    def on_terminal(self, width: int) -> Group:
        """All of it, for a terminal of this width."""
        table, legend = self.table(width)
        return Group(table, Text("\n".join([legend, self.summary(), *self.notes])))

    def summary(self) -> str:
        """All of it as a line."""
        overall, shares = self.totals.overall(), self.totals.coverage
        if overall is None:
            return ""
        series = len(self.totals.seen) - self.totals.without_scores
        inside = f", {overall.coverage:.1%} of values inside their intervals" if overall.coverage is not None else ""
        asked = f" of {min(shares):g}" if len(shares) == 1 else ""
        graded = f"{overall.count:,} forecast values of {series:,} series graded since {format_time(overall.since)}"
        return f"{graded}: skill {number(overall.skill, '.3f')} against the naive{inside}{asked}"


def _as_data(row: Row) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(row).items() if value is not None or name in NULLABLE}


def report_scores(
    log: EventLog, topic: str, selection: Selection, by: ScoreView, top: int | None, *, as_json: bool
) -> dict[str, object]:
    """`tidecast score`: print the scores that a service has written, unless JSON is wanted; the same as data.

    Raises ConfigError, UnknownTopic where there is no topic of them, DataError where these are none.
    """
    reader = ScoreReader(log, scores_topic(log, topic), selection)
    reader.read()
    if reader.total and reader.refused.total() == reader.total:
        raise DataError(_why_none(reader, topic))
    report = Report(topic, reader.totals, reader.refused, by, top, reader.extent.unknown)
    why = _why_none(reader, topic)
    if not as_json:
        print_report(report, why)
    return report.as_data() | ({"why": why} if why else {})


def print_report(report: Report, why: str) -> None:
    """Print a table, or `why` there is none; and what is left out."""
    if why:
        out.print(why, soft_wrap=True)
    else:
        table, legend = report.table(out.width if out.is_terminal else None)
        print_table(table)
        out.print(legend, soft_wrap=True)
        out.print(report.summary(), soft_wrap=True)
    for note in report.notes:
        logger.info(note)


def follow_scores(
    log: EventLog, topic: str, selection: Selection, by: ScoreView, top: int | None, *, as_json: bool
) -> None:
    """`tidecast score --follow`: a table that is kept up to date, or a line of JSON for each update; until interrupted.

    Raises ConfigError if there is no terminal for a table.
    """
    if not as_json and not out.is_terminal:
        raise ConfigError("follow: there is no terminal to keep a table on; --json prints a line for each update")
    reader = ScoreReader(log, scores_topic(log, topic), selection)
    with suppress(KeyboardInterrupt), _display(as_json) as show:
        for number in itertools.count():
            if reader.read() or not number:
                report = Report(topic, reader.totals, reader.refused, by, top, reader.extent.unknown)
                show(report, _why_none(reader, topic))
            time.sleep(INTERVAL_S)


@contextmanager
def _display(as_json: bool) -> Iterator[Callable[[Report, str], None]]:
    if as_json:
        yield lambda report, why: typer.echo(json.dumps(report.as_data() | ({"why": why} if why else {})))
        return
    with Live(console=out, auto_refresh=False) as live:
        yield lambda report, why: live.update(
            Text(why) if why else report.on_terminal(out.width),
            refresh=True,
        )


def scores_topic(log: EventLog, topic: str) -> str:
    """The topic of the scores of these forecasts. Raises UnknownTopic, or ConfigError, saying which one is meant."""
    if scores := topic_beside(log, topic, "scores"):
        return scores
    none = f"there is no topic {topic}-scores; a service writes it unless --score-every is off"
    raise ConfigError(f"{topic} has no scores: {none}, and --recompute needs none")


def _why_none(reader: ScoreReader, topic: str) -> str:
    """Why there are no scores; empty if there are some."""
    if reader.totals.parts:
        return ""
    if reader.total and not reader.records:
        if reader.refused.total() == reader.total:
            return f"{reader.topic}: these are no scores of Tidecast: {reader.refused.in_words()[0]}"
        return f"{reader.topic}: {reader.extent.why_none}"
    if not any(end > start for start, end in reader.log.bounds(topic).values()):
        return f"{topic}: no forecasts yet, and so no scores"
    return (
        f"{reader.topic}: no scores yet; a series' first ones come with its first value after a whole bucket of event "
        "time (serve --score-every: an hour, or ten steps) in which forecasts could be compared with values"
    )
