"""Rows of float64 numbers that take 4 bytes each where that is exact: most measurements are decimals of a few digits.

A lane is one feature's steps in a row. It has a code: its numbers are whole, with so many decimals, as int32; or
float32; or float64, whose upper halves are in a row of a pool.

R rows   L steps of each   F features   G rows of a batch   M numbers per feature   K rows that are written anew
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.windows.arrays.pool import Numbers, Pool, grown
from pipeline.windows.grid import Bools, Floats, Ints, view

DECIMALS = 9
FLOAT32, FLOAT64 = DECIMALS + 1, DECIMALS + 2
SCALES = np.array([*(10.0**decimals for decimals in range(DECIMALS + 1)), 1.0, 1.0])
FEW = 4
"""So many numbers of a lane are tried first."""
Words = npt.NDArray[np.uint32]
Codes = npt.NDArray[np.int8]


class Encoded(NamedTuple):
    """Numbers by their lanes' codes."""

    low: Words
    high: Words
    """Of FLOAT64 only."""
    exact: Bools
    """Whether each is exactly the number."""


def encode(values: Floats, codes: Codes) -> Encoded:
    """Numbers by codes; shapes broadcast."""
    scales = SCALES[codes]
    scaled = np.rint(values * scales)
    whole = np.where(np.abs(scaled) < 2.0**31, scaled, 0.0).astype(np.int32)
    exact, low = _same(whole / scales, values), whole.view(np.uint32)
    if (codes >= FLOAT32).any():
        bits = values.view(np.uint64)
        with np.errstate(over="ignore"):
            single = values.astype(np.float32)
        exact = np.where(codes == FLOAT32, _same(single.astype(np.float64), values), exact | (codes == FLOAT64))
        low = np.where(
            codes == FLOAT32, single.view(np.uint32), np.where(codes == FLOAT64, bits.astype(np.uint32), low)
        )
        return Encoded(low, (bits >> np.uint64(32)).astype(np.uint32), exact)
    return Encoded(low, low, exact)


def _same(one: Floats, other: Floats) -> Bools:
    """Whether numbers have the same bits: 0 and -0 do not."""
    same: Bools = one.view(np.int64) == other.view(np.int64)
    return same


def codes_for(lanes: Floats) -> Codes:
    """The code (n,) of each lane (n,S): the first by which all of its numbers are exact."""
    codes, left = np.full(len(lanes), FLOAT64, np.int8), np.arange(len(lanes))
    for code in range(FLOAT64):
        tried = left[_exact(lanes[left, -FEW:], code)]
        codes[tried[_exact(lanes[tried], code)]] = code
        left = left[codes[left] == FLOAT64]
        if not len(left):
            break
    return codes


def _exact(lanes: Floats, code: int) -> Bools:
    """Which lanes (n,) are exact by a code."""
    exact = encode(np.ascontiguousarray(lanes), np.array([code], np.int8)).exact
    return np.asarray(exact.all(axis=1))


class PackedRows:
    """The numbers of many rows."""

    def __init__(self, length: int, features: int) -> None:
        self._length = length
        self._low: Words = np.zeros((0, length, features), np.uint32)
        self._codes: Codes = np.zeros((0, features), np.int8)
        self._high, self._high_row = Pool((length, 1), np.uint32), np.zeros((0, features), np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self._low.nbytes + self._codes.nbytes + self._high_row.nbytes + self._high.rows.nbytes

    @property
    def row_bytes(self) -> int:
        """Bytes of one row that has no FLOAT64."""
        return int((4 * self._length + 5) * self._low.shape[2])

    def reserve(self, rows: int) -> None:
        """Make room for `rows` rows."""
        self._low, self._codes = grown(self._low, rows), grown(self._codes, rows)
        self._high_row = grown(self._high_row, rows)

    def clear(self, rows: Ints) -> None:
        """Set rows to 0."""
        self._set_codes(rows, np.zeros((len(rows), self._low.shape[2]), np.int8))
        self._low[rows] = 0

    def read(self, rows: Ints, first: Numbers, values: Floats) -> None:
        """Set `values` (G,n,F) to n numbers of each row, from a first one (G,) on."""
        count, width = values.shape[1:]
        low = view(self._low.reshape(-1, width), count)[rows * self._length + first].reshape(len(rows), count, width)
        codes = self._codes[rows]
        np.divide(low.view(np.int32), SCALES[codes][:, None], out=values)
        if codes.max(initial=0) < FLOAT32:
            return
        row, lane = np.nonzero(codes == FLOAT32)
        values[row, :, lane] = low[row, :, lane].view(np.float32)
        row, lane = np.nonzero(codes == FLOAT64)
        at = self._high_row[rows[row], lane].astype(np.int64) * self._length + first[row]
        high = view(self._high.rows.reshape(-1, 1), count)[at].astype(np.uint64)
        values[row, :, lane] = (high << np.uint64(32) | low[row, :, lane]).view(np.float64)

    def encode(self, rows: Ints, values: Floats) -> Encoded:
        """Numbers (M,F) by the codes of their rows (M,)."""
        return encode(values, self._codes[rows])

    def write(self, rows: Ints, at: Ints, encoded: Encoded) -> None:
        """Write numbers that are exact to these places (M,) of their rows."""
        self._low[rows, at] = encoded.low
        number, lane = np.nonzero(self._codes[rows] == FLOAT64)
        if len(number):
            self._high.rows[self._high_row[rows[number], lane], at[number], 0] = encoded.high[number, lane]

    def rewrite(self, rows: Ints, values: Floats) -> None:
        """Write the numbers (K,n,F) to the beginning of rows, by whatever codes are exact."""
        count, codes = values.shape[1], self._codes[rows]
        encoded = encode(values, codes[:, None])
        row, lane = np.nonzero(~encoded.exact.all(axis=1) | (codes == FLOAT64))
        if len(row):
            codes[row, lane] = codes_for(values[row, :, lane])
            self._set_codes(rows, codes)
            encoded = encode(values, codes[:, None])
        self._low[rows, :count] = encoded.low
        row, lane = np.nonzero(codes == FLOAT64)
        self._high.rows[self._high_row[rows[row], lane], :count, 0] = encoded.high[row, :, lane]

    def _set_codes(self, rows: Ints, codes: Codes) -> None:
        was = self._codes[rows] == FLOAT64
        row, lane = np.nonzero(was & (codes != FLOAT64))
        self._high.give(self._high_row[rows[row], lane])
        row, lane = np.nonzero(~was & (codes == FLOAT64))
        self._high_row[rows[row], lane] = self._high.take(len(row))
        self._codes[rows] = codes
