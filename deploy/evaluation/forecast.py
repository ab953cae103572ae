"""`tidecast forecast`: a file's series forecast in a table and a plot, without a broker or a server."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from math import nan
from pathlib import Path

import polars as pl
from rich.table import Table

from deploy.console import digits, print_table
from deploy.data import DataSource
from deploy.forecaster import Forecaster
from deploy.frames import future_covariates, of_days
from deploy.intervals import bound_pair, without_interval
from deploy.pictures import Picture
from deploy.settings.locations import share, writable
from deploy.settings.values import FORECAST_FILES
from deploy.training.forecasting import errors_in_words, format_epoch, odd_series, say_odd_series
from deploy.training.jobs import TrainJob
from deploy.training.look_back import all_notes
from deploy.training.registration import training_progress
from model.card import Card
from model.plots.forecasts import PANELS, Outlook, history_steps, plot_outlooks, steps_ahead
from model.plots.style import moments
from model.windows import Floats
from pipeline.datasets.clocks import in_zone, on_clock
from pipeline.datasets.history import History
from pipeline.datasets.spacing import infer_freq
from tidecast.errors import ConfigError, NotPermitted, TooShort

logger = logging.getLogger(__name__)

SHOWN_SERIES, SHOWN_STEPS = 6, 24
"""Most series and steps that the table shows."""
WRITERS: dict[str, Callable[[pl.DataFrame, BytesIO], object]] = dict(
    zip(FORECAST_FILES, (pl.DataFrame.write_csv, pl.DataFrame.write_parquet, pl.DataFrame.write_ndjson), strict=True)
)


def _check_output(output: Path) -> None:
    """Raises ConfigError or NotPermitted for a file that cannot be written."""
    if output.suffix not in WRITERS:
        raise ConfigError(f"output: {output} ends in none of {', '.join(WRITERS)}")
    if not writable(output.parent):
        raise NotPermitted(f"output: {output.parent}: no permission to write there")


def _write(forecasts: pl.DataFrame, output: Path) -> None:
    """Write a file of forecasts. Raises OSError, which names it."""
    zoned = getattr(forecasts["ds"].dtype, "time_zone", None) is not None
    if zoned and output.suffix != ".parquet":
        forecasts = forecasts.with_columns(pl.col("ds").dt.strftime("%Y-%m-%dT%H:%M:%S%.f%:z"))
    written = BytesIO()
    WRITERS[output.suffix](forecasts, written)
    try:
        output.write_bytes(written.getvalue())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(output)) from None
    share(output)


def forecast_file(
    job: TrainJob, source: DataSource, output: Path | None, picture: Picture, levels: Sequence[float] = ()
) -> dict[str, object]:
    """Train on a file and forecast what follows each of its series, with intervals of these levels, ascending.

    Raises DataError, ConfigError.
    """
    if output is not None:
        _check_output(output)
    history, known, zone, clock = _read(job, source)
    forecaster = _fitted_if_long_enough(history, job)
    forecasts, card = forecaster.predict_history(history, known, levels), forecaster.fitted.card
    shown = forecasts
    if zone is not None:
        shown = forecasts.with_columns(in_zone(forecasts["ds"].dt.epoch("ms"), zone, clock=clock))
    bands = {level: bound_pair(shown.columns[2], level) for level in levels}
    print_table(_table(shown, card, bands))
    _say_errors(forecaster, forecasts)
    if output is not None:
        _write(shown, output)
    past = history.frame if zone is None or clock else on_clock(history.frame, zone)
    looks = _outlooks(past, shown.with_columns(pl.col("ds").dt.replace_time_zone(None)), card.output.targets[0], bands)
    title = _title(card, forecasts["unique_id"].n_unique())
    plot = picture.save(job.name, lambda path: plot_outlooks(looks, title, path, zone or "UTC"), output)
    return {
        "series": forecasts["unique_id"].n_unique(),
        "horizon": card.output.horizon,
        "freq": card.input.freq,
        "offset": card.input.offset,
        "timezone": zone,
        "seq_len": card.input.seq_len,
        **card.metrics,
        **odd_series(forecaster.fitted),
        "naive": forecasts.filter(pl.col("source") == "naive")["unique_id"].n_unique(),
        "levels": levels,
        "without_interval": len(without_interval(forecasts, levels)),
        "notes": all_notes(history, card.input),
        "plot": plot,
        "output": None if output is None else str(output),
    }


def _read(job: TrainJob, source: DataSource) -> tuple[History, pl.DataFrame | None, str | None, bool]:
    """The history, the future covariates, the zone of the times, and whether they are what a clock there shows."""
    history = source.history(job.freq)
    known = future_covariates(source.table(), source.columns, job, source.name) if job.known else None
    if known is not None:
        logger.info(f"{', '.join(job.known)}: known in {len(known) - len(history.frame):,} more rows than have a value")
    zone, clock = source.zone(job.freq), False
    if zone is not None and (clock := of_days(job.freq or infer_freq(on_clock(history.frame, zone)))):
        history = replace(history, frame=on_clock(history.frame, zone))
        known = None if known is None else on_clock(known, zone)
    return history, known, zone, clock


def _fitted_if_long_enough(history: History, job: TrainJob) -> Forecaster:
    """A forecaster trained on a history, or where that is too short, one of naive forecasts, and why."""
    try:
        with training_progress(format_epoch) as on_step:
            return Forecaster.from_job(job).fit_history(history, on_step)
    except TooShort as error:
        logger.warning(f"naive forecasts only: {error}")
        return Forecaster.from_job(job).keep_history(history)


def _say_errors(forecaster: Forecaster, forecasts: pl.DataFrame) -> None:
    """The errors on the validation part, and which series have naive forecasts."""
    fitted, share = forecaster.fitted, forecaster.job.config.validation
    if not fitted.card.metrics:
        return
    say_odd_series(fitted)
    logger.info(f"on the last {share:.0%} of the data, squared, in z-scores: {errors_in_words(fitted.card)}")
    if naive := forecasts.filter(pl.col("source") == "naive")["unique_id"].unique().sort().to_list():
        steps, shown = fitted.card.input.seq_len, ", ".join(naive[:5])
        logger.info(f"naive forecasts for {len(naive):,} series shorter than {steps} steps: {shown}")


def _title(card: Card, series: int) -> str:
    """What a picture shows."""
    some = f", {PANELS} of {series:,} series" if series > PANELS else ""
    return f"{card.name}: {card.output.targets[0]}, {steps_ahead(card)}{some}"


def _outlooks(
    past: pl.DataFrame, ahead: pl.DataFrame, target: str, bands: Mapping[float, tuple[str, str]]
) -> list[Outlook]:
    """The first series' forecasts, each after the end of its history, with its intervals."""
    looks, widest_first = [], {f"{level:g} %": bands[level] for level in sorted(bands, reverse=True)}
    for name in ahead["unique_id"].unique(maintain_order=True).to_list()[:PANELS]:
        rows = ahead.filter(pl.col("unique_id") == name).sort("ds")
        before = past.filter(pl.col("series") == name).sort("ts").tail(history_steps(len(rows)))
        look = Outlook(
            title=name,
            unit=target,
            times=moments(before["ts"]),
            values=_reals(before[target]),
            ahead=rows["ds"].cast(pl.Datetime("ms")).to_numpy(),
            forecast=_reals(rows[rows.columns[2]]),
            bands={label: (_reals(rows[low]), _reals(rows[up])) for label, (low, up) in widest_first.items()},
            is_naive=rows["source"][0] == "naive",
        )
        looks.append(look)
    return looks


def _reals(column: pl.Series) -> Floats:
    """A column's numbers, nan where there is none."""
    return column.cast(pl.Float64).fill_null(nan).to_numpy()


def _table(forecasts: pl.DataFrame, card: Card, bands: Mapping[float, tuple[str, str]]) -> Table:
    """The first target's forecasts, a column for each series; of a single one with its intervals."""
    names = forecasts["unique_id"].unique(maintain_order=True)
    wide = forecasts.filter(pl.col("unique_id").is_in(names[:SHOWN_SERIES].implode())).pivot(
        "unique_id", index="ds", values=forecasts.columns[2], maintain_order=True
    )
    target = f", {card.output.targets[0]}" if len(card.output.targets) > 1 else ""
    table = Table(title=f"{card.name}{target}, {len(wide):,} steps ahead", title_justify="left")
    zone = getattr(wide["ds"].dtype, "time_zone", None)
    for column in wide.columns:
        table.add_column(
            f"time, {zone or 'UTC'}" if column == "ds" else column, justify="left" if column == "ds" else "right"
        )
    written = pl.col("ds").dt.strftime("%Y-%m-%d %H:%M%:z" if zone else "%Y-%m-%d %H:%M")
    shown = wide.sort("ds").head(SHOWN_STEPS).with_columns(written)
    digits_of = [digits(column.drop_nulls().to_list()) for column in shown.drop("ds")]
    intervals = _interval_cells(forecasts, bands, digits_of[0]) if len(names) == 1 else {}
    for heading in intervals:
        table.add_column(heading, justify="right")
    for place, (time, *values) in enumerate(shown.iter_rows()):
        pairs = zip(values, digits_of, strict=True)
        cells = ("" if value is None else f"{value:,.{count}g}" for value, count in pairs)
        table.add_row(time, *cells, *(column[place] for column in intervals.values()))
    hidden = (max(0, len(wide) - SHOWN_STEPS), max(0, len(names) - SHOWN_SERIES))
    if any(hidden):
        table.caption, table.caption_justify = f"and {hidden[0]:,} steps, {hidden[1]:,} series more", "left"
    return table


def _interval_cells(
    forecasts: pl.DataFrame, bands: Mapping[float, tuple[str, str]], count: int
) -> dict[str, list[str]]:
    """A series' intervals in this many digits, by heading, the narrowest first."""
    rows = forecasts.sort("ds")
    return {
        f"{level:g} %": [
            "" if low is None or high is None else f"{low:,.{count}g} to {high:,.{count}g}"
            for low, high in rows.select(pair).iter_rows()
        ]
        for level, pair in bands.items()
    }
