"""What the example scripts share: their options, the samples they run on, and how they tell what came out."""

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
"""Small samples, so that every script runs from a bare clone; where they come from is in their README."""
KEYS = ("accuracy", "mcc", "nats", "rmse", "max_abs", "seconds")
"""What a result may hold, under the same names in every script."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a script was asked for."""

    mode: str
    """parity: as the document did it, faults and all; honest: mended, for the better number."""
    data: Path
    json: bool
    seed: int
    epochs: int | None
    """Passes over the data; None: the script's own."""
    own: Mapping[str, Any]
    """What only this script has, by name."""


def options(about: str, sample: str, **own: Mapping[str, Any]) -> Options:
    """The command line of a script; `about` is its docstring, `sample` the data it runs on if none is named.

    `own` are options that only this script has: what argparse needs to know of each.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("honest", "parity"), default="honest")
    parser.add_argument("--data", type=Path, default=SAMPLES / sample, help="default: what the project carries")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="default: what the script's mode takes")
    for name, kind in own.items():
        parser.add_argument(f"--{name}", **kind)
    given = parser.parse_args()
    if not given.data.exists():
        parser.error(f"{given.data}: there is no such file")
    values = {name: getattr(given, name) for name in own}
    return Options(given.mode, given.data, given.json, given.seed, given.epochs, values)


def run(main: Callable[[], None]) -> None:
    """Runs a script; what is wrong with its data is one line."""
    try:
        main()
    except ValueError as error:
        sys.exit(str(error))


@contextmanager
def finished(asked: Options) -> Iterator[dict[str, float]]:
    """Takes the script's result under KEYS, adds the seconds it took, and prints it: in words, or as JSON."""
    result: dict[str, float] = {}
    begun = time.perf_counter()
    yield result
    result["seconds"] = round(time.perf_counter() - begun, 2)
    assert set(result) <= set(KEYS)
    print(json.dumps({"mode": asked.mode, **result}) if asked.json else in_words(result))


def in_words(result: Mapping[str, float]) -> str:
    """A result as a line."""
    return ", ".join(f"{key} {value:.4g}" for key, value in result.items())


def say(line: str) -> None:
    """What a script tells on its way, on stderr."""
    print(line, file=sys.stderr, flush=True)


def sms(path: Path) -> tuple[list[str], list[str]]:
    """Messages and their labels, ham or spam: `label TAB text` lines, or the CSV with columns type and text."""
    text = path.read_text("utf-8")
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        return [row["text"] for row in rows], [row["type"] for row in rows]
    pairs = [line.split("\t", 1) for line in text.split("\n") if line]
    return [message for _, message in pairs], [label for label, _ in pairs]


def sentences(path: Path) -> tuple[list[str], list[str]]:
    """Sentences of film reviews and their labels, neg or pos: the published zip, or `label TAB text` lines."""
    if path.suffix != ".zip":
        return sms(path)
    found: list[tuple[str, str]] = []
    with zipfile.ZipFile(path) as archive:
        for label in ("neg", "pos"):
            name = next(name for name in archive.namelist() if name.endswith(f"rt-polarity.{label}"))
            found += [(line, label) for line in archive.read(name).decode("latin-1").split("\n") if line.strip()]
    return [text for text, _ in found], [label for _, label in found]


def lines_of(path: Path) -> str:
    """A file's text, gzipped or not."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
