"""The hourly level of a harbour, and the training of a model of it that takes a second."""

import numpy as np
import numpy.typing as npt
import polars as pl

from deploy.lifecycle.retrain import RetrainJob
from deploy.training.jobs import TrainJob
from model.training.forecast_config import ForecastConfig
from pipeline.datasets.history import History, from_frame

HOUR, START = 3_600_000, 1_704_067_200_000
QUICK, SMALL = ForecastConfig(arch="linear"), ForecastConfig(arch="segment", hidden=16, epochs=12)
JOB = RetrainJob(train=TrainJob(name="tides", horizon=6, seq_len=48, freq="1h", config=QUICK))


def tide(hours: int, turn: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """A daily tide that from some hour on comes twice a day and higher."""
    hour = np.arange(hours)
    before, after = np.sin(hour * np.pi / 12), 2 * np.sin(hour * np.pi / 6)
    return np.where(hour < turn, before, after) + np.random.default_rng(seed).normal(0, 0.5, hours) + 10


def history(hours: int, turn: int = 10**9) -> History:
    values = tide(hours, turn)
    ts = START + HOUR * np.arange(hours)
    return from_frame(pl.DataFrame({"series": ["harbour"] * hours, "ts": ts, "value": values}))
