"""How large an event's key and value may be, and what is kept of larger ones."""

import hashlib
from typing import Self

MAX_VALUE_BYTES = 65_536
"""The largest key of an event, and the largest value of one in JSON."""
MAX_COLUMNAR_BYTES = 1_000_000
"""The largest value of a record that holds many events: with its headers it fits where brokers take 1 MiB."""
COLUMNAR = b"\xff\xff\xff\xff"
"""The first bytes of such a value, a stream of Arrow's IPC format; no text in UTF-8 begins with them."""


class Truncated(bytes):
    """The beginning of a key or value that is too large for an event; `sha256` is that of all of it, hexadecimal."""

    sha256: str

    @classmethod
    def of(cls, whole: bytes, length: int) -> Self:
        """The first `length` bytes of `whole`."""
        cut = cls(whole[:length])
        cut.sha256 = hashlib.sha256(whole).hexdigest()
        return cut


def within_limits(data: bytes) -> bytes:
    """A key or value as it is, or Truncated if it is too large for an event: to one byte more than that."""
    if len(data) <= MAX_VALUE_BYTES or (len(data) <= MAX_COLUMNAR_BYTES and data.startswith(COLUMNAR)):
        return data
    return Truncated.of(data, MAX_VALUE_BYTES + 1)
