"""The options of a training, and the jobs that they make."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, Self

import msgspec

from deploy.data import DataSource, TextSource
from deploy.settings.locations import default_log, default_tracking
from deploy.settings.values import (
    Device,
    parse_duration_option,
    parse_feature_names,
    parse_seconds_option,
    parse_words,
)
from deploy.training.forecasting import prepare_windows, run_forecaster_training
from deploy.training.jobs import TrainJob
from deploy.training.registration import find_champion
from deploy.training.texts import (
    CHARACTERS,
    ClassifyJob,
    NextTokenJob,
    prepare_text,
    prepare_texts,
    run_classifier_training,
    run_next_token_training,
)
from model.artifacts.registry import Registry
from model.card import Precision
from model.training import distributed
from model.training.classification import ClassifyConfig, PreparedTexts
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import PreparedWindows
from model.training.next_token import NextTokenConfig, PreparedTokens
from pipeline.datasets.tables import read_text
from pipeline.windows.choices import Aggregate
from pipeline.windows.tokens import Vocabulary
from tidecast.errors import ConfigError

TEXT_NETWORK = ("hidden", "epochs", "seed", "device")
"""The options of both networks on texts."""


class TrainOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `tidecast train`, and of other commands that train; None is each task's own default."""

    name: str
    task: Literal["forecast", "classify", "next-token"] = "forecast"
    topic: str | None = None
    data: str | None = None
    bootstrap: str = msgspec.field(default_factory=default_log)
    horizon: int | None = None
    seq_len: int | None = None
    freq: str | None = None
    offset: str | None = None
    max_gap: int | None = None
    season: int | None = None
    aggregate: Aggregate | None = None
    lateness: int | None = None
    arch: Literal["blend", "lstm", "segment", "linear", "naive"] | None = None
    hidden: int | None = None
    epochs: int | None = None
    budget: float | None = None
    seed: int | None = None
    bf16: bool | None = None
    precision: Precision | None = None
    winsorise: bool | None = None
    features: tuple[str, ...] = ("value",)
    targets: tuple[str, ...] | None = None
    known: tuple[str, ...] | None = None
    non_negative: bool | None = None
    series_column: str | None = None
    time_column: str | None = None
    value_column: str | None = None
    decimal: Literal[".", ","] | None = None
    na: tuple[str, ...] | None = None
    timezone: str | None = None
    time_format: str | None = None
    max_skipped: float | None = None
    text_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    tokeniser: Literal["word", "char"] | None = None
    max_len: int | None = None
    cut: Literal["head", "tail"] | None = None
    balance: bool | None = None
    members: int | None = None
    device: Device = "auto"
    tracking_uri: str = msgspec.field(default_factory=default_tracking)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """From a command's options, as text or typed; others than these are ignored. Raises ConfigError."""
        given = {name: value for name, value in options.items() if name in cls.__struct_fields__ and value is not None}
        try:
            return msgspec.convert({name: _parsed(name, value) for name, value in given.items()}, cls, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(str(error)) from None

    def given(self, *names: str) -> dict[str, Any]:
        """Those of these options that are not None."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def given_of(self, job_class: type) -> dict[str, Any]:
        """The options that are fields of a dataclass, and not None."""
        return self.given(*(each.name for each in fields(job_class) if each.name in self.__struct_fields__))


def _parsed(name: str, value: Any) -> Any:
    """An option's value; of one whose text is a list or a duration the parsed one."""
    if name in {"features", "targets", "known"}:
        return parse_feature_names(name, value)
    if name == "na" and isinstance(value, str):
        return parse_words(value)
    if name == "lateness":
        return parse_duration_option(name, value)
    return parse_seconds_option(name, value) if name == "budget" else value


def run_training(options: TrainOptions, source: DataSource | None = None) -> dict[str, object]:
    """`tidecast train`: train, register, and summarise; `source` is what the options name, if it was opened before.

    Raises ConfigError where there is no data.
    """
    if distributed.world_size() > 1 and options.task != "forecast":
        raise ConfigError(f"torchrun: --task {options.task} trains in one process")
    if options.task == "forecast":
        return run_forecaster_training(forecast_job(options), source or data_source(options), options.tracking_uri)
    if options.task == "classify":
        return run_classifier_training(classify_job(options), text_source(options), options.tracking_uri)
    return run_next_token_training(next_token_job(options), text_file(options), options.tracking_uri)


def prepare_training(options: TrainOptions) -> PreparedWindows | PreparedTexts | PreparedTokens:
    """What `run_training` would start with; creates and registers nothing. Raises ConfigError without data."""
    if options.task == "forecast":
        job, registry = forecast_job(options), Registry(options.tracking_uri)
        history = data_source(options).history(job.freq)
        return prepare_windows(history, job, None if registry.absent else find_champion(registry, job.name))
    if options.task == "classify":
        return prepare_texts(text_source(options).corpus(), classify_job(options))
    return prepare_text(read_text(text_file(options)), next_token_job(options))


def data_source(options: TrainOptions, since: int | None = None, until: int | None = None) -> DataSource:
    """The topic or the file of measurements, and the span of time to read of it. Raises ConfigError."""
    return DataSource.of(msgspec.structs.asdict(options), since, until)


def text_source(options: TrainOptions) -> TextSource:
    """The file of labelled texts. Raises ConfigError."""
    return TextSource(
        file=text_file(options), text=options.text_column, label=options.label_column, group=options.group_column
    )


def text_file(options: TrainOptions) -> str:
    """The file that a task on texts is trained on. Raises ConfigError."""
    if options.data is None:
        raise ConfigError(f"data: --task {options.task} trains on a file, --data FILE")
    return options.data


def forecast_job(options: TrainOptions) -> TrainJob:
    """A forecaster's training. Raises ConfigError naming the field that is wrong."""
    config = ForecastConfig(**options.given_of(ForecastConfig), seconds=options.budget)
    return TrainJob(config=config, **options.given_of(TrainJob))


def classify_job(options: TrainOptions) -> ClassifyJob:
    """A classifier's training."""
    return ClassifyJob(
        vocabulary=Vocabulary(**options.given("tokeniser", "cut")),
        config=ClassifyConfig(**options.given(*TEXT_NETWORK, "balance", "members")),
        **options.given_of(ClassifyJob),
    )


def next_token_job(options: TrainOptions) -> NextTokenJob:
    """The training of a model that continues texts."""
    return NextTokenJob(
        vocabulary=msgspec.structs.replace(CHARACTERS, **options.given("tokeniser")),
        config=NextTokenConfig(**options.given(*TEXT_NETWORK)),
        **options.given_of(NextTokenJob),
    )
