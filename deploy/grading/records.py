"""What grading writes besides forecasts: closed buckets of scores, and alerts."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from model.card import Card
from model.online.anomalies.findings import Finding, sentence
from model.online.scores import SUMS, Bucket
from pipeline.formats.alerts import Alert, encode_alert
from pipeline.formats.scores import ModelScores, SeriesScores, encode_scores
from pipeline.windows.batch import Silence
from tidecast.freq import format_duration
from tidecast.times import format_time


class Message(NamedTuple):
    """A record about a series, caused by the input record at `offset`."""

    kind: Literal["scores", "alerts"]
    offset: int
    key: bytes
    value: bytes


def scores_message(
    series: str,
    bucket: Bucket,
    card: Card,
    steps: tuple[int, ...],
    coverage: float | None,
    models: Mapping[int, str],
    offset: int,
) -> Message:
    """A closed bucket of a series; `models` are the versions' names by their numbers."""
    names, scores = card.output.targets, []
    for part in bucket.parts:
        sums = dict(zip(SUMS, part.sums.T.tolist(), strict=True))
        counts = {name: [int(value) for value in sums[name]] for name in ("count", "intervals", "inside")}
        scores.append(ModelScores(model=models[part.by], target=names[part.target], **{**sums, **counts}))
    value = encode_scores(
        SeriesScores(
            series=series,
            start=bucket.start,
            until=bucket.until,
            steps=list(steps),
            naive=card.input.scoring_lag,
            coverage=coverage,
            scale=dict(zip(names, bucket.scale, strict=True)),
            unscored=dict(zip(names, bucket.unscored, strict=True)),
            scores=scores,
        )
    )
    return Message("scores", offset, series.encode(), value)


def finding_message(series: str, target: str | None, finding: Finding, offset: int) -> Message:
    """A finding in a series; `target` where it has several."""
    alert = Alert(
        series=series,
        kind=finding.kind,
        phase=finding.phase,
        ts=finding.ts,
        since=finding.since,
        size=finding.size,
        value=finding.value,
        usual=finding.usual,
        outcome=finding.outcome,
        text=sentence(finding, series, format_time),
        target=target,
    )
    return Message("alerts", offset, series.encode(), encode_alert(alert))


def silence_message(silence: Silence) -> Message:
    """A silence, or its end, as an alert."""
    lasted, usual = (format_duration(each) for each in (silence.ts - silence.since, silence.usual))
    text = f"values again after {lasted} without any" if silence.ended else f"no value for {lasted}"
    since = format_time(silence.since)
    alert = Alert(
        series=silence.series,
        kind="gap",
        phase="end" if silence.ended else "begin",
        ts=silence.ts,
        since=silence.since,
        size=(silence.ts - silence.since) / max(1, silence.usual),
        usual=silence.usual,
        outcome="back" if silence.ended else None,
        text=f"{silence.series}: {text} (since {since}); up to {usual} is usual",
    )
    return Message("alerts", silence.offset, silence.series.encode(), encode_alert(alert))
