"""Labels of texts: a columnar batch of them as a value, and their messages.

B texts
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, eq=False)
class LabelBatch:
    """B texts' likeliest labels, column by column, between predicting and encoding."""

    ids: Sequence[str | int]
    """(B,)."""
    label: Sequence[str]
    """(B,)."""
    probability: Sequence[float]
    """(B,): the label's."""
    model: str
    """Which version said so, of all of them."""

    def __len__(self) -> int:
        return len(self.ids)


class Label(msgspec.Struct, gc=False):
    """One text's likeliest label and its probability; `id` as the text's own, `model` which version said so."""

    id: str | int
    label: str
    probability: float
    model: str


def encode_labels(batch: LabelBatch) -> Iterator[bytes]:
    """Each text's label as JSON bytes, in order."""
    columns = zip(batch.ids, batch.label, batch.probability, strict=True)
    return (_encode(Label(*row, batch.model)) for row in columns)
