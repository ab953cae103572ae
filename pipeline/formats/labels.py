"""The codec of labels of texts: a columnar batch of them, and their messages.

B texts
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, eq=False)
class LabelBatch:
    """The most likely labels of B texts in columns, as predicted and to be encoded."""

    ids: Sequence[str | int]
    """(B,)."""
    label: Sequence[str]
    """(B,)."""
    probability: Sequence[float]
    """(B,): the probability of the label."""
    model: str
    """The model version that predicted all of them."""

    def __len__(self) -> int:
        return len(self.ids)


class Label(msgspec.Struct, gc=False):
    """The most likely label of one text. `id` is the text's, `model` the version that predicted it."""

    id: str | int
    label: str
    probability: float
    model: str


def encode_labels(batch: LabelBatch) -> Iterator[bytes]:
    """Encode each label as JSON, in order."""
    columns = zip(batch.ids, batch.label, batch.probability, strict=True)
    return (_encode(Label(*row, batch.model)) for row in columns)
