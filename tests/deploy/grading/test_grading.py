"""What a service makes of actual values: scores, intervals, anomalies and alerts, as it writes them."""

import itertools
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from models import exported
from sharing import Shared
from waiting import Idle

from deploy.grading.reader import Selection
from deploy.models.loading import load_onnx
from deploy.models.predictor import Predictor
from deploy.operations import recompute
from deploy.operations.recompute import Served
from deploy.serving import loop
from deploy.serving.loop import Service
from deploy.serving.monitoring.stats import ServiceStats
from deploy.serving.tasks import task_for
from deploy.settings.serve import ServeConfig
from model.card import Card, InputSpec, OutputSpec
from model.residuals import LEVELS, Residuals
from pipeline import failpoint
from pipeline.formats.alerts import Alert
from pipeline.formats.events import Event, encode
from pipeline.formats.forecasts import Forecast
from pipeline.formats.paths import Paths
from pipeline.formats.scores import SeriesScores
from pipeline.log import EventLog
from pipeline.log.connect import connect
from tidecast.errors import ConfigError
from tidecast.times import format_time

MINUTE, HOUR = 60_000, 3_600_000
START, BEGIN = 1_700_000_400_000, 1_699_999_200_000
SEQ_LEN, HORIZON = 4, 2
names = itertools.count()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    with closing(connect(f"sqlite:{tmp_path_factory.mktemp('log') / 'log.db'}")) as log:
        yield log


@pytest.fixture(scope="module", autouse=True)
def _poll_without_waiting() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "POLL_S", 0.0)
        yield


def a_card(targets: tuple[str, ...] = ("value",), **settings: Any) -> Card:
    network: dict[str, Any] = {"hidden": 4, "layers": 1, "dropout": 0.0, "location": "last", "segment": 2}
    return Card(
        name="tiny",
        input=InputSpec(seq_len=SEQ_LEN, features=targets, freq="1m"),
        output=OutputSpec(horizon=HORIZON, targets=targets, **settings),
        arch="segment",
        hyperparameters=network,
        floors=dict.fromkeys(targets, 0.01),
        trained_until=0,
    )


@pytest.fixture(scope="module")
def predictor(shared: Shared) -> Predictor:
    return load_onnx(exported(shared, a_card()), "tiny.onnx", "cpu")


def with_input(predictor: Predictor, **changed: Any) -> Predictor:
    """The same model on other windows."""
    assert isinstance(predictor.card, Card)
    spec = msgspec.structs.replace(predictor.card.input, **changed)
    return replace(predictor, card=msgspec.structs.replace(predictor.card, input=spec))


class World:
    """One topic, and a group that serves a model on it."""

    def __init__(self, log: EventLog, predictor: Predictor, **settings: Any) -> None:
        name = f"graded-{next(names)}"
        self.log, self.predictor = log, predictor
        settings = {"score_every": 10 * MINUTE} | settings
        config = ServeConfig(topic=name, group=name, instance="a", **settings)
        self.config = config.with_outputs("forecasts", shadow=False)
        log.create_topic(name, 1)

    def publish(self, events: list[Event]) -> None:
        with closing(self.log.producer()) as producer:
            for event in events:
                value = encode(event) if len(event.values) == 1 else several(event)
                producer.send(self.config.topic, 0, event.series.encode(), value, timestamp=event.ts)
            producer.flush()

    def serve(self, **changed: Any) -> ServiceStats:
        config = replace(self.config, **changed)
        with closing(connect(f"sqlite:{self.log.label.removeprefix('SQLite at ')}")) as log:
            service = Service(log, self.predictor, task_for(self.predictor, config), config)
            return service.run(Idle(lambda: service.stats.taken))

    def copy_output(self, model: str) -> None:
        """Write what was forecast once more, by another model, and otherwise."""
        start, end = self.log.bounds(self.config.output)[0]
        with closing(self.log.producer()) as producer:
            for record in list(itertools.chain.from_iterable(self.log.read(self.config.output, 0, start, end))):
                made = msgspec.json.decode(record.value or b"", type=Forecast)
                value = msgspec.json.encode(msgspec.structs.replace(made, model=model, forecast=[0.0, 0.0]))
                headers = [(name, content or b"") for name, content in record.headers]
                producer.send(self.config.output, 0, record.key, value, timestamp=record.timestamp, headers=headers)
            producer.flush()

    def read(self, topic: str, message: Any) -> list[Any]:
        start, end = self.log.bounds(topic)[0]
        records = itertools.chain.from_iterable(self.log.read(topic, 0, start, end))
        return [msgspec.json.decode(record.value or b"", type=message) for record in records]

    @property
    def forecasts(self) -> list[Forecast]:
        return self.read(self.config.output, Forecast)

    @property
    def scores(self) -> list[SeriesScores]:
        return self.read(self.config.scores_topic, SeriesScores)

    @property
    def alerts(self) -> list[Alert]:
        return self.read(self.config.alerts_topic, Alert)


def several(event: Event) -> bytes:
    return msgspec.json.encode({"ts": event.ts, **dict(zip("ab", event.values, strict=True))})


def steady(count: int, first: int = 0, series: str = "s", seed: int = 0) -> list[Event]:
    values = np.random.default_rng(seed + first).normal(100, 1, count).tolist()
    return [Event(series, START + (first + at) * MINUTE, (value,)) for at, value in enumerate(values)]


def test_forecasts_say_how_sure_they_are_and_scores_add_up(log: EventLog, predictor: Predictor) -> None:
    world = World(log, predictor)
    world.publish(steady(200))
    stats = world.serve()
    forecasts = world.forecasts
    assert len(forecasts) == 200 - SEQ_LEN + 1
    assert all(each.coverage == 0.9 for each in forecasts)
    bounds = [(each.lower, each.forecast, each.upper) for each in forecasts]
    for lower, _, upper in bounds:
        assert isinstance(lower, list)
        assert isinstance(upper, list)
        assert all(low < high for low, high in zip(lower, upper, strict=True))
    scored = [part for bucket in world.scores for part in bucket.scores]
    first = sum(part.count[0] for part in scored)
    assert 200 - SEQ_LEN - 10 <= first <= 200 - SEQ_LEN
    assert 0.7 < sum(part.inside[0] for part in scored) / first < 1
    assert {part.model for part in scored} == {"tiny.onnx"}
    assert (stats.tally.graded, stats.summary()["graded"]) == (2 * (200 - SEQ_LEN) - 1,) * 2
    assert "graded" in stats.counts_line()


@pytest.mark.parametrize(
    ("off", "left", "topics"),
    [
        ({"coverage": None}, {"anomaly"}, {"scores", "alerts"}),
        ({"alerts": False}, {"coverage", "lower", "upper"}, {"scores"}),
        ({"scores": False}, {"coverage", "lower", "upper", "anomaly"}, {"alerts"}),
        ({"coverage": None, "scores": False, "alerts": False}, set(), set()),
    ],
)
def test_each_may_be_switched_off(
    log: EventLog, predictor: Predictor, off: dict[str, Any], left: set[str], topics: set[str]
) -> None:
    world = World(log, predictor, **off)
    world.publish(steady(80))
    world.serve()
    newest = world.forecasts[-1]
    said = {name for name in ("coverage", "lower", "upper", "anomaly") if getattr(newest, name) is not None}
    assert said == left
    config = world.config
    made = {
        each.removeprefix(f"{config.output}-") for each in config.other_topics if each.startswith(f"{config.output}-")
    }
    assert made == topics


def test_an_interval_begins_with_the_errors_that_the_model_had_in_validation(
    log: EventLog, predictor: Predictor
) -> None:
    quantiles = tuple(tuple(8 * (level - 0.5) for level in LEVELS) for _ in range(HORIZON))
    residuals = Residuals(levels=LEVELS, steps=(1, 2), quantiles={"value": quantiles}, typical={"value": 1.0})
    card = msgspec.structs.replace(predictor.card, residuals=residuals)
    world = World(log, replace(predictor, card=card))
    values = (1.0, 3.0, 1.0, 3.0)
    world.publish([Event("s", START + at * MINUTE, (value,)) for at, value in enumerate(values)])
    world.serve()
    (made,) = world.forecasts
    assert isinstance(made.forecast, list)
    assert isinstance(made.lower, list)
    assert isinstance(made.upper, list)
    for low, middle, high in zip(made.lower, made.forecast, made.upper, strict=True):
        # Of fewer steps than a scale needs: the typical one. 5 % and 95 % are 3.6 of it away.
        assert (middle - low, high - middle) == pytest.approx((3.6, 3.6), abs=0.02)


def test_every_target_has_bounds_and_scores(shared: Shared, log: EventLog) -> None:
    predictor = load_onnx(exported(shared, a_card(("a", "b"))), "tiny.onnx", "cpu")
    world = World(log, predictor)
    rng = np.random.default_rng(0)
    world.publish([Event("s", START + at * MINUTE, tuple(rng.normal(5, 1, 2).tolist())) for at in range(60)])
    world.serve()
    newest = world.forecasts[-1]
    assert isinstance(newest.lower, dict)
    assert set(newest.lower) == {"a", "b"}
    bucket = world.scores[0]
    assert {part.target for part in bucket.scores} == set(bucket.unscored) == set(bucket.scale) == {"a", "b"}


def test_what_is_never_negative_has_no_negative_bound(shared: Shared, log: EventLog) -> None:
    predictor = load_onnx(exported(shared, a_card(non_negative=True)), "tiny.onnx", "cpu")
    world = World(log, predictor)
    rng = np.random.default_rng(0)
    world.publish([Event("s", START + at * MINUTE, (abs(rng.normal(0, 1)),)) for at in range(60)])
    world.serve()
    lowest = min(min(each.lower) for each in world.forecasts if isinstance(each.lower, list))
    assert lowest == 0


def test_after_a_long_gap_what_was_forecast_before_it_is_graded(log: EventLog, predictor: Predictor) -> None:
    """The window is empty then: nothing is forecast until it is full, but the values are known."""
    world = World(log, with_input(predictor, max_gap=0), score_every=1000 * MINUTE)
    world.publish([*steady(10), *steady(3, first=11)])
    stats = world.serve()
    assert len(world.forecasts) == 10 - SEQ_LEN + 1
    # 6 of one step ahead and 5 of two before the gap; then the second step of the last forecast.
    assert stats.tally.graded == 6 + 5 + 1


def test_a_bucket_is_written_once_a_later_step_closes_it_and_counts_what_never_came(
    log: EventLog, predictor: Predictor
) -> None:
    world = World(log, predictor)
    events = steady(30)
    del events[15]
    world.publish(events[:18])
    world.serve()
    (first,) = world.scores
    assert first.start == START - START % (10 * MINUTE)
    world.publish(events[18:])
    world.serve()
    buckets = world.scores
    assert [each.start for each in buckets] == sorted({each.start for each in buckets})
    assert sum(each.unscored["value"][0] for each in buckets) == 1
    assert sum(each.unscored["value"][1] for each in buckets) == 1


def test_another_coverage_begins_anew_and_what_was_issued_for_the_old_one_is_not_graded_by_it(
    log: EventLog, predictor: Predictor
) -> None:
    world = World(log, predictor)
    world.publish(steady(50))
    world.serve()
    world.publish(steady(50, first=50))
    world.serve(coverage=0.5)
    newest = world.forecasts[-1]
    assert newest.coverage == 0.5
    changed = [part for bucket in world.scores if bucket.coverage == 0.5 for part in bucket.scores]
    assert sum(part.count[0] - part.intervals[0] for part in changed) >= 1


def test_alerts_tell_of_a_spike_and_of_silence(log: EventLog, predictor: Predictor) -> None:
    world = World(log, with_input(predictor, freq="1h"))
    rng = np.random.default_rng(1)
    events = []
    for at in range(900):
        for series in ("loud", "quiet"):
            if series == "quiet" and 600 <= at < 700:
                continue
            value = 100 + rng.normal(0, 1) + (80 if series == "loud" and at == 800 else 0)
            events.append(Event(series, BEGIN + at * HOUR, (value,)))
    world.publish(events)
    world.serve()
    told = [(each.series, each.kind, each.phase) for each in world.alerts]
    assert [each for each in told if each[0] == "quiet"] == [("quiet", "gap", "begin"), ("quiet", "gap", "end")]
    assert ("loud", "spike", "begin") in told
    gap = next(each for each in world.alerts if each.kind == "gap")
    assert gap.since == BEGIN + 599 * HOUR
    assert gap.text == f"quiet: no value for 4 h (since {format_time(gap.since)}); up to 1 h is usual"
    assert (gap.value, gap.usual, gap.size) == (None, HOUR, 4)
    begin, end = (each for each in world.alerts if each.kind == "spike")
    assert begin.value == events[2 * 800 - 100].values[0]
    assert begin.usual is not None
    assert begin.size == begin.value - begin.usual
    assert (begin.outcome, end.outcome) == (None, "back")
    spike = next(each for each in world.forecasts if each.series == "loud" and each.ts == BEGIN + 800 * HOUR)
    assert spike.anomaly is not None
    assert spike.anomaly > 1


def test_a_restart_does_not_take_another_group_s_forecasts_for_its_own(log: EventLog, predictor: Predictor) -> None:
    """Groups with models of their own may write to the same topics."""
    scores = []
    for disturbed in (False, True):
        world = World(log, predictor, max_batch=10)
        world.publish(steady(60))
        failpoint.arm("committed:3:fail")
        with suppress(RuntimeError):
            world.serve()
        failpoint.arm("")
        if disturbed:
            world.copy_output("other/1")
        world.serve()
        scores.append([msgspec.to_builtins(each) for each in world.scores])
    assert scores[0] == scores[1]
    assert scores[0]


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in (1.0, 0.2, 90.0):
        with pytest.raises(ConfigError, match="coverage"):
            ServeConfig(topic="t", group="g", instance="a", coverage=wrong)
    with pytest.raises(ConfigError, match="score-every"):
        ServeConfig(topic="t", group="g", instance="a", score_every=0)


def test_state_of_expired_series_is_written_out_and_forgotten(log: EventLog, predictor: Predictor) -> None:
    world = World(log, predictor, idle=30 * MINUTE)
    world.publish([*steady(25, series="gone"), *steady(100, series="stays")])
    world.serve()
    last = [each for each in world.scores if each.series == "gone"][-1]
    assert last.until == START + 24 * MINUTE
    assert last.unscored["value"] == [1, 2]  # those for the steps that never came


class Recompute:
    """`score --recompute` of a world's forecasts."""

    def __init__(self, world: World, predictor: Predictor, capsys: pytest.CaptureFixture[str]) -> None:
        self.world, self.predictor, self.capsys = world, predictor, capsys

    def __call__(self, selection: Selection, **served: Any) -> tuple[dict[str, Any], str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recompute, "load_model", lambda *_: self.predictor)
            settings = Served("tiny.onnx", "", None, None, Paths())._replace(**served)
            output = self.world.config.output
            found = recompute.report_recomputed(
                self.world.log, output, selection, "series", None, settings, as_json=False
            )
        return found, self.capsys.readouterr().out


@pytest.fixture
def recomputed(log: EventLog, predictor: Predictor, capsys: pytest.CaptureFixture[str]) -> Recompute:
    world = World(log, predictor)
    world.publish(steady(60))
    world.serve()
    return Recompute(world, predictor, capsys)


def test_a_recompute_with_another_lateness_says_that_no_window_can_be_rebuilt(recomputed: Recompute) -> None:
    found, printed = recomputed(Selection(), lateness=5 * HOUR)
    assert found["recomputed"]["forecasts_lost"] == 60 - SEQ_LEN + 1
    assert "57 forecasts left out, as their windows can't be rebuilt" in printed
    assert "nothing to grade" in found["why"]
    assert recomputed(Selection())[0]["recomputed"]["forecasts_lost"] == 0


def test_a_recompute_of_what_is_not_there_says_what_is(recomputed: Recompute) -> None:
    there = "the first are of 2023-11-14 22:20, the last of 2023-11-14 23:19"
    assert recomputed(Selection(since=START + 99 * HOUR))[0]["why"].endswith(f"2023-11-19 01:20 on: {there}")
    assert recomputed(Selection(series=frozenset("x")))[0]["why"].endswith(": no series x; there are: s")


def test_a_recompute_compares_with_what_scores_there_are(
    log: EventLog, recomputed: Recompute, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = recomputed.world.config.scores_topic
    found, printed = recomputed(Selection())
    assert f"{scores}: {found['recomputed']['equal']:,} records equal to the bit, 0 differ" in printed
    with closing(log.producer()) as producer:
        producer.send(scores, 0, None, b'{"id":1}')
        producer.flush()
    found, printed = recomputed(Selection())
    assert f"{scores}: left out: 1 schema, such as: Object missing" in printed
    assert found["recomputed"]["scores_left_out"] == {"schema": 1}
    world = World(log, predictor, scores=False)
    world.publish(steady(30))
    world.serve()
    found, printed = Recompute(world, predictor, capsys)(Selection())
    assert f"there is no {world.config.output}-scores to compare with" in printed
    assert "equal to the bit" not in printed
    assert found["recomputed"]["scores"] is None
