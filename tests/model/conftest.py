"""Windows over made-up series, and one small trained model of each architecture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sharing import Shared

from model.artifacts.export import save
from model.artifacts.versions import MODEL_FILE
from model.card import InputSpec, OutputSpec
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import FittedForecaster, fit, window_inputs

HOUR = 3_600_000
SEQ_LEN, HORIZON = 24, 6


@dataclass(frozen=True)
class Data:
    """model.windows.WindowData, by hand."""

    values: npt.NDArray[np.float64]
    observed: npt.NDArray[np.bool_]
    step: npt.NDArray[np.int64]
    gridded: bool
    ts: npt.NDArray[np.int64]
    series: npt.NDArray[np.int32]
    names: Sequence[str]
    run: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    seq_len: int


MakeData = Callable[..., Data]


def make(*series: npt.ArrayLike, seq_len: int = SEQ_LEN, holes: Sequence[int] = (), breaks: Sequence[int] = ()) -> Data:
    """Hourly series (steps,) or (steps, F) from the epoch on; `holes` are filled rows, at `breaks` a run begins."""
    parts = [np.asarray(values, np.float64).reshape(len(np.asarray(values)), -1) for values in series]
    values, sizes = np.concatenate(parts), [len(part) for part in parts]
    step = np.concatenate([np.arange(size) for size in sizes]).astype(np.int64)
    observed = np.ones(values.shape, np.bool_)
    observed[list(holes)] = False
    begins = step == 0
    begins[list(breaks)] = True
    run = np.cumsum(begins).astype(np.int32)
    full = np.flatnonzero(run[seq_len - 1 :] == run[: len(run) - seq_len + 1]) + seq_len - 1
    return Data(
        values=values,
        observed=observed,
        step=step,
        gridded=True,
        ts=step * HOUR,
        series=np.repeat(np.arange(len(sizes)), sizes).astype(np.int32),
        names=[f"s{number}" for number in range(len(sizes))],
        run=run,
        ends=full[observed[full].all(axis=1)].astype(np.int64),
        seq_len=seq_len,
    )


def waves(steps: int, level: float = 100.0, size: float = 10.0, seed: int = 0) -> npt.NDArray[np.float32]:
    """A daily wave with a little noise, (steps,)."""
    noise = np.random.default_rng(seed).normal(0, 0.1, steps)
    return (level + size * (np.sin(np.arange(steps) * np.pi / 12) + noise)).astype(np.float32)


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread: None) -> None: ...


@pytest.fixture(scope="session")
def make_data() -> MakeData:
    return make


@pytest.fixture(scope="session")
def wave_data() -> Data:
    return make(waves(400), waves(300, level=-2000.0, size=500.0, seed=1))


@pytest.fixture(scope="session", params=["lstm", pytest.param("segment", marks=pytest.mark.slow)])
def exported(request: pytest.FixtureRequest, wave_data: Data, shared: Shared) -> tuple[FittedForecaster, Path]:
    config = ForecastConfig(arch=request.param, hidden=16, epochs=2)
    fitted = fit(wave_data, InputSpec(seq_len=SEQ_LEN, freq="1h"), OutputSpec(horizon=HORIZON), config, "waves")
    inputs = window_inputs(wave_data, fitted.card, fitted.split.validation)
    made = shared.made(f"waves-{request.param}", lambda folder: save(fitted.model, fitted.card, folder, inputs))
    return fitted, made / MODEL_FILE
