"""Files of labelled texts."""

from dataclasses import dataclass

import polars as pl

from pipeline.datasets.tables import Table, listed, read_table
from tidecast.errors import DataError

TEXTS = ("text", "message", "sentence", "review", "tweet", "comment", "content", "body", "sms")
LABELS = ("label", "class", "category", "sentiment", "target", "type")
MOST_LABELS = 1000


@dataclass(frozen=True, slots=True)
class Corpus:
    """Labelled texts, in the file's order. Rows of one group are near-duplicates; None: there are no groups."""

    texts: list[str]
    labels: list[str]
    groups: list[str] | None
    notes: tuple[str, ...]
    """What the user should know about how the file was read."""


def read_corpus(path: str, text: str | None = None, label: str | None = None, group: str | None = None) -> Corpus:
    """Read a CSV, Parquet or JSON lines file of texts and their labels; rows without a text or a label are skipped.

    A column that is not given is found by its name. A number is a column of a file without a header line, counted
    from 1. Raises DataError.
    """
    numbered = [name.isdigit() for name in (text, label, group) if name]
    table = read_table(path, header=not (numbered and all(numbered)))
    text, label = _column(table, text, TEXTS, "text"), _column(table, label, LABELS, "label")
    wanted = {"text": text, "label": label} | ({"group": _column(table, group, (), "group")} if group else {})
    cells = table.columns.select(pl.col(name).cast(pl.String).alias(role) for role, name in wanted.items())
    kept = cells.filter(pl.col("text").str.strip_chars() != "", pl.col("label").str.strip_chars() != "")
    labels = kept["label"].str.strip_chars()
    if not 2 <= labels.n_unique() <= MOST_LABELS:
        raise DataError(f"{table.name}: column {label!r} has {labels.n_unique():,} different labels")
    skipped = len(cells) - len(kept)
    notes = [*table.notes]
    notes += [f"{skipped:,} of {len(cells):,} rows have no text or no label: skipped"] if skipped else []
    groups = kept["group"].fill_null("").to_list() if group else None
    return Corpus(kept["text"].to_list(), labels.to_list(), groups, tuple(notes))


def _column(table: Table, given: str | None, names: tuple[str, ...], role: str) -> str:
    """The column given, or the first that has one of the usual names. Raises DataError."""
    there = {name.strip().lower(): name for name in reversed(table.columns.columns)}
    found = [there[name] for name in ([given.lower()] if given else names) if name in there]
    if not found:
        what = f"no column {given!r}" if given else f"which column is the {role}"
        raise DataError(f"{table.name}: {what} among {listed(table.columns.columns)}? Name it with --{role}-column")
    return found[0]
