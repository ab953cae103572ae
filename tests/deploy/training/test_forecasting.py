import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from deploy.data import DataSource
from deploy.training.forecasting import inherit_windows, train
from deploy.training.jobs import TrainJob
from deploy.training.look_back import infer_specs
from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from model.card import InputSpec, OutputSpec
from pipeline.datasets.history import History, from_frame
from pipeline.formats.events import Event, encode
from pipeline.log.connect import connect
from pipeline.windows.steps import Grid
from tidecast.errors import ConfigError

START = 1_700_000_000_000


def history(times: Sequence[int], series: int = 1, **values: float) -> History:
    rows = [(f"s{number}", ts) for number in range(series) for ts in times]
    frame = pl.DataFrame(rows, ["series", "ts"], orient="row")
    return from_frame(frame.with_columns(**{name: pl.lit(value) for name, value in (values or {"value": 1.0}).items()}))


def steps(freq: str, count: int) -> list[int]:
    grid = Grid.parse(freq)
    return [grid.time(grid.index(START) + number) for number in range(count)]


@pytest.mark.parametrize(
    ("freq", "count", "seq_len", "horizon"),
    [
        ("30m", 10_000, 720, 48),
        ("1h", 10_000, 720, 24),
        ("6h", 10_000, 420, 4),
        ("1d", 10_000, 105, 7),
        ("1w", 10_000, 676, 52),
        ("1mo", 10_000, 180, 12),
        ("1y", 400, 100, 12),
        ("1m", 10_000, 720, 96),
        ("15s", 10_000, 720, 96),
        ("11m", 10_000, 720, 12),
        ("1h", 400, 96, 24),
        ("1mo", 144, 36, 12),
        ("1h", 60, 24, 8),
    ],
)
def test_freq_look_back_and_horizon_are_inferred_from_the_data(
    freq: str, count: int, seq_len: int, horizon: int
) -> None:
    inputs, outputs = infer_specs(history(steps(freq, count)), TrainJob(name="m"))
    assert (inputs.freq, inputs.seq_len, outputs.horizon) == (freq, seq_len, horizon)


def test_irregular_data_has_no_freq() -> None:
    times = [START + 1000 * number**2 for number in range(1000)]
    inputs, outputs = infer_specs(history(times), TrainJob(name="m"))
    assert (inputs.freq, inputs.seq_len, outputs.horizon) == (None, 250, 12)


def test_gaps_and_a_second_series_do_not_change_the_freq() -> None:
    times = [ts for number, ts in enumerate(steps("30m", 2000)) if number % 5]
    assert infer_specs(history(times, series=2), TrainJob(name="m"))[0].freq == "30m"


def test_the_look_back_fits_between_gaps() -> None:
    times = [ts for number, ts in enumerate(steps("1h", 2000)) if number % 120 >= 8]
    inputs, _ = infer_specs(history(times), TrainJob(name="m", freq="1h"))
    assert inputs.seq_len == 48, "of 112 hours between two breaks; 72 would leave less than half of the windows"
    assert infer_specs(history(times), TrainJob(name="m", freq="1h", max_gap=8))[0].seq_len == 456


def test_many_gaps_raise_max_gap_and_shorten_the_horizon() -> None:
    times = [ts for number, ts in enumerate(steps("10m", 3000)) if number % 9 < 2]
    inputs, _ = infer_specs(history(times), TrainJob(name="m", freq="10m"))
    assert inputs.max_gap == 12, "holes of 7 steps, where 3 and 6 would leave nothing"
    times = [ts for number, ts in enumerate(steps("10m", 3000)) if number % 150 < 60]
    inputs, outputs = infer_specs(history(times), TrainJob(name="m", freq="10m"))
    assert outputs.horizon < 60
    assert inputs.seq_len + outputs.horizon <= 60
    with_horizon, _ = infer_specs(history(times), TrainJob(name="m", freq="10m", horizon=96, max_gap=3))
    assert (with_horizon.max_gap, with_horizon.seq_len) == (3, 96)


def test_settings_of_the_job_override_inference() -> None:
    job = TrainJob(name="m", freq="2h", horizon=5, seq_len=11)
    inputs, outputs = infer_specs(history(steps("1h", 1000)), job)
    assert (inputs.freq, inputs.seq_len, outputs.horizon) == ("2h", 11, 5)
    inputs, outputs = infer_specs(history(steps("1h", 1000)), TrainJob(name="m", horizon=10))
    assert (inputs.seq_len, outputs.horizon) == (240, 10), "a quarter of the history, in whole days"


def test_the_first_feature_is_the_default_target() -> None:
    job = TrainJob(name="m", features=("flow", "pressure"))
    inputs, outputs = infer_specs(history(steps("1h", 1000), flow=1.0, pressure=2.0), job)
    assert (inputs.features, outputs.targets) == (("flow", "pressure"), ("flow",))


def test_targets_must_be_features() -> None:
    job = TrainJob(name="m", features=("flow", "pressure", "heat"), targets=("heat", "flow"), non_negative=True)
    _, outputs = infer_specs(history(steps("1h", 1000), flow=1.0, pressure=2.0, heat=3.0), job)
    assert (outputs.targets, outputs.non_negative) == (("heat", "flow"), True)
    with pytest.raises(ConfigError, match=r"^targets: 'rain' is not one of the features flow, heat$"):
        TrainJob(name="m", features=("flow", "heat"), targets=("rain",))


def test_a_new_version_inherits_the_champion_s_windows() -> None:
    inputs = InputSpec(seq_len=77, freq="1h", max_gap=5, aggregate="mean", lateness=9)
    written = {"input": inputs, "output": OutputSpec(horizon=7)}
    offsets = {name: msgspec.json.encode(spec).decode() for name, spec in written.items()}
    serving = Version("m", "3", "run", "0" * 64, offsets)
    again, outputs = infer_specs(history(steps("1h", 1000)), inherit_windows(TrainJob(name="m"), serving))
    assert (again, outputs.horizon) == (inputs, 7)
    asked = TrainJob(name="m", seq_len=50, horizon=10)
    longer, outputs = infer_specs(history(steps("1h", 1000)), inherit_windows(asked, serving))
    assert (longer.seq_len, longer.max_gap, outputs.horizon) == (50, 5, 10)
    for other in (TrainJob(name="m", freq="2h"), TrainJob(name="m", features=("flow",))):
        assert inherit_windows(other, serving) == other
    assert inherit_windows(asked, None) == inherit_windows(asked, replace(serving, tags={})) == asked


def waves(count: int, period: float, freq: str | None) -> History:
    """A series with this period in steps, and a little noise; without a freq at odd times."""
    numbers = np.random.default_rng(0)
    values = np.sin(np.arange(count) * 2 * np.pi / period) + 0.1 * numbers.normal(size=count)
    times = steps(freq, count) if freq else (START + np.cumsum(numbers.integers(1, 99_999, count))).tolist()
    return from_frame(pl.DataFrame({"series": "s", "ts": times, "value": values}))


@pytest.mark.parametrize(
    ("freq", "period", "season", "seq_len"), [("1s", 120, 120, 480), (None, 40, 40, 480), ("1h", 24, None, 480)]
)
def test_the_season_is_the_data_s_own_and_the_look_back_whole_ones_of_it(
    freq: str | None, period: float, season: int | None, seq_len: int
) -> None:
    inputs, _ = infer_specs(waves(2000, period, freq), TrainJob(name="m", freq=freq, horizon=10))
    assert (inputs.season, inputs.seq_len) == (season, seq_len)


def test_a_season_that_is_set_or_the_champion_s_is_not_searched_for() -> None:
    inputs, outputs = infer_specs(waves(2000, 120, "1s"), TrainJob(name="m", freq="1s", season=100))
    assert (inputs.season, inputs.season_lag) == (100, 100)
    tags = {name: msgspec.json.encode(each).decode() for name, each in (("input", inputs), ("output", outputs))}
    assert inherit_windows(TrainJob(name="m"), Version("m", "3", "run", "0" * 64, tags)).season == 100


def test_an_empty_history_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no events to train on: the history is empty"):
        train(history([]), TrainJob(name="m"), Registry(f"sqlite:///{tmp_path}/mlflow.db"))


def test_a_topic_is_read_for_a_span_of_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "deploy")
    address = f"sqlite:{tmp_path}/log.db"
    with closing(connect(address)) as log, closing(log.producer()) as producer:
        log.create_topic("power", 1)
        for number in range(10):
            producer.send("power", 0, b"a", encode(Event("a", START + number, (1.0,))), timestamp=START + number)
        producer.flush()
    read = DataSource(topic="power", bootstrap=address, since=START + 7).history()
    assert len(read.frame) == 3
    assert "3 events were written in that time; the topic has 10 records" in caplog.text


def test_an_invalid_model_name_is_rejected_by_the_job() -> None:
    with pytest.raises(ValueError, match="name: 'a/b'"):
        TrainJob(name="a/b")
