"""`tidecast bench`: this machine's capacity for a model, and what a fleet of series needs."""

import logging
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from deploy.console import out
from deploy.models.loading import load_model
from deploy.operations.capacity.measure import Trial, inference
from deploy.operations.capacity.plan import BUSY, FULL, Capacity, Plan, plan
from deploy.operations.memory import PROCESS_BYTES, Needs, series_needs, size
from deploy.operations.sample import Sample
from deploy.serving.connections import Connections
from deploy.serving.tasks import task_for
from deploy.serving.workers.processes import Run
from deploy.settings.machine import available_cores, available_memory
from deploy.settings.serve import ServeConfig, window_config
from model.card import Card
from tidecast.errors import ConfigError
from tidecast.freq import format_duration

logger = logging.getLogger(__name__)

INTERVALS_S = (1, 10, 60, 300, 900, 3600)
TYPICAL = 100_000
"""Series for which the memory of one is told: arrays grow by doubling."""


def bench(
    config: ServeConfig,
    connections: Connections,
    run: Run,
    workers: int | None,
    fleet: tuple[int, float] | None,
    *,
    as_json: bool,
) -> dict[str, Any]:
    """Measure, and print a table unless JSON is wanted; the same as an object.

    `fleet` is a number of series and the seconds between two values of one. Raises ConfigError for a model of texts.
    """
    predictor = load_model(connections.model, connections.tracking_uri, connections.device)
    if not isinstance(predictor.card, Card):
        raise ConfigError(f"{predictor.label} is a model of texts, and bench measures those that forecast")
    count, kafka = workers or available_cores(), not connections.bootstrap.startswith("sqlite:")
    trial = Trial(run, predictor.card, config, connections, kafka)
    logger.info(f"{predictor.label}: onnxruntime alone")
    ceiling = inference(predictor)
    task, windows = task_for(predictor, config), window_config(predictor.card.input)
    capacity = _measured(trial, count, series_needs(task, predictor.card, windows, config, Sample()))
    planned = fleet and plan(capacity, *fleet, config.series_limit, config.checkpoint_s)
    found = _as_object(predictor.label, ceiling, capacity, planned)
    if not as_json:
        _show(found, capacity, fleet, planned, kafka=kafka)
    return found


def _measured(trial: Trial, workers: int, needs: Needs) -> Capacity:
    logger.info("a service of one process")
    one = trial.of(1)
    logger.info(f"one of {workers} processes")
    whole = trial.of(workers) if workers > 1 else one
    return Capacity(
        one=one.rate,
        whole=whole.rate,
        workers=workers,
        memory=available_memory(),
        process=PROCESS_BYTES,
        series=needs.total(TYPICAL, 1) / TYPICAL,
        state=needs.state,
        event=one.event,
        forecast=one.forecast,
    )


def _as_object(model: str, ceiling: float, capacity: Capacity, planned: Plan | None) -> dict[str, Any]:
    return {
        "model": model,
        "onnxruntime": round(ceiling),
        "one_process": round(capacity.one),
        "workers": capacity.workers,
        "all_processes": round(capacity.whole),
        "memory": capacity.memory,
        "bytes_a_series": round(capacity.series),
        "state_bytes_a_series": round(capacity.state),
        "event_bytes": round(capacity.event),
        "forecast_bytes": round(capacity.forecast),
        "most_series": {str(every): capacity.most_series(every) for every in INTERVALS_S},
        **({"plan": planned._asdict()} if planned else {}),
    }


def _show(
    found: dict[str, Any],
    capacity: Capacity,
    fleet: tuple[int, float] | None,
    planned: Plan | None,
    *,
    kafka: bool,
) -> None:
    where = "on this Kafka" if kafka else "on an embedded log: --bootstrap tries it on a Kafka"
    rows = [
        ("onnxruntime alone, one thread", f"{found['onnxruntime']:,} windows/s"),
        (
            "a service of one process",
            f"{capacity.one:,.0f} records/s ({capacity.one / found['onnxruntime']:.0%} of it)",
        ),
        (f"of {capacity.workers}", f"{capacity.whole:,.0f} records/s"),
        ("a series", f"{size(capacity.series)} of memory, {size(capacity.state)} of the state topic"),
    ]
    _print(f"{found['model']}, {where}", rows)
    rows = [
        (f"a value every {format_duration(1000 * every)}", f"{capacity.most_series(every):,} series")
        for every in INTERVALS_S
    ]
    _print(f"this machine, at {BUSY:.0%} of that and {FULL:.0%} of its memory", rows)
    if fleet and planned:
        _print(f"{fleet[0]:,} series, each a value every {format_duration(1000 * fleet[1])}", _needs(capacity, planned))


def _needs(capacity: Capacity, planned: Plan) -> list[tuple[str, str]]:
    if not planned.instances:
        return [("machines", f"none like this one: {capacity.workers} processes leave no memory for series")]
    return [
        ("records", f"{planned.rate:,.0f} a second"),
        ("machines like this one", f"{planned.instances:,}, by their {planned.bound}; and one to spare"),
        ("processes", f"{planned.workers:,} (--workers {capacity.workers})"),
        ("partitions", f"{planned.partitions:,}"),
        ("memory of a machine", size(planned.memory)),
        ("state topic", f"{size(planned.state)} before compression and replication"),
        ("network", f"{size(planned.network_in)}/s from the brokers, {size(planned.network_out)}/s to them"),
        ("a minute's outage", f"is caught up with in {planned.catch_up_s:,.0f} s"),
    ]


def _print(title: str, rows: Sequence[tuple[str, str]]) -> None:
    out.print(title, style="bold", soft_wrap=True)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 2))
    for row in rows:
        table.add_row(*row)
    out.print(table)
    out.print()
