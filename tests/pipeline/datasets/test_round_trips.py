"""From a file to forecast times: calendars, zones, phases, jitter and separators, and nothing lost uncounted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from calendars import HOUR, jittered
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.columns import Columns
from pipeline.datasets.history import from_frame, windows
from pipeline.datasets.measurements import events, read_file
from pipeline.datasets.spacing import infer_freq, infer_offset
from pipeline.windows.grid import WindowConfig
from pipeline.windows.steps import DAY, Ints
from pipeline.windows.streaming import WindowStore

BERLIN = "Europe/Berlin"
WORDS = ("", "NA", "n/a", "unavailable")
FORMS = {
    "Z": (UTC, "%Y-%m-%dT%H:%M:%S.%fZ"),
    "UTC": (UTC, "%Y-%m-%d %H:%M:%S.%f UTC"),
    "no offset": (UTC, "%Y-%m-%d %H:%M:%S.%f"),
    "+05:30": (timezone(timedelta(hours=5.5)), "%Y-%m-%dT%H:%M:%S.%f+05:30"),
    BERLIN: (ZoneInfo(BERLIN), "%Y-%m-%d %H:%M:%S.%f"),
}


@dataclass(frozen=True, slots=True)
class File:
    """What a file holds, and how it is written."""

    times: Ints
    regular: Ints
    values: Sequence[float]
    missing: frozenset[int]
    twice: frozenset[int]
    form: str
    separator: str
    decimal: str

    def write(self, path: Path) -> Path:
        """One row a measurement; some have no value, and some are there twice."""
        zone, form = FORMS[self.form]
        lines = [self.separator.join(("series", "ts", "value"))]
        for row, (ts, value) in enumerate(zip(self.times.tolist(), self.values, strict=True)):
            cell = WORDS[row % len(WORDS)] if row in self.missing else f"{value:.2f}".replace(".", self.decimal)
            lines += [self.separator.join(("pump", written(ts, zone, form), cell))] * (2 if row in self.twice else 1)
        path.write_text("\n".join(lines) + "\n")
        return path


def written(ts: int, zone: tzinfo, form: str) -> str:
    return (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ts)).astimezone(zone).strftime(form)


@st.composite
def files(draw: st.DrawFn) -> File:
    regular, times = draw(jittered())
    rows = st.integers(5, len(times) - 8)
    separator, decimal = draw(st.sampled_from([(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ",")]))
    sizes = np.random.default_rng(draw(st.integers(0, 99))).normal(0, draw(st.sampled_from([1.0, 1e4])), len(times))
    forms = list(FORMS)
    repeated = False
    if np.diff(regular).min() <= HOUR:  # the clocks change on days 83 and 300
        moved = draw(st.sampled_from([0, 82, 299] if np.array_equal(regular, times) else [0, 82])) * DAY
        regular, times, repeated = regular + moved, times + moved, moved > 83 * DAY
    else:
        forms.remove(BERLIN)
    return File(
        times=times,
        regular=regular,
        values=[round(float(size), 2) for size in sizes],
        missing=draw(st.frozensets(rows, max_size=2)),
        twice=frozenset() if repeated else draw(st.frozensets(rows, max_size=1)),
        form=draw(st.sampled_from(forms)),
        separator=separator,
        decimal=decimal,
    )


@given(files())
def test_a_file_becomes_windows_and_forecast_times_and_all_that_is_dropped_is_counted(
    tmp_path_factory: pytest.TempPathFactory, file: File
) -> None:
    path = file.write(tmp_path_factory.mktemp("file") / "pump.csv")
    zone = BERLIN if file.form == BERLIN else None
    read = read_file(str(path), Columns(timezone=zone, decimal=file.decimal, max_skipped=0.2))
    kept = [row for row in range(len(file.times)) if row not in file.missing]
    repeats = [row for row in kept if row in file.twice]
    assert len(read.frame) + read.skipped == len(file.times) + len(file.twice)
    assert read.frame["ts"].unique().sort().to_list() == file.times[kept].tolist()
    assert read.frame.unique("ts").sort("ts")["value"].to_list() == [file.values[row] for row in kept]

    freq = infer_freq(read.frame)
    assert freq is not None
    config = WindowConfig(seq_len=3, freq=freq, offset=infer_offset(read.frame, freq), max_gap=4)
    batch, store = windows(from_frame(read.frame), config), WindowStore(config)
    for event in events(read.frame):
        store.push(event)
    streamed, counts = store.take(), store.counts
    assert counts.accepted + counts.duplicate + counts.late == len(kept) + len(repeats)
    assert (counts.duplicate, counts.late, counts.reset) == (len(repeats), 0, 0)
    assert counts.filled == len(file.missing)

    np.testing.assert_array_equal(streamed.step, batch.step[batch.ends])
    np.testing.assert_array_equal(streamed.ts, file.times[kept][-len(streamed.ts) :])
    assert config.grid is not None
    np.testing.assert_array_equal(streamed.start, config.grid.ahead(batch.step[batch.ends], batch.ts[batch.ends], 1))
    following = np.arange(len(file.times) - len(streamed.ts) + 1, len(file.times))
    steps = config.grid.index(file.times[following])
    if not file.missing:
        assert config.grid.index(streamed.start[:-1]).tolist() == steps.tolist(), "forecast times are the data's next"
        if np.array_equal(file.times, file.regular):
            assert streamed.start[:-1].tolist() == file.times[following].tolist()
