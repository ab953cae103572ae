"""Columnar messages as other libraries write them."""

import io
from typing import Any

import polars as pl
import pyarrow.ipc


def by_polars(frame: pl.DataFrame, *, views: bool = True, compression: Any = "uncompressed") -> bytes:
    """A frame as a stream, its texts as views or as plain ones."""
    buffer, level = io.BytesIO(), pl.CompatLevel.newest() if views else pl.CompatLevel.oldest()
    frame.write_ipc_stream(buffer, compat_level=level, compression=compression)
    return buffer.getvalue()


def by_pyarrow(*batches: Any, **options: Any) -> bytes:
    """Record batches of one schema as a stream."""
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, batches[0].schema, options=pyarrow.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def points(rows: list[tuple[Any, Any, Any]], **schema: Any) -> pl.DataFrame:
    """Rows of series, ts and value."""
    types = {"series": pl.String, "ts": pl.Int64, "value": pl.Float64} | schema
    return pl.DataFrame(rows, types, orient="row")
