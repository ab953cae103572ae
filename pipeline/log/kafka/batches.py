"""How kafka-python reads batches of records, mended: of any size, and with bytes that it can't decode."""

import gzip
import io
from typing import Any

import kafka.record.memory_records
from kafka import codec, errors
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint
from kafka.serializer import Deserializer

from pipeline.log import Undecodable
from pipeline.log.limits import within_limits

MAX_UNPACKED = 32 << 20
"""The largest size of a batch after decompression. Batches of about 1 MiB, as brokers accept them, reach 20 at most."""


def _gzip_unpacked(packed: memoryview) -> bytes:
    return gzip.GzipFile(fileobj=io.BytesIO(packed)).read(MAX_UNPACKED + 1)


def _snappy_unpacked(packed: memoryview) -> bytes:
    return bytes(codec.snappy_decode(packed.tobytes()))  # at most 22 times the packed size


def _lz4_unpacked(packed: memoryview) -> bytes:
    return bytes(codec.lz4.LZ4FrameDecompressor().decompress(packed, MAX_UNPACKED + 1))


def _zstd_unpacked(packed: memoryview) -> bytes:
    with codec.zstd.ZstdDecompressor().stream_reader(io.BytesIO(packed), read_across_frames=True) as reader:
        return bytes(reader.read(MAX_UNPACKED + 1))


UNPACK = {
    DefaultRecordBatch.CODEC_GZIP: _gzip_unpacked,
    DefaultRecordBatch.CODEC_SNAPPY: _snappy_unpacked,
    DefaultRecordBatch.CODEC_LZ4: _lz4_unpacked,
    DefaultRecordBatch.CODEC_ZSTD: _zstd_unpacked,
}
"""By a batch's codec: decompresses its records, up to one byte more than MAX_UNPACKED."""


class _TolerantBatch(DefaultRecordBatch):  # type: ignore[misc]
    """Goes on where the client would raise at every poll and never get past; marks such records Undecodable.

    These are records with header keys that are not UTF-8, whose invalid bytes become "?"; and those of a batch that
    unpacks to more than MAX_UNPACKED, which have a position only: the client would unpack any amount.
    """

    ASCII = bytes(range(128)) + b"?" * 128
    _buffer: bytearray
    _pos: int
    _decompressed: bool

    def _maybe_uncompress(self) -> None:
        unpack = UNPACK.get(self.compression_type)
        if self._decompressed or unpack is None:
            super()._maybe_uncompress()
            return
        try:
            unpacked = unpack(memoryview(self._buffer)[self._pos :])
        except Exception as error:  # four libraries raise different ones, which the client does not catch
            raise errors.CorruptRecordError(
                f"the batch at offset {self.base_offset} can't be unpacked: {error}"
            ) from None
        self._buffer = bytearray(unpacked if len(unpacked) <= MAX_UNPACKED else b"")
        self._pos, self._decompressed = 0, True

    def _read_msg(self) -> Any:
        if not self._buffer:
            return self._position_only()
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            self._mend_header_keys()
            record = super()._read_msg()
            record._headers = Undecodable(record.headers, "a header key is not UTF-8")
            return record

    def _position_only(self) -> DefaultRecord:
        offset, why = self.base_offset + self._next_record_index, f"its batch unpacks to more than {MAX_UNPACKED} bytes"
        return DefaultRecord(0, offset, self.first_timestamp, self.timestamp_type, None, b"", Undecodable([], why))

    def _mend_header_keys(self) -> None:
        buffer, position = self._buffer, self._pos
        for _ in ("length", "attributes", "timestamp", "offset"):
            _, position = decode_varint(buffer, position)
        for _ in ("key", "value"):
            size, position = decode_varint(buffer, position)
            position += max(0, size)
        count, position = decode_varint(buffer, position)
        for _ in range(count):
            size, position = decode_varint(buffer, position)
            buffer[position : position + size] = buffer[position : position + size].translate(self.ASCII)
            size, position = decode_varint(buffer, position + size)
            position += max(0, size)


kafka.record.memory_records.DefaultRecordBatch = _TolerantBatch


class TruncatingDeserializer(Deserializer):  # type: ignore[misc]
    """Truncates keys and values that are too large for an event: a poll's compressed records may have any size.

    Topics in `whole` are not truncated.
    """

    def __init__(self) -> None:
        self.whole: set[str] = set()

    def deserialize(self, topic: str, _: object, data: bytes | None) -> bytes | None:
        """The key or value, truncated if too large."""
        return data if data is None or topic in self.whole else within_limits(data)
