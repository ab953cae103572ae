"""`tidecast score --recompute`: all forecasts graded again from the topics, and compared with the live scores."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any, NamedTuple

from deploy.console import out, progress
from deploy.grading.compared import Comparison, Recomputed
from deploy.grading.rebuilt import Identity as WindowIdentity
from deploy.grading.rebuilt import Made, Source, read_forecasts, rebuild
from deploy.grading.recompute import Regraded, add_totals
from deploy.grading.totals import Totals
from deploy.models.loading import load_model
from deploy.operations.score import Identity, Report, ScoreReader, Selection, print_report
from deploy.settings.serve import window_config
from deploy.settings.values import ScoreView
from model.card import Card
from pipeline.formats.decoding import Refusals
from pipeline.formats.paths import Paths
from pipeline.formats.scores import SeriesScores, decode_scores
from pipeline.log import EventLog
from tidecast.errors import ConfigError


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


def report_recomputed(
    log: EventLog, topic: str, selection: Selection, by: ScoreView, top: int | None, served: Served, *, as_json: bool
) -> dict[str, Any]:
    """Print the scores of all steps of the horizon, unless JSON is wanted, and what of OUTPUT-scores differs.

    It takes the memory of one partition's forecasts, as numbers, some eight times. Raises ConfigError if there are no
    forecasts, or for their models.
    """
    totals, refused, comparison, lost = Totals(), Refusals(), Comparison(), 0
    written, card_of = _written(log, topic), _cards(served)
    bounds = log.bounds(topic)
    with progress("recompute", len(bounds), "partitions") as report:
        for done, partition in enumerate(bounds, 1):
            sources = read_forecasts(log, topic, partition, refused)
            records = [scores for place, scores in written.items() if place[0] == partition]
            for source, made in sources.items():
                graded = _graded(log, source, made, card_of, served)
                add_totals(graded, totals, selection.chosen, selection.since, selection.until)
                lost += graded.lost
                if len(sources) == 1:
                    Recomputed(graded, records).compare(comparison, selection.takes)
            if len(sources) > 1:
                comparison.unknown += sum(map(selection.takes, records))
            report(done)
    if not totals.seen:
        raise ConfigError(f"{topic} has no forecasts of a service{f': {refused.in_words()[0]}' if refused else ''}")
    outcome = Report(topic, totals, refused, by, top)
    lines = _lines(topic, comparison, lost, compared=bool(written))
    if not as_json:
        print_report(outcome, "" if totals.parts else f"{topic}: no forecast's actual value is there yet")
        for line in lines:
            out.print(line, soft_wrap=True)
    return outcome.as_data() | {"recomputed": {**asdict(comparison), "forecasts_lost": lost, "same": comparison.same}}


def _written(log: EventLog, topic: str) -> dict[Identity, SeriesScores]:
    """The live scores; none where there is no topic of them."""
    name = f"{topic}-scores"
    if name not in log.identities([name]):
        return {}
    reader = ScoreReader(log, name, Selection())
    reader.read()
    return {place: decode_scores(value) for place, value in reader.records.items()}


def _graded(
    log: EventLog, source: Source, made: Mapping[WindowIdentity, Made], card_of: Callable[[str], Card], served: Served
) -> Regraded:
    targets = card_of(next(iter(made.values())).version).output.targets
    rebuilt = rebuild(
        log, source, made, card_of, lateness=served.lateness, idle=served.idle, paths=served.paths
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


def _lines(topic: str, comparison: Comparison, lost: int, *, compared: bool) -> list[str]:
    """What the comparison came to."""
    lines = [f"there is no topic {topic}-scores with records: nothing to compare with"]
    if compared:
        same = comparison.same
        lines = [f"{topic}-scores: {comparison.equal:,} records equal to the bit, {comparison.differ:,} differ"]
        lines += [] if same else [f"first difference: {comparison.first}"]
    if comparison.missing:
        lines.append(f"{comparison.missing:,} series have graded forecasts that are in no record")
    if comparison.unknown:
        lines.append(f"{comparison.unknown:,} records not compared")
    if lost:
        lines.append(
            f"{lost:,} forecasts left out, as their windows can't be rebuilt: their input is gone, or the service had "
            "another --lateness or --idle"
        )
    return lines
