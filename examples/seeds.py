"""Shared by the example scripts: command-line options, readers of the data files, and the printed result."""

import argparse
import csv
import gzip
import io
import json
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parent / "data"
"""Small samples of the data sets, so that every script runs from a fresh clone; data/README.md names their sources."""
KEYS = ("accuracy", "mcc", "nats", "rmse", "max_abs", "seconds")
"""The keys of a result, the same in every script."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command-line options of a script."""

    mode: str
    """parity: reproduces the document, including its mistakes; honest: with the mistakes corrected."""
    data: Path
    json: bool
    seed: int
    epochs: int | None
    """Passes over the data; None: the default of the script's mode."""
    extra: Mapping[str, Any]
    """The values of the options that only this script has, by name."""


def parse_options(description: str, sample: str, **extra: Mapping[str, Any]) -> Options:
    """Parses the command line of a script.

    `description` is its docstring, `sample` the default data file in SAMPLES, and `extra` has the keyword arguments of
    `add_argument` for each option that only this script has.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("honest", "parity"), default="honest")
    parser.add_argument("--data", type=Path, default=SAMPLES / sample, help="default: the bundled sample")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="default: depends on the mode")
    for name, arguments in extra.items():
        parser.add_argument(f"--{name}", **arguments)
    parsed = parser.parse_args()
    if not parsed.data.exists():
        parser.error(f"{parsed.data}: no such file")
    values = {name: getattr(parsed, name) for name in extra}
    return Options(parsed.mode, parsed.data, parsed.json, parsed.seed, parsed.epochs, values)


def run_script(main: Callable[[], None]) -> None:
    """Runs a script; a ValueError ends it with its message, without a traceback."""
    try:
        main()
    except ValueError as error:
        sys.exit(str(error))


@contextmanager
def print_result(options: Options) -> Iterator[dict[str, float]]:
    """Yields a dict for the metrics, under KEYS; at the end adds the elapsed seconds and prints it, as text or JSON."""
    result: dict[str, float] = {}
    started = time.perf_counter()
    yield result
    result["seconds"] = round(time.perf_counter() - started, 2)
    assert set(result) <= set(KEYS)
    print(json.dumps({"mode": options.mode, **result}) if options.json else format_result(result))


def format_result(result: Mapping[str, float]) -> str:
    """A result as one line of text."""
    return ", ".join(f"{key} {value:.4g}" for key, value in result.items())


def log_line(line: str) -> None:
    """Prints a line of progress to stderr."""
    print(line, file=sys.stderr, flush=True)


def read_sms(path: Path) -> tuple[list[str], list[str]]:
    """Messages and their labels, ham or spam, from lines `label TAB text` or a CSV with the columns type and text."""
    text = path.read_text("utf-8")
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        return [row["text"] for row in rows], [row["type"] for row in rows]
    pairs = [line.split("\t", 1) for line in text.split("\n") if line]
    return [message for _, message in pairs], [label for label, _ in pairs]


def read_sentences(path: Path) -> tuple[list[str], list[str]]:
    """Sentences of film reviews and their labels, neg or pos, from the published zip or lines `label TAB text`."""
    if path.suffix != ".zip":
        return read_sms(path)
    pairs: list[tuple[str, str]] = []
    with zipfile.ZipFile(path) as archive:
        for label in ("neg", "pos"):
            name = next(name for name in archive.namelist() if name.endswith(f"rt-polarity.{label}"))
            pairs += [(line, label) for line in archive.read(name).decode("latin-1").split("\n") if line.strip()]
    return [text for text, _ in pairs], [label for _, label in pairs]


def read_text(path: Path) -> str:
    """The text of a file, gzipped or plain."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
