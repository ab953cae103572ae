"""Options of what is read: a history's source and columns, and the windows made of it."""

from typing import Annotated, Literal

from deploy.cli.options import option
from pipeline.windows.choices import Aggregate


def _check_timezone(zone: str | None) -> str | None:
    if zone is not None:
        from pipeline.datasets.clocks import check_timezone

        check_timezone(zone)
    return zone


class HistoryTopicOptions:
    """A topic as the source of a history."""

    topic: Annotated[str | None, option("--topic", "Read this topic's history.")] = None


class HistoryFileOptions:
    """A file as the source of a history."""

    data: Annotated[
        str | None, option("--data", "Or read a file: CSV, Parquet or JSON lines, long or wide; - reads stdin.")
    ] = None


class ColumnOptions:
    """The columns of a file of measurements, and how their cells are written."""

    series_column: Annotated[
        str | None, option("--series-column", "The column of the series' names, or several: store,item.")
    ] = None
    time_column: Annotated[
        str | None, option("--time-column", "The column of the times, or two: of the date and the time of day.")
    ] = None
    value_column: Annotated[
        str | None, option("--value-column", "The column of the values, or several, each of which is a series.")
    ] = None
    decimal: Annotated[
        Literal[".", ","] | None,
        option(
            "--decimal", "The decimal separator, . or ,; the other one may separate thousands. Found in most files."
        ),
    ] = None
    na: Annotated[
        str | None, option("--na", "More texts that stand for no value, separated by commas: -999,defective.")
    ] = None
    timezone: Annotated[
        str | None,
        option(
            "--timezone",
            "The zone of times without an offset, and of forecasts' times, such as Europe/Berlin; UTC if left out.",
            callback=_check_timezone,
        ),
    ] = None
    time_format: Annotated[
        str | None,
        option("--time-format", "How times are written, such as '%d/%m/%Y %H:%M', or an epoch's unit: s, ms, us, ns."),
    ] = None
    max_skipped: Annotated[
        float | None,
        option(
            "--max-skipped",
            "The largest share of a file's measurements, or of a topic's records, that may be left out.",
            min=0,
            max=1,
            show_default="0.05",
        ),
    ] = None


class FeatureOptions:
    """The values of an event."""

    features: Annotated[
        str, option("--features", "The values of an event, separated by commas; the first is forecast.")
    ] = "value"


def _check_freq(freq: str | None) -> str | None:
    if freq is not None:
        from pipeline.windows.steps import Grid

        Grid.parse(freq)
    return freq


class GridOptions:
    """The spacing of steps."""

    freq: Annotated[
        str | None,
        option(
            "--freq",
            "The spacing of steps: 15s, 30m, 1h, 1d, B (business days), 1mo; inferred if left out.",
            callback=_check_freq,
        ),
    ] = None


class WindowOptions(GridOptions, FeatureOptions):
    """The windows that a forecaster takes, and its forecast."""

    offset: Annotated[
        str | None,
        option(
            "--offset",
            "Where steps lie: 30m past each, 2mo (quarters from March), -1d (month ends), 6mo-1d (years to 30 June), "
            "or none; as in the data if left out.",
        ),
    ] = None
    horizon: Annotated[
        int | None, option("--horizon", "Steps to forecast; a day, or the next season, if left out.", min=1)
    ] = None
    seq_len: Annotated[int | None, option("--seq-len", "Steps to look back; inferred if left out.", min=2)] = None
    max_gap: Annotated[
        int | None,
        option("--max-gap", "The longest gap, in missing steps, that is filled.", min=0, show_default="3"),
    ] = None
    season: Annotated[int | None, option("--season", "Steps in a season; found in the data if left out.", min=2)] = None
    aggregate: Annotated[
        Aggregate | None, option("--aggregate", "How several events in a step of --freq are aggregated.")
    ] = None
    targets: Annotated[
        str | None,
        option("--targets", "The features that are forecast, separated by commas; the first if left out."),
    ] = None
    non_negative: Annotated[
        bool | None,
        option(
            "--non-negative/--no-non-negative",
            "Clip forecasts at zero; if left out, those of targets that were never negative.",
        ),
    ] = None


class LatenessOptions:
    """How long to wait for events that are out of order."""

    lateness: Annotated[
        str | None,
        option("--lateness", "How long a step waits, in event time, for late events, such as 5m.", show_default="0"),
    ] = None


class FutureCovariateOptions:
    """Features that are known for the horizon too."""

    known: Annotated[
        str | None,
        option("--known", "Features known over the horizon too, separated by commas, such as a weather forecast."),
    ] = None
