"""What a training was asked for, and whose job it is."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import msgspec

from deploy.settings.defaults import DEFAULT_LOG, DEFAULT_TRACKING
from deploy.settings.values import Device, parse_duration_option, parse_feature_names, parse_seconds_option
from deploy.training.forecasting import TrainJob, prepare_windows, read_history
from deploy.training.forecasting import learn as learn_series
from deploy.training.registration import champion
from deploy.training.texts import (
    CHARACTERS,
    ClassifyJob,
    NextTokenJob,
    labelled_texts,
    learn_labels,
    learn_text,
    prepare_text,
    prepare_texts,
)
from model.artifacts.registry import Registry
from model.training import distributed
from model.training.classification import ClassifyConfig, PreparedTexts
from model.training.forecasting import ForecastConfig, PreparedWindows
from model.training.next_token import NextTokenConfig, PreparedTokens
from pipeline.datasets.measurements import Columns
from pipeline.datasets.tables import read_text
from pipeline.windows.grid import Aggregate
from pipeline.windows.tokens import Vocabulary
from tidecast.errors import ConfigError


class TrainOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `tidecast train`, and what others share with it; None is each task's own default."""

    name: str
    task: Literal["forecast", "classify", "next-token"] = "forecast"
    topic: str | None = None
    data: str | None = None
    bootstrap: str = DEFAULT_LOG
    horizon: int | None = None
    seq_len: int | None = None
    freq: str | None = None
    max_gap: int | None = None
    aggregate: Aggregate | None = None
    lateness: int | None = None
    arch: Literal["blend", "lstm", "segment", "linear", "naive"] | None = None
    hidden: int | None = None
    epochs: int | None = None
    budget: float | None = None
    seed: int | None = None
    bf16: bool | None = None
    features: tuple[str, ...] = ("value",)
    targets: tuple[str, ...] | None = None
    known: tuple[str, ...] | None = None
    non_negative: bool | None = None
    series_column: str | None = None
    time_column: str | None = None
    value_column: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    tokeniser: Literal["word", "char"] | None = None
    max_len: int | None = None
    cut: Literal["head", "tail"] | None = None
    balance: bool | None = None
    members: int | None = None
    device: Device = "auto"
    tracking_uri: str = DEFAULT_TRACKING

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """What was asked by options of these names, as they were typed. Raises ConfigError."""
        typed = {name: value for name, value in options.items() if name in cls.__struct_fields__ and value is not None}
        try:
            return msgspec.convert({name: _meant(name, value) for name, value in typed.items()}, cls, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(str(error)) from None

    def given(self, *names: str) -> dict[str, Any]:
        """Those of the options that were given."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def _meant(name: str, value: Any) -> Any:
    """The value of an option whose text has a meaning of its own."""
    if name in {"features", "targets", "known"}:
        return parse_feature_names(name, value)
    if name == "lateness":
        return parse_duration_option(name, value)
    return parse_seconds_option(name, value) if name == "budget" else value


def learn(asked: TrainOptions) -> dict[str, object]:
    """`tidecast train`: train, register, and say what came of it. Raises ConfigError where there is no data."""
    if distributed.size() > 1 and asked.task != "forecast":
        raise ConfigError(f"torchrun: --task {asked.task} trains in one process")
    if asked.task == "forecast":
        columns = source_columns(asked)
        return learn_series(forecast_job(asked), asked.topic, asked.data, columns, asked.bootstrap, asked.tracking_uri)
    if asked.task == "classify":
        return learn_labels(classify_job(asked), text_file(asked), text_columns(asked), asked.tracking_uri)
    return learn_text(next_token_job(asked), text_file(asked), asked.tracking_uri)


def prepared(asked: TrainOptions) -> PreparedWindows | PreparedTexts | PreparedTokens:
    """What `learn` would begin with; nothing is made, nor registered. Raises ConfigError where there is no data."""
    if asked.task == "forecast":
        job, registry = forecast_job(asked), Registry(asked.tracking_uri)
        history = read_history(asked.bootstrap, asked.topic, asked.data, source_columns(asked), job.freq)
        return prepare_windows(history, job, None if registry.absent else champion(registry, job.name))
    if asked.task == "classify":
        return prepare_texts(labelled_texts(text_file(asked), text_columns(asked)), classify_job(asked))
    return prepare_text(read_text(text_file(asked)), next_token_job(asked))


def text_columns(asked: TrainOptions) -> tuple[str | None, str | None, str | None]:
    """Where a file of labelled texts has text, label and group."""
    return asked.text_column, asked.label_column, asked.group_column


def text_file(asked: TrainOptions) -> str:
    """The file that a task of texts learns from. Raises ConfigError."""
    if asked.data is None:
        raise ConfigError(f"data: --task {asked.task} learns from a file, --data FILE")
    return asked.data


def source_columns(asked: TrainOptions) -> Columns:
    """Where a file of measurements has what."""
    return Columns(series=asked.series_column, ts=asked.time_column, value=asked.value_column, features=asked.features)


def forecast_job(asked: TrainOptions) -> TrainJob:
    """A forecaster's training. Raises ConfigError naming the field that is wrong."""
    return TrainJob(
        config=ForecastConfig(
            **asked.given("arch", "hidden", "epochs", "seed", "device", "bf16"), seconds=asked.budget
        ),
        **asked.given("name", "features", "targets", "known", "non_negative", "horizon", "seq_len"),
        **asked.given("freq", "max_gap", "aggregate", "lateness"),
    )


def classify_job(asked: TrainOptions) -> ClassifyJob:
    """A classifier's training."""
    return ClassifyJob(
        vocabulary=Vocabulary(**asked.given("tokeniser", "cut")),
        config=ClassifyConfig(**asked.given("hidden", "epochs", "seed", "device", "balance", "members")),
        **asked.given("name", "max_len"),
    )


def next_token_job(asked: TrainOptions) -> NextTokenJob:
    """The training of a model that continues texts."""
    return NextTokenJob(
        vocabulary=msgspec.structs.replace(CHARACTERS, **asked.given("tokeniser")),
        config=NextTokenConfig(**asked.given("hidden", "epochs", "seed", "device")),
        **asked.given("name"),
    )
