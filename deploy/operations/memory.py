"""What the series of a service take, in memory and in the state topic, and how much memory there is."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from deploy.grading.state import Grading, PartitionGrades
from deploy.operations.findings import Finding, format_partitions
from deploy.operations.sample import Sample
from deploy.serving.checkpoints import PASS_SERIES
from deploy.serving.tasks import Task
from deploy.settings.serve import SERVE_DEFAULTS, ServeConfig
from model.card import Card
from model.online.tracks import FIRST_ROWS
from pipeline.state.records import SERIES_PREFIX, config_hash, encode_series
from pipeline.windows.arrays.buffers import StepBuffers
from pipeline.windows.arrays.table import ROW_BYTES
from pipeline.windows.batch import SeriesState
from pipeline.windows.grid import WindowConfig
from pipeline.windows.streaming import WindowStore

PROCESS_BYTES = 200_000_000
"""What a service takes without any series: Python, onnxruntime and a model, the client of the log."""
OBJECT_BYTES, GRADED_OBJECT_BYTES = 150, 150
"""Python objects of a series' window, and besides of a series that is graded."""
NOW = 1 << 40
"""Any time that takes as many bytes as today's."""


class Needs(NamedTuple):
    """Bytes of one series."""

    windows: int
    grading: int
    objects: int
    """Of Python."""
    state: int
    """Its record in the state topic, before compression."""

    def total(self, series: int, partitions: int) -> int:
        """Bytes of so many series in one process: its arrays have grown by doubling, and a checkpoint is written."""
        arrays = partitions * reserved(-(-series // partitions)) * self.windows + reserved(series) * self.grading
        return arrays + series * self.objects + min(series, PASS_SERIES) * self.state


def reserved(series: int) -> int:
    """For how many series the arrays have room that hold so many."""
    return FIRST_ROWS << max(0, (max(series, 1) - 1).bit_length() - (FIRST_ROWS - 1).bit_length())


def series_needs(task: Task, card: Card, windows: WindowConfig, config: ServeConfig, sample: Sample) -> Needs:
    """What one series takes whose window is full of values such as the sample's."""
    grading = Grading(card, config) if config.grades else None
    store = task.windower(PartitionGrades(grading) if grading else None)
    assert isinstance(store, WindowStore)
    name = max(sample.values, key=lambda each: len(sample.values[each]), default="series-000")
    values = np.resize(np.array(sample.values.get(name) or 1 / 3, np.float64), (windows.seq_len, len(windows.features)))
    times = np.arange(0 if windows.grid else windows.seq_len)
    kept = grading.sections(grading.live.store.allocate()) if grading else {}
    full = SeriesState(values, np.ones(values.shape, np.bool_), NOW, NOW, times + NOW, NOW, sections=kept)
    store.restore({name: full})
    state = store.state(name)
    assert state is not None
    record = encode_series(config_hash(windows), name, state)
    return Needs(
        windows=StepBuffers(*values.shape, timed=windows.grid is None).row_bytes + ROW_BYTES,
        grading=grading.live.store.series_bytes if grading else 0,
        objects=OBJECT_BYTES + GRADED_OBJECT_BYTES * (grading is not None),
        state=len(SERIES_PREFIX) + len(name) + len(record),
    )


def memory(needs: Needs, sample: Sample, partitions: int, config: ServeConfig, available: int) -> Iterator[Finding]:
    """Whether the series fit into the memory of one process with all partitions."""
    seen, limit = sum(map(len, sample.partitions.values())), config.series_limit * partitions
    chosen = config.series_limit != SERVE_DEFAULTS["series_limit"]
    free, most = available - PROCESS_BYTES, max(seen, limit if chosen else 0)
    text = (
        f"{seen:,} series: up to {size(needs.total(seen, partitions))} of memory, {size(needs.state * seen)} of "
        f"{config.state_topic}; at --series-limit ({config.series_limit:,} x {format_partitions(partitions)}): "
        f"{size(needs.total(limit, partitions))} of the {size(max(0, free))} that there are for series"
    )
    numbers = {f"series_{name}": each for name, each in needs._asdict().items()}
    numbers |= {"seen": seen, "seen_total": needs.total(seen, partitions)}
    numbers |= {"limit": limit, "limit_total": needs.total(limit, partitions)}
    numbers |= {"available": available, "process": PROCESS_BYTES}
    if needs.total(most, partitions) <= free:
        yield Finding("memory", "ok", text, numbers=numbers)
    else:
        each = 2 * (needs.windows + needs.grading) + needs.objects + needs.state
        room = max(1, free // each // partitions)
        todo = f"more processes share the partitions; one with all of them has room for --series-limit {room}"
        yield Finding("memory", "warning", text, todo, numbers)


def size(count: float) -> str:
    """A number of bytes, for people."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 999.5 else f"{count:,.0f} GB"
