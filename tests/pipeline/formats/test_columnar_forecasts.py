"""Columnar forecasts: they are read as they were written, and as they would be in JSON."""

import io
from typing import Any

import numpy as np
import polars as pl
import pytest
from records import Given

from pipeline.formats.columnar.forecasts import MESSAGE_BYTES, Made, each_forecast, encode_columns
from pipeline.formats.forecasts import ForecastBatch, encode_forecasts
from pipeline.formats.headers import INPUT, OFFSETS, Provenance, read_headers

NOW, MINUTE = 1_700_000_000_000, 60_000


def made(count: int, targets: tuple[str, ...] = ("value",), dtype: Any = np.float32, *, graded: bool = True) -> Made:
    rng, at = np.random.default_rng(0), np.arange(count)
    values = rng.normal(size=(3, count, 24, len(targets)))
    batch = ForecastBatch(
        series=[f"s{each % 700}" for each in range(count)],
        ts=NOW + at,
        start=NOW + at + MINUTE,
        step=np.full(count, MINUTE),
        forecast=values[0].astype(dtype),
        source=["naive" if each % 9 == 0 else "model" for each in range(count)],
        model=["naive/1" if each % 9 == 0 else "m/1" for each in range(count)],
        targets=targets,
        coverage=0.9 if graded else None,
        lower=values[1] if graded else None,
        upper=values[2] if graded else None,
        anomaly=[None if each % 2 else each / 4 for each in range(count)] if graded else None,
    )
    return Made(batch, at // 2, at)


@pytest.mark.parametrize(
    "written",
    [made(3_000), made(500, graded=False), made(50, ("flow", "heat"), np.float64), made(1)],
    ids=["many", "no intervals", "two targets", "one"],
)
def test_they_are_read_as_they_would_be_in_json(written: Made) -> None:
    provenance = Provenance({INPUT: "in/3"})
    records = [
        Given(value, headers=[provenance.of(int(part.first.min()), int(part.last.max()))], offset=number)
        for number, (value, part) in enumerate(encode_columns(written))
    ]
    assert all(len(record.value or b"") <= 1.1 * MESSAGE_BYTES for record in records)
    found = list(each_forecast(records))
    assert [record.value for record in found] == list(encode_forecasts(written.batch))
    assert [record.key for record in found] == [series.encode() for series in written.batch.series]
    for record, first, last in zip(found, written.first.tolist(), written.last.tolist(), strict=True):
        headers = read_headers(record.headers)
        assert (headers[INPUT], headers[OFFSETS]) == ("in/3", f"{first}-{last}")


def test_polars_reads_them_in_one_line() -> None:
    written = made(100)
    ((value, _),) = encode_columns(written)
    frame = pl.read_ipc_stream(io.BytesIO(value))
    np.testing.assert_array_equal(frame["forecast"].to_numpy(), written.batch.forecast[:, :, 0])
    assert frame["series"].cast(pl.String).to_list() == written.batch.series
    assert frame["ts"].dt.epoch("ms").to_list() == written.batch.ts.tolist()
    assert frame["anomaly"].to_list() == written.batch.anomaly


def test_other_records_are_given_as_they_are() -> None:
    records = [Given(b"{}"), Given(None), Given(b"\xff\xff\xff\xff no stream")]
    assert list(each_forecast(records)) == records
