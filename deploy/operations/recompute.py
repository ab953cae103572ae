"""`tidecast score --recompute`: all forecasts graded again from the topics, and compared with the live scores."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, NamedTuple

from deploy.console import out, progress
from deploy.grading.compared import Comparison, Recomputed
from deploy.grading.reader import Extent, Identity, ScoreReader, Selection
from deploy.grading.rebuilt import Identity as WindowIdentity
from deploy.grading.rebuilt import Made, Source, read_forecasts, rebuild
from deploy.grading.recompute import Regraded, add_totals
from deploy.grading.topics import topic_beside
from deploy.grading.totals import Totals
from deploy.models.loading import load_model
from deploy.operations.score import Report, print_report
from deploy.settings.serve import window_config
from deploy.settings.values import ScoreView
from model.card import Card
from pipeline.formats.decoding import Refusals
from pipeline.formats.paths import Paths
from pipeline.formats.scores import SeriesScores, decode_scores
from pipeline.log import EventLog
from pipeline.windows.choices import SERIES_LIMIT
from tidecast.errors import ConfigError

NONE_GRADED = "nothing to grade: no forecast's actual value is there yet, or their windows can't be rebuilt"


class Served(NamedTuple):
    """How the service was set."""

    model: str | None
    """The ONNX file, if its model was not a registered one."""
    tracking_uri: str
    lateness: int | None
    """Milliseconds."""
    idle: int | None
    """Milliseconds."""
    paths: Paths
    series_limit: int = SERIES_LIMIT


@dataclass(slots=True)
class Outcome:
    """What recomputing came to."""

    totals: Totals = field(default_factory=Totals)
    refused: Refusals = field(default_factory=Refusals)
    comparison: Comparison = field(default_factory=Comparison)
    extent: Extent = field(default_factory=lambda: Extent(Selection()))
    unread: Refusals = field(default_factory=Refusals)
    """Records on the topic of live scores that are none."""
    lost: int = 0
    """Forecasts whose windows can't be rebuilt."""


def recompute(
    log: EventLog, topic: str, selection: Selection, card_of: Callable[[str], Card], served: Served
) -> Outcome:
    """Grade all forecasts of a topic, and compare with the live scores, if there are any.

    It takes the memory of one partition's forecasts, as numbers, some eight times.
    """
    outcome, bounds = Outcome(extent=Extent(selection)), log.bounds(topic)
    written = _written(log, topic, outcome.unread)
    with progress("recompute", len(bounds), "partitions") as report:
        for done, partition in enumerate(bounds, 1):
            sources = read_forecasts(log, topic, partition, outcome.refused)
            records = [scores for place, scores in written.items() if place[0] == partition]
            for source, made in sources.items():
                graded = _graded(log, source, made, card_of, served)
                add_totals(graded, outcome.totals, selection.chosen, selection.since, selection.until)
                for name, first, last in graded.extents():
                    outcome.extent.add(name, first, last)
                outcome.lost += graded.lost
                if len(sources) == 1:
                    Recomputed(graded, records).compare(outcome.comparison, selection.takes)
            if len(sources) != 1:  # they do not say which input they are of
                outcome.comparison.unknown += sum(map(selection.takes, records))
            report(done)
    return outcome


def report_recomputed(
    log: EventLog, topic: str, selection: Selection, by: ScoreView, top: int | None, served: Served, *, as_json: bool
) -> dict[str, Any]:
    """Print the scores of all steps of the horizon, unless JSON is wanted, and what of OUTPUT-scores differs.

    Raises ConfigError if there are no forecasts, or for their models.
    """
    scores = topic_beside(log, topic, "scores")
    outcome = recompute(log, topic, selection, _cards(served), served)
    totals, refused, comparison = outcome.totals, outcome.refused, outcome.comparison
    if not outcome.lost and not outcome.extent.series:
        reason = f": {refused.in_words()[0]}" if refused else ""
        raise ConfigError(f"{topic} has no forecasts of a service{reason}")
    report = Report(topic, totals, refused, by, top, outcome.extent.unknown)
    why = "" if totals.parts else f"{topic}: {outcome.extent.why_none or NONE_GRADED}"
    if not as_json:
        print_report(report, why)
        for line in _lines(topic, scores, outcome):
            out.print(line, soft_wrap=True)
    compared = {**asdict(comparison), "forecasts_lost": outcome.lost, "same": comparison.same}
    compared |= {"scores": scores, "scores_left_out": dict(outcome.unread)}
    return report.as_data() | {"recomputed": compared} | ({"why": why} if why else {})


def _written(log: EventLog, topic: str, unread: Refusals) -> dict[Identity, SeriesScores]:
    """The live scores; none where there is no topic of them."""
    name = f"{topic}-scores"
    if name not in log.identities([name]):
        return {}
    reader = ScoreReader(log, name, Selection(), refused=unread)
    reader.read()
    return {place: decode_scores(value) for place, value in reader.records.items()}


def _graded(
    log: EventLog, source: Source, made: Mapping[WindowIdentity, Made], card_of: Callable[[str], Card], served: Served
) -> Regraded:
    targets = card_of(next(iter(made.values())).version).output.targets
    rebuilt = rebuild(
        log,
        source,
        made,
        card_of,
        lateness=served.lateness,
        idle=served.idle,
        paths=served.paths,
        limit=served.series_limit,
    )
    return Regraded(rebuilt, targets)


def _cards(served: Served) -> Callable[[str], Card]:
    """Each version's card. Raises ConfigError if it has none, or takes other windows than the first."""
    first: list[Card] = []

    @cache
    def card_of(version: str) -> Card:
        if served.model is None and "/" not in version:
            raise ConfigError(f"model: {version} is not a registered model: --model FILE.onnx says which file it is")
        card = load_model(served.model or version, served.tracking_uri, "cpu").card
        if not isinstance(card, Card):
            raise ConfigError(f"{version} is not a forecasting model")
        first.append(card)
        if window_config(card.input) != window_config(first[0].input) or card.output.targets != first[0].output.targets:
            raise ConfigError(f"{version} takes other windows than the versions before: give a topic of its own")
        return card

    return card_of


def _lines(topic: str, scores: str | None, outcome: Outcome) -> list[str]:
    """What the comparison came to."""
    comparison = outcome.comparison
    if scores is None:
        lines = [f"there is no {topic}-scores to compare with"]
    else:
        lines = [f"{scores}: {comparison.equal:,} records equal to the bit, {comparison.differ:,} differ"]
        lines += [f"{scores}: left out: {line}" for line in outcome.unread.in_words()]
    if not comparison.same:
        lines.append(f"first difference: {comparison.first}")
    if comparison.missing:
        lines.append(f"{comparison.missing:,} series have graded forecasts that are in no record")
    if comparison.unknown:
        lines.append(f"{comparison.unknown:,} records not compared: of windows that can't be rebuilt")
    if outcome.lost:
        why = "their input is gone, or the service had another --lateness, --idle or --series-limit"
        lines.append(f"{outcome.lost:,} forecasts left out, as their windows can't be rebuilt: {why}")
    return lines
