"""Texts as tokens: the vocabulary, and the windower that tokenises texts, which is stateless.

N texts   B of them   S tokens of the longest
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.formats.texts import TextEvent
from pipeline.windows.batch import Sections, SeriesState
from pipeline.windows.grid import Counts, Ints
from pipeline.windows.snapshot import Snapshot
from tidecast.errors import ConfigError

PAD, UNKNOWN = 0, 1
WORDS = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
DIGIT = re.compile(r"\d")


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """How texts are tokenised: token 0 is padding, 1 any unknown token, and n + 2 the n-th entry, from 0."""

    tokeniser: Literal["word", "char"] = "word"
    """word: words (don't is one) and single punctuation marks; char: every character."""
    lower: bool = True
    """Whether texts are lower-cased."""
    digits: bool = True
    """Whether every digit is replaced by 0."""
    max_len: int = 256
    """The longest text, in tokens; a longer one is truncated."""
    cut: Literal["head", "tail"] = "head"
    """Which end of a longer text is kept."""
    entries: tuple[str, ...] = ()
    """The known tokens, the most frequent first."""

    def __post_init__(self) -> None:
        if self.max_len < 1:
            raise ConfigError(f"max_len: {self.max_len} is less than 1")

    def __len__(self) -> int:
        return len(self.entries) + 2

    def fitted(self, texts: Iterable[str], most: int = 50_000) -> Self:
        """The vocabulary of these texts: the `most` most frequent tokens."""
        counts = Counter(token for text in texts for token in self.split(text))
        ranked = sorted(counts.items(), key=lambda counted: (-counted[1], counted[0]))
        return msgspec.structs.replace(self, entries=tuple(token for token, _ in ranked[:most]))

    def split(self, text: str) -> list[str]:
        """The text's tokens as text, not truncated."""
        text = text.lower() if self.lower else text
        text = DIGIT.sub("0", text) if self.digits else text
        return list(text) if self.tokeniser == "char" else WORDS.findall(text)

    def decoded(self, token: int) -> str:
        """A token as text; empty for padding and the unknown token."""
        return self.entries[token - 2] if token > UNKNOWN else ""

    def encoder(self) -> "Encoder":
        """An encoder of texts by this vocabulary."""
        return Encoder(self)


class Encoder:
    """Encodes texts as tokens, by one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._numbers = {entry: number for number, entry in enumerate(vocabulary.entries, start=2)}

    def encode(self, text: str) -> list[int]:
        """A text's tokens, not truncated."""
        known = self._numbers.get
        return [known(token, UNKNOWN) for token in self._vocabulary.split(text)]

    def cut(self, text: str) -> list[int]:
        """A text's tokens, truncated to max_len; an empty text is one unknown token."""
        tokens, longest = self.encode(text), self._vocabulary.max_len
        return (tokens[:longest] if self._vocabulary.cut == "head" else tokens[-longest:]) or [UNKNOWN]

    def batch(self, texts: Sequence[str]) -> "TokenRows":
        """Texts as rows of tokens, padded on the right."""
        return padded([self.cut(text) for text in texts])


class TokenRows(NamedTuple):
    """N texts: x (N,S) int64 and lengths (N,) int64."""

    x: Ints
    lengths: Ints


def padded(rows: Sequence[Sequence[int]]) -> TokenRows:
    """Rows of tokens, padded on the right to one length."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    x = np.full((len(rows), int(lengths.max(initial=1))), PAD, np.int64)
    x[np.arange(x.shape[1]) < lengths[:, None]] = [token for row in rows for token in row]
    return TokenRows(x, lengths)


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """B texts, in the order in which they were pushed."""

    ids: list[str | int]
    keys: list[bytes]
    """The keys of their labels."""
    tokens: list[list[int]]
    offset: Ints
    """(B,): the offset that was pushed with each."""

    @property
    def first_offset(self) -> Ints:
        """(B,): the offset of the first record that each depends on, which is its own."""
        return self.offset

    def __len__(self) -> int:
        return len(self.ids)

    def arrays(self, start: int, stop: int) -> Mapping[str, npt.NDArray[Any]]:
        """A model's inputs by name, for the texts start <= i < stop, padded to the longest of them."""
        return padded(self.tokens[start:stop])._asdict()

    @staticmethod
    def concat(parts: Sequence["Texts"]) -> "Texts":
        """The texts of one or more parts, concatenated."""
        return Texts(
            ids=[name for part in parts for name in part.ids],
            keys=[key for part in parts for key in part.keys],
            tokens=[row for part in parts for row in part.tokens],
            offset=np.concatenate([part.offset for part in parts]),
        )


class TextWindower:
    """Tokenises texts as they arrive. It is stateless, so a checkpoint has no state of it."""

    config = None
    """None: it has no states."""
    stream_time = 0
    """Constant: texts have no event time."""

    def __init__(self, encoder: Encoder) -> None:
        self.counts = Counts()
        self.sections: Sections = {}
        self._encoder = encoder
        self._pending: list[tuple[TextEvent, list[int], int]] = []

    def __len__(self) -> int:
        """0: no series are kept."""
        return 0

    def push(self, event: TextEvent, offset: int = 0) -> bool:
        """Keep a text for `take`, with its record's `offset`. No text is late, so every one is used."""
        self._pending.append((event, self._encoder.cut(event.text), offset))
        self.counts.accepted += 1
        return True

    def take(self) -> Texts:
        """The texts since the last take."""
        events, tokens, offsets = zip(*self._pending, strict=True) if self._pending else ((), (), ())
        self._pending = []
        ids, keys = [event.id for event in events], [event.key for event in events]
        return Texts(ids, keys, list(tokens), np.array(offsets, np.int64))

    def dirty_count(self) -> int:
        """0: there is no state to change."""
        return 0

    def snapshot(self) -> Snapshot:
        """Empty: there is no state."""
        return Snapshot()

    def mark_dirty(self, names: Iterable[str] | None = None) -> None:
        """No effect: there is no state."""

    def states(self, names: Sequence[str]) -> list[SeriesState | None]:
        """None of each: there is no state."""
        return [None] * len(names)

    def restore(self, states: Mapping[str, SeriesState]) -> None:
        """Raises KeyError for any: there is no state."""
        for series in states:
            raise KeyError(series)
