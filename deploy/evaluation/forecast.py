"""`tidecast forecast`: from a file to a table and a picture of what comes next, without a broker or a server."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from deploy.console import say
from deploy.forecaster import Forecaster
from deploy.frames import known_ahead
from deploy.pictures import picture_path, say_where
from deploy.training.forecasting import TrainJob, in_words, of_table
from deploy.training.registration import watched
from model.card import Card
from model.plots import plot_ahead
from pipeline.datasets.measurements import Columns, stem_of
from pipeline.datasets.tables import read_table
from tidecast.errors import ConfigError
from tidecast.times import format_time

SHOWN_SERIES, SHOWN_STEPS = 6, 24
"""How much of the forecasts the table shows."""
WRITERS: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    ".csv": pl.DataFrame.write_csv,
    ".parquet": pl.DataFrame.write_parquet,
    ".jsonl": pl.DataFrame.write_ndjson,
}


def forecast(job: TrainJob, data: str, columns: Columns, output: Path | None, plot: Path | None) -> dict[str, object]:
    """Train on a file and forecast what follows each of its series. Raises DataError, ConfigError."""
    if output is not None and output.suffix not in WRITERS:
        raise ConfigError(f"output: {output} ends in none of {', '.join(WRITERS)}")
    table, stem = read_table(data), stem_of(data)
    history = of_table(table, columns, job.freq, stem)
    known = known_ahead(table, columns, job, stem) if job.known else None
    if known is not None:
        say(f"{', '.join(job.known)}: known for {len(known) - len(history.frame):,} rows more than have a value")
    with watched(in_words) as on_step:
        forecaster = Forecaster.of(job).learn(history, on_step)
    made = forecaster.ahead(history, known)
    card, fitted = forecaster.fitted.card, forecaster.fitted
    picture = picture_path(plot, "forecasts", job.name)
    plot_ahead(history.frame, made, card.output.targets[0], picture)
    Console(highlight=False).print(_table(made, card))
    errors = f"{card.metrics['validation_mse']:.3f}, the better naive forecast's {fitted.naive_mse:.3f}"
    say(f"error on the last {job.config.validation:.0%} of the data, in z-scores: {errors}")
    if naive := made.filter(pl.col("source") == "naive")["unique_id"].unique().sort().to_list():
        say(
            f"naive forecasts for {len(naive):,} series shorter than {card.input.seq_len} steps: {', '.join(naive[:5])}"
        )
    if output is not None:
        WRITERS[output.suffix](made, output)
    say_where(picture, output)
    return {
        "series": made["unique_id"].n_unique(),
        "horizon": card.output.horizon,
        "freq": card.input.freq,
        "seq_len": card.input.seq_len,
        **card.metrics,
        "plot": str(picture),
        "output": None if output is None else str(output),
    }


def _table(made: pl.DataFrame, card: Card) -> Table:
    """Of the first target."""
    names = made["unique_id"].unique(maintain_order=True)
    wide = made.filter(pl.col("unique_id").is_in(names[:SHOWN_SERIES].implode())).pivot(
        "unique_id", index="ds", values=made.columns[2], maintain_order=True
    )
    of = f", {card.output.targets[0]}" if len(card.output.targets) > 1 else ""
    table = Table(title=f"{card.name}{of}, {len(wide):,} steps ahead", title_justify="left")
    for column in wide.columns:
        table.add_column("time, UTC" if column == "ds" else column, justify="left" if column == "ds" else "right")
    shown = wide.sort("ds").head(SHOWN_STEPS).with_columns(pl.col("ds").dt.epoch("ms"))
    for ts, *values in shown.iter_rows():
        table.add_row(format_time(ts), *("" if value is None else f"{value:,.6g}" for value in values))
    left = (max(0, len(wide) - SHOWN_STEPS), max(0, len(names) - SHOWN_SERIES))
    if any(left):
        table.caption, table.caption_justify = f"and {left[0]:,} steps, {left[1]:,} series more", "left"
    return table
