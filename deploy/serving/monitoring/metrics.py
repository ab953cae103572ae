"""The one list of a service's metrics. ServiceStats has the values, and exposition.py makes text of them.

Names have base units, and no label has the name of a series: there may be hundreds of thousands. What a counter's label
may be is there from the start, as 0: of one that appears as 1, Prometheus would see no increase.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from itertools import product
from typing import Any, Literal, NamedTuple, get_args

from deploy.serving.monitoring.stats import ServiceStats
from pipeline.formats.alerts import AlertKind, Phase
from pipeline.formats.dead_letters import REASONS

VERSION = version("tidecast")
MS = 0.001
Labels = tuple[str, ...]
Value = int | float | None | Mapping[Any, Any]
"""A number; numbers or histograms by their labels' values; None of what is not known."""


class Definition(NamedTuple):
    """A metric as it is documented."""

    name: str
    """As in Prometheus; of a histogram without _bucket, _sum and _count."""
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    read: Callable[[ServiceStats], Value]
    labels: Labels = ()
    unit: float = 1.0
    """What a histogram's values are multiplied by."""


def _counter(name: str, text: str, read: Callable[[ServiceStats], Value], *labels: str) -> Definition:
    return Definition(name, "counter", text, read, labels)


def _gauge(name: str, text: str, read: Callable[[ServiceStats], Value], *labels: str) -> Definition:
    return Definition(name, "gauge", text, read, labels)


def _by_word(counts: Mapping[str, int] | None) -> dict[Labels, int] | None:
    return None if counts is None else {(word,): count for word, count in dict(counts).items()}


def _by_partition(stats: ServiceStats, offsets: Mapping[int, int]) -> dict[Labels, int] | None:
    """Only what is the present state: an old answer would look like a group that stands still."""
    return {(str(number),): at for number, at in offsets.items()} if stats.offsets.known else None


def _about(stats: ServiceStats) -> dict[Labels, int]:
    return {(VERSION, *(stats.about.get(name, "") for name in ABOUT)): 1}


def _model(stats: ServiceStats) -> dict[Labels, int] | None:
    name, _, number = stats.model.rpartition("/")
    return {(name or number, number if name else "", stats.model_sha256, stats.device): 1} if stats.model else None


def _known(value: float) -> float | None:
    return value or None


ABOUT = ("topic", "output", "group", "instance")
METRICS: tuple[Definition, ...] = (
    _gauge("tidecast_service_info", "1; what this service is.", _about, "version", *ABOUT),
    _gauge("tidecast_ready", "1 if the service serves: /ready says what it lacks.", lambda s: int(not s.missing)),
    _gauge(
        "tidecast_lag_records",
        "Offsets of the input that the group has not done, as the broker has them; of all partitions, so by every "
        "instance the same. Absent while the broker does not answer.",
        lambda s: _by_partition(s, s.offsets.lag),
        "partition",
    ),
    _gauge(
        "tidecast_end_offset",
        "The offset that the next record of the input will have.",
        lambda s: _by_partition(s, s.offsets.ends),
        "partition",
    ),
    _gauge(
        "tidecast_committed_offset",
        "The offset of the next record that the group has not done.",
        lambda s: _by_partition(s, s.offsets.committed),
        "partition",
    ),
    _gauge(
        "tidecast_broker_up",
        "1 if the broker says where the group stands, 0 if it did not within 15 s.",
        lambda s: int(s.offsets.known) if s.offsets.asked else None,
    ),
    _counter("tidecast_broker_errors_total", "Times that it did not answer.", lambda s: s.offsets.errors),
    _gauge(
        "tidecast_worker_up",
        "1 if the worker answers. Absent without --workers; with it all but the group's have a label `worker`.",
        lambda s: s.workers and {(number,): int(up) for number, (up, _) in s.workers.items()},
        "worker",
    ),
    _counter(
        "tidecast_worker_restarts_total",
        "Times that it was started again. Absent without --workers.",
        lambda s: s.workers and {(number,): restarts for number, (_, restarts) in s.workers.items()},
        "worker",
    ),
    _counter(
        "tidecast_records_total", "Committed input records, tombstones and invalid ones included.", lambda s: s.records
    ),
    _counter("tidecast_forecasts_total", "Forecasts committed; labels, of texts.", lambda s: s.predictions),
    _counter(
        "tidecast_naive_forecasts_total",
        "Of these the naive ones, in place of a model's that were not finite.",
        lambda s: s.not_finite,
    ),
    _counter(
        "tidecast_dead_letters_total",
        "Invalid records, by reason.",
        lambda s: _by_word(dict.fromkeys(sorted(REASONS - {"late"}), 0) | s.dead_letters),
        "reason",
    ),
    _counter("tidecast_tombstones_total", "Input records without a value.", lambda s: s.tombstones),
    _counter("tidecast_late_events_total", "Events after their step was taken.", lambda s: s.late_events),
    _counter("tidecast_duplicate_events_total", "Events of a step that was there.", lambda s: s.duplicate_events),
    _counter(
        "tidecast_early_steps_total",
        "Steps taken before their lateness had passed, as too many waited.",
        lambda s: s.early_steps,
    ),
    Definition(
        "tidecast_latency_seconds",
        "histogram",
        "From a record's time until it and its forecast are committed.",
        lambda s: {(): s.latency_ms},
        unit=MS,
    ),
    Definition(
        "tidecast_stage_seconds",
        "histogram",
        "How long each stage of the loop takes: poll (with its wait for records), decode and predict (of a "
        "micro-batch; decode with its windows, predict with producing), commit, checkpoint.",
        lambda s: {(stage,): histogram for stage, histogram in s.stages.items()},
        ("stage",),
    ),
    Definition(
        "tidecast_batch_size",
        "histogram",
        "Forecasts in a micro-batch.",
        lambda s: {(): s.batch_sizes},
    ),
    _gauge("tidecast_partitions", "Partitions that this instance has, restored.", lambda s: s.partitions),
    _counter("tidecast_rebalances_total", "Times that partitions came or went.", lambda s: s.rebalances),
    _gauge("tidecast_series", "Series whose windows this instance holds.", lambda s: s.series),
    _gauge(
        "tidecast_checkpoint_timestamp_seconds",
        "When all that had changed was last written; before the first time, when the service began.",
        lambda s: s.checkpoint_at,
    ),
    _gauge("tidecast_checkpoint_duration_seconds", "How long that took.", lambda s: s.checkpoint_s),
    _gauge(
        "tidecast_checkpoint_pending_records",
        "Records committed since, which a restart would read again.",
        lambda s: s.since_checkpoint,
    ),
    _gauge("tidecast_model_info", "1; the model that serves.", _model, "model", "version", "sha256", "device"),
    _gauge("tidecast_model_since_timestamp_seconds", "When it began to serve.", lambda s: _known(s.model_since)),
    _gauge(
        "tidecast_model_trained_until_timestamp_seconds",
        "The time of the last value that it was trained on.",
        lambda s: _known(s.trained_until * MS),
    ),
    _counter("tidecast_model_swaps_total", "Switches to another version.", lambda s: s.model_swaps),
    _counter(
        "tidecast_model_refusals_total",
        "Versions that were refused. Absent where the model is pinned.",
        lambda s: s.following.refused if s.following else None,
    ),
    _gauge(
        "tidecast_model_up_to_date",
        "1 if what the alias resolved to is served, 0 if it was refused or can't be had.",
        lambda s: int(s.following.up_to_date) if s.following else None,
    ),
    _gauge(
        "tidecast_registry_up",
        "1 if the registry answered when it was last asked.",
        lambda s: int(s.following.reachable) if s.following else None,
    ),
    _gauge(
        "tidecast_registry_timestamp_seconds",
        "When it last answered.",
        lambda s: _known(s.following.checked) if s.following else None,
    ),
    _counter(
        "tidecast_shadow_failures_total",
        "Shadow models that failed and were dropped. Absent without a shadow.",
        lambda s: s.shadow["failed"] if s.shadow else None,
    ),
    _counter(
        "tidecast_graded_values_total",
        "Forecast values that were graded, as the actual ones were observed.",
        lambda s: s.tally.graded,
    ),
    _counter("tidecast_intervals_total", "Of these, those with an interval.", lambda s: s.tally.intervals),
    _counter("tidecast_intervals_hit_total", "Of these, those with the actual value inside.", lambda s: s.tally.inside),
    _gauge("tidecast_coverage_target_ratio", "The share that is to be.", lambda s: s.coverage),
    _counter(
        "tidecast_scaled_error_total",
        "Absolute errors relative to each series' scale, as buckets of scores are closed.",
        lambda s: s.tally.scaled_error,
    ),
    _counter(
        "tidecast_naive_scaled_error_total",
        "Those of the naive forecasts for the same steps: 1 - scaled_error / naive_scaled_error is the skill.",
        lambda s: s.tally.naive_scaled_error,
    ),
    _counter("tidecast_anomalies_total", "Values outside of what was forecast for them.", lambda s: s.tally.anomalies),
    _counter(
        "tidecast_alerts_total",
        "Records on OUTPUT-alerts, by kind and phase.",
        lambda s: dict.fromkeys(product(get_args(AlertKind), get_args(Phase)), 0) | s.tally.findings,
        *("kind", "phase"),
    ),
    _counter(
        "tidecast_webhook_alerts_total",
        "What became of the alerts that were to be posted. Absent without --alert-webhook.",
        lambda s: _by_word(s.webhook),
        "result",
    ),
)
"""All of a service's own; those of its process (process_*) are prometheus_client's."""
GROUP_METRICS = frozenset(
    f"tidecast_{name}"
    for name in (
        *("lag_records", "end_offset", "committed_offset", "broker_up", "broker_errors_total"),
        *("worker_up", "worker_restarts_total"),
    )
)
"""Those that are not of one worker."""
