"""The look-back, the horizon and the gaps to fill, as they suit a history where a job leaves them open."""

import logging

import msgspec
import numpy as np
import polars as pl

from deploy.settings.serve import window_config
from deploy.training.jobs import ALIGNED, TrainJob
from model.card import InputSpec, OutputSpec
from model.evaluation.seasonality import find_season
from model.evaluation.splits import last_share
from model.seasons import seasonal_lags
from pipeline.datasets.history import History, windows
from pipeline.datasets.spacing import infer_freq, infer_offset, on_weekends
from pipeline.datasets.uneven import check_days, check_phases, check_steps, remarks
from pipeline.windows.sliding import Codes, SlidingWindows
from tidecast.freq import Freq, steps_in_words

logger = logging.getLogger(__name__)

LOOK_BACK_SEASONS, SHORT_SERIES_SEASONS = 15, 3
DEFAULT_HORIZON = 12
MAX_HORIZON = 96
MAX_SEQ_LEN = 720
"""The longest horizon and look-back that are inferred, in steps or seasons; options may be longer.

The look-back on a short series is up to half of it, if that is at most three of its shortest seasons.
"""


def infer_specs(history: History, job: TrainJob) -> tuple[InputSpec, OutputSpec]:
    """The model's inputs and outputs: what the job sets, and for the rest what suits the history's spacing."""
    freq, offset = infer_grid(history, job)
    inputs = InputSpec(
        seq_len=2,
        features=job.features,
        known=job.known,
        freq=freq,
        offset=offset,
        aggregate=job.aggregate,
        lateness=job.lateness or 0,
    )
    if job.max_gap is not None:
        inputs = msgspec.structs.replace(inputs, max_gap=job.max_gap)
    data = windows(history, window_config(inputs))
    training = last_share(data, job.config.validation, job.horizon or 1).validation
    inputs = with_season(inputs, data, job, training)
    longest = max(history.frame["series"].value_counts()["count"].to_list())
    season = min(seasonal_lags(inputs.freq).values(), default=inputs.season or DEFAULT_HORIZON)
    horizon = job.horizon or max(1, min(season, MAX_HORIZON, int(longest * job.config.validation)))
    room, unit = _longest_look_back(longest, inputs)
    run = data.run
    for gap in [] if job.max_gap is not None else _wider_gaps(inputs.max_gap, unit):
        if 2 * _window_count(run, horizon, horizon) >= len(run):
            break
        inputs = msgspec.structs.replace(inputs, max_gap=gap)
        run = windows(history, window_config(inputs)).run
    while job.horizon is None and horizon > 1 and 8 * _window_count(run, horizon, horizon) < len(run):
        horizon //= 2
    outputs = OutputSpec(horizon=horizon, targets=job.forecast, non_negative=_non_negative(history, job))
    return msgspec.structs.replace(inputs, seq_len=job.seq_len or _look_back(run, room, unit, horizon)), outputs


def infer_grid(history: History, job: TrainJob) -> tuple[str | None, str | None]:
    """The spacing of the steps and where they lie, as set or as in the data; said in a line.

    Raises DataError where the data has no one spacing.
    """
    freq, offset, frame = job.freq, job.offset, history.frame
    if freq is None:
        check_steps(frame)
        freq = infer_freq(frame)
        check_days(frame, freq)
    if offset is None:
        offset = infer_offset(frame, freq, job.aggregate is not None)
        if freq is not None and (Freq.parse(freq).months or Freq.parse(freq).business) and job.aggregate is None:
            check_phases(frame, freq, offset)
    offset = None if freq is None or offset == ALIGNED else offset
    logger.info(f"steps: {steps_in_words(freq, offset)}")
    for note in remarks(frame, freq, offset, job.aggregate is not None):
        logger.info(note)
    if freq is not None and Freq.parse(freq).business:
        away = on_weekends(history.frame["ts"].to_numpy(), offset)
        said = f"{away:,} events on weekends count as of the Friday before" if away else "weekends are no steps"
        logger.info(f"{said}; --freq 1d has them as steps")
    return freq, offset


def all_notes(history: History, inputs: InputSpec) -> list[str]:
    """What to know of how a history was read, and of its times on the grid."""
    return [*history.notes, *remarks(history.frame, inputs.freq, inputs.offset, inputs.aggregate is not None)]


def _non_negative(history: History, job: TrainJob) -> bool | tuple[str, ...]:
    """Whether forecasts are clipped at zero, or of which targets: those that never were below it, if not set."""
    if job.non_negative is not None:
        return job.non_negative
    least = history.frame.select(pl.col(job.forecast).min()).row(0)
    never = tuple(name for name, value in zip(job.forecast, least, strict=True) if value is not None and value >= 0)
    if never:
        logger.info(f"{', '.join(never)}: never negative, nor are the forecasts; --no-non-negative allows them to be")
    return len(never) == len(job.forecast) or never or False


def with_season(inputs: InputSpec, data: SlidingWindows, job: TrainJob, before: int) -> InputSpec:
    """With the season that the job sets, or that of the first target before a time, epoch milliseconds."""
    calendar = msgspec.structs.replace(inputs, season=None)
    column = inputs.features.index(job.forecast[0])
    found = job.season or find_season(data, column, before, calendar.lags.values())
    return msgspec.structs.replace(calendar, season=found)


def _longest_look_back(longest: int, inputs: InputSpec) -> tuple[int, int]:
    """The longest look-back on a series of so many steps, and the unit that it is a multiple of: a season if it can."""
    lags = inputs.lags.values()
    share = max(longest // 4, min(longest // 2, SHORT_SERIES_SEASONS * next(iter(lags), 0)))
    cycle = max(seasonal_lags(inputs.freq).values(), default=inputs.season or MAX_SEQ_LEN)
    room = min(MAX_SEQ_LEN, share, LOOK_BACK_SEASONS * cycle)
    unit = next((lag for lag in lags if lag <= room), 1)
    return room // unit * unit, unit


def _wider_gaps(least: int, season: int) -> list[int]:
    """Gaps to try to fill, in steps: more than the least, up to a sixth of a season."""
    return [gap for gap in (2 * least, 4 * least, 8 * least) if 6 * gap <= season]


def _look_back(run: Codes, longest: int, unit: int, horizon: int) -> int:
    """The longest look-back, in whole units up to `longest`, that leaves half of the windows of the shortest.

    `run` (T,) numbers the steps that follow each other without a gap.
    """
    least = max(horizon, 2)
    tried = range(longest, least, -unit)
    enough = max(1, _window_count(run, least, horizon) / 2)
    return next((seq_len for seq_len in tried if _window_count(run, seq_len, horizon) >= enough), least)


def _window_count(run: Codes, seq_len: int, horizon: int) -> int:
    """How many windows with their horizon fit into such runs."""
    return int(np.maximum(np.bincount(run) - seq_len - horizon + 1, 0).sum())
