"""Which data faults are found in 200 streams, as what, how soon; and what is found in them while they are clean.

    python benchmarks/data_faults.py ../shared/data/series          [--verbose]

More than half of the streams are synthetic, the others parts of public series; 2,000 steps each, days of 24 or 48
steps. Each is streamed clean, and once with each fault, from a random step of its second half on: a level shift of 3 to
6 standard deviations, for good; another unit (x1000, x60, x3.6, 1.8x+32, /60, /1000), for good; one value for two days;
two days without events; a spike of 5 to 15 standard deviations, one step. 20 more streams, constant or intermittent,
stay clean. The forecasts are those of a linear regression on the last day's values, fitted to the first 500 steps. Gaps
are found by the windows of a partition that all of the streams are in, all else by the grading of values.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from data_faults_parts import KINDS, LASTS, STEPS, Floats, Stream, broken, quiet, real, synthetic

from model.online.anomalies.anomalies import Anomalies
from model.online.tracks import TrackStore
from pipeline.formats.events import Event
from pipeline.windows.batch import Sections, Silence
from pipeline.windows.grid import WindowConfig
from pipeline.windows.streaming import WindowStore

FITTED, STREAMS = 500, 200


def errors(stream: Stream) -> tuple[Floats, Floats]:
    """Errors of a linear forecast and of the seasonal naive one; holes are filled with the value before."""
    index = np.where(np.isnan(stream.values), 0, np.arange(STEPS))
    filled = stream.values[np.maximum.accumulate(index)]
    past = np.lib.stride_tricks.sliding_window_view(filled, stream.day)[:-1]
    rows, moves = past - past[:, -1:], filled[stream.day :] - past[:, -1]
    fit = slice(0, FITTED)
    gram = rows[fit].T @ rows[fit]
    gram += (1e-3 * np.trace(gram) / len(gram) + 1e-9) * np.eye(len(gram))
    forecast = rows @ np.linalg.solve(gram, rows[fit].T @ moves[fit])
    none = np.full(stream.day, np.nan)
    return np.concatenate([none, moves - forecast]), np.concatenate([none, filled[stream.day :] - past[:, 0]])


class Found(NamedTuple):
    """The begin of a finding, and the step at which it was seen."""

    step: int
    kind: str


def findings(streams: list[Stream]) -> list[list[Found]]:
    """What is found by stream, of streams with days of as many steps, besides gaps."""
    anomalies = Anomalies(streams[0].day)
    store = TrackStore(anomalies.fields, 1)
    rows = np.array([store.allocate() for _ in streams])
    values = np.stack([stream.values for stream in streams])
    both = [errors(stream) for stream in streams]
    error, naive = (np.stack(part) for part in zip(*both, strict=True))
    found: list[list[Found]] = [[] for _ in streams]
    for step in range(STEPS):
        at = np.flatnonzero(~np.isnan(values[:, step]))
        tracks, steps, none = store.gather(rows[at]), np.full(len(at), step), np.full((len(at), 2), np.nan)
        now, errors_now, naive_now = (part[at, step] for part in (values, error, naive))
        _, new = anomalies.update(tracks, [len(at)], now, errors_now, naive_now, none, steps, steps, steps * 0)
        store.scatter(rows[at], tracks)
        for finding in new:
            if finding.phase == "begin":
                found[at[finding.row]].append(Found(step, finding.kind))
    return found


class Gaps:
    """What is found of gaps: a companion of the windows, without state."""

    def __init__(self) -> None:
        self.found: dict[str, list[Found]] = defaultdict(list)

    def sections(self, series: str) -> Sections:
        """None."""
        return {}

    def restore(self, series: str, sections: Sections) -> Sections:
        """Nothing is the companion's."""
        return sections

    def expired(self, series: str, place: int, offset: int) -> None:
        """No series does."""

    def silent(self, silence: Silence) -> None:
        """A gap, or its end."""
        if not silence.ended:
            self.found[silence.series].append(Found(silence.ts, "gap"))


def gaps(streams: list[Stream]) -> list[list[Found]]:
    """The gaps that are found in streams of one partition. A step takes 1 ms."""
    companion = Gaps()
    store = WindowStore(WindowConfig(seq_len=2), companion=companion)
    rows = np.stack([stream.values for stream in streams]).T
    for step, values in enumerate(rows.tolist()):
        for series, value in enumerate(values):
            if value == value:
                store.push(Event(str(series), step, (value,)))
        store.take()
    return [companion.found[str(series)] for series in range(len(streams))]


def by_day(streams: list[Stream]) -> Iterator[tuple[Stream, list[Found]]]:
    """Every stream with what is found in it, in order."""
    silent = [stream for stream in streams if stream.fault in ("", "gap")]  # the others miss no step
    found = {id(stream): once for stream, once in zip(silent, gaps(silent), strict=True)}
    for day in sorted({stream.day for stream in streams}):
        part = [stream for stream in streams if stream.day == day]
        for stream, once in zip(part, findings(part), strict=True):
            yield stream, sorted(once + found.get(id(stream), []))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--verbose", action="store_true", help="every false alert, and every fault missed or mistaken")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    parts = list(real(options.data))
    half = STREAMS // 2
    chosen = [parts[at] for at in rng.permutation(len(parts))[:half]]
    clean = chosen + [stream for stream, _ in zip(synthetic(rng), range(STREAMS - len(chosen)), strict=False)]
    every = clean + list(quiet(rng)) + [broken(stream, kind, rng) for kind in KINDS for stream in clean]
    results = list(by_day(every))
    report(results, options.verbose)


def report(results: list[tuple[Stream, list[Found]]], verbose: bool) -> None:
    """The table of all streams."""
    false: Counter[str] = Counter()
    events = 0
    told: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for stream, found in results:
        if not stream.fault:
            events += STEPS
            false.update(each.kind for each in found)
            if verbose and found:
                print("clean ", stream.name, *found)
            continue
        near = [each for each in found if stream.since <= each.step < stream.since + LASTS * stream.day]
        first = near[0] if near else None
        told[stream.fault].append((first.kind, first.step - stream.since) if first else ("", 0))
        if verbose and (first is None or first.kind != stream.fault):
            around = stream.values[stream.since - 3 : stream.since + 6].round(3).tolist()
            print("wrong ", stream.name, stream.fault, stream.since, first, around)
    print(f"{'':12} {'found':>7} {'told right':>11} {'delay (median, steps)':>22}  taken for")
    for kind in KINDS:
        print(line(kind, told[kind], Counter(once for once, _ in told[kind] if once not in ("", kind))))
    faults = [("right" if once == kind else once, delay) for kind in KINDS[:-1] for once, delay in told[kind]]
    print("all four " + line("right", faults, Counter())[9:])
    total = false.total()
    print(f"clean: {total} findings in {events:,} events, {1e4 * total / events:.2f} in 10,000: {dict(false)}")


def line(kind: str, told: list[tuple[str, int]], others: Counter[str]) -> str:
    """One line of the table. told: the kind found, "" for none, and the delay."""
    delays = [delay for once, delay in told if once]
    right = sum(once == kind for once, _ in told)
    found = len(delays)
    return f"{kind:12} {found / len(told):7.1%} {right / max(1, found):11.1%} {median(delays):>22.0f}  {dict(others)}"


if __name__ == "__main__":
    main()
