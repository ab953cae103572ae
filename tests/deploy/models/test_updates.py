"""A new version of a model takes over while a service runs, or is rejected and the current one keeps serving."""

import gc
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from models import exported, weights_are_not_finite
from onnxruntime import InferenceSession
from sharing import Shared
from waiting import PATIENCE_S, until

from deploy.models import canary, updates
from deploy.models.admission import Admission
from deploy.models.loading import load_model
from deploy.models.predictor import Predictor
from deploy.models.updates import Complaint, ModelUpdater
from deploy.settings.locations import models
from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from model.card import Card, InputSpec, OutputSpec
from tidecast.errors import RegistryUnavailable

INPUTS, OUTPUTS = InputSpec(seq_len=12, freq="1h"), OutputSpec(horizon=4)


def card(**changed: Any) -> Card:
    fields: dict[str, Any] = {
        "name": "tiny",
        "input": INPUTS,
        "output": OUTPUTS,
        "arch": "segment",
        "hyperparameters": {"hidden": 8, "layers": 1, "dropout": 0.0, "location": "last", "segment": 4},
        "trained_until": 0,
    }
    return Card(**fields | changed)


class QueueHandler(logging.Handler):
    """Puts the level and message of each log record into a queue."""

    def __init__(self, queue: "SimpleQueue[str]") -> None:
        super().__init__()
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        self._queue.put(f"{record.levelname} {record.getMessage()}")


class World:
    """A registry whose champion an updater follows, and what the updater logs."""

    def __init__(self, folder: Path, uri: str, shared: Shared) -> None:
        self.folder, self.uri, self.shared = folder, uri, shared
        self.registry = Registry(self.uri)
        self.register(self.file())
        self.messages: SimpleQueue[str] = SimpleQueue()
        self.logger, self.handler = logging.getLogger("deploy.models.updates"), QueueHandler(self.messages)
        self.logger.addHandler(self.handler)
        self.logger.setLevel(logging.INFO)
        admission = Admission(self.uri, "cpu", "group")
        self.updater = ModelUpdater("tiny", admission, admission.start("tiny"), 0.05)

    def file(self, card_: Card | None = None, seed: int = 0) -> Path:
        run = self.folder / "run"
        run.mkdir(exist_ok=True)
        return Path(shutil.copy(exported(self.shared, card_ or card(), seed), run / "model.onnx"))

    def register(self, file: Path) -> Version:
        with self.registry.run("tiny") as training:
            return self.registry.register("tiny", training, file.parent, tags={})

    def promote(self, file: Path) -> Version:
        version = self.register(file)
        self.registry.promote(version)
        return version

    def message(self) -> str:
        return self.messages.get(timeout=PATIENCE_S)

    def wait_for(self, text: str) -> None:
        """Until a message has this; on a busy machine those of passing trouble come before it."""
        while text not in self.message():
            pass

    def tries(self) -> int:
        """How often the updater has been in trouble without a success."""
        return self.updater._tries

    def update(self) -> Predictor:
        updates: list[Predictor] = []
        until(lambda: bool(updates), meanwhile=lambda: updates.extend(filter(None, [self.updater.take()])))
        return updates[0]


@pytest.fixture
def world(tmp_path: Path, tracking_uri: str, shared: Shared, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    world = World(tmp_path, tracking_uri, shared)
    yield world
    world.updater.close()
    for thread in threading.enumerate():
        if thread.name == "model-updater":
            thread.join(PATIENCE_S)  # it would note what it found in the next test's folder
    world.logger.removeHandler(world.handler)


def edited(change: Callable[[onnx.ModelProto], None]) -> Callable[[World], Path]:
    def write(world: World) -> Path:
        path = world.file(seed=1)
        model = onnx.load(path)
        change(model)
        onnx.save(model, path)
        return path

    return write


def operator_is_unknown(model: onnx.ModelProto) -> None:
    model.graph.node[-1].op_type = "Mystery"


def hundred_times_as_slow() -> Callable[[World], Path]:
    wide = {"hidden": 768, "layers": 4, "dropout": 0.0, "location": "last", "segment": 1}
    return lambda world: world.file(card(hyperparameters=wide))


BAD: dict[str, tuple[Callable[[World], Path], str]] = {
    "not finite": (edited(weights_are_not_finite), "its output is not finite"),
    "operator": (edited(operator_is_unknown), "Mystery"),
    "horizon": (lambda world: world.file(card(output=OutputSpec(horizon=5))), "it forecasts 5 steps"),
    "windows": (lambda world: world.file(card(input=InputSpec(seq_len=16, freq="1h"))), "16 steps of 1h"),
    "features": (
        lambda world: world.file(card(input=InputSpec(seq_len=12, freq="1h", features=("value", "b")))),
        "windows",
    ),
    "slow": (hundred_times_as_slow(), "times as long as the serving model"),
}


SIMILAR = {"windows", "features", "slow"}
"""Cases whose path through the code another case covers."""


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SIMILAR)) for kind in BAD])
def test_bad_version_is_rejected_once_and_the_next_good_one_is_used(world: World, kind: str) -> None:
    make, reason = BAD[kind]
    world.promote(make(world))
    warning = world.message()
    assert warning.startswith("WARNING still serving tiny/1: tiny/2 is rejected: ")
    assert reason in warning
    assert world.updater.take() is None
    following = world.updater.following
    assert (following.refused, following.up_to_date, following.reachable) == (1, False, True)
    world.promote(world.file(seed=2))
    assert world.update().label == "tiny/3"
    until(lambda: following.up_to_date)
    assert following.refused == 1
    with pytest.raises(Empty):
        world.messages.get_nowait()


def test_file_with_another_sha256_than_registered_is_rejected(world: World) -> None:
    file = world.file(seed=1)
    version = world.register(file)
    (stored,) = (path for path in world.folder.rglob(f"{version.run_id}/**/model.onnx"))
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    world.registry.promote(version)
    assert "tiny/2 is rejected: tiny/2: its file's sha256 is not the one it was registered with" in world.message()


def test_promotion_and_rollback_are_followed(world: World) -> None:
    world.promote(world.file(seed=1))
    assert world.update().label == "tiny/2"
    assert world.registry.rollback("tiny").label == "tiny/1"
    assert world.update().label == "tiny/1"


@pytest.mark.slow
def test_replaced_model_is_freed(world: World) -> None:
    def sessions() -> int:
        gc.collect()
        return sum(type(each) is InferenceSession for each in gc.get_objects())

    serving, before = None, sessions()
    versions = [world.registry.resolve("tiny/1"), world.register(world.file(seed=1))]
    for number in range(1, 6):
        world.registry.promote(versions[number % 2])
        serving = world.update()
        assert serving.label == versions[number % 2].label
        assert sessions() - before == 1


def test_unavailable_registry_is_logged_once_and_a_cold_start_uses_the_cache(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> Version:
        raise RegistryUnavailable("nobody answers")

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "resolve", unavailable)
        assert world.message() == "WARNING still serving tiny/1: the registry is unavailable: nobody answers"
        assert not world.updater.following.reachable
        assert load_model("tiny", world.uri).label == "tiny/1"
        assert "using tiny/1, which last served as tiny" in caplog.text
        with pytest.raises(RegistryUnavailable):
            load_model("tiny", "http://127.0.0.1:9")
        with pytest.raises(RegistryUnavailable):
            load_model("tiny@challenger", world.uri)
    assert world.message() == "INFO the registry is available again; tiny resolves to tiny/1"
    until(lambda: world.updater.following.reachable)
    assert (models() / f"{world.registry.resolve('tiny/1').sha256}.onnx").is_file()


def test_trouble_is_waited_out_and_said_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(canary, "TIMEOUT_S", 0.01)
        patched.setattr(updates, "LONGEST_WAIT_S", 0.2)
        version = world.promote(world.file(seed=1))
        problem = "tiny/2 can't be taken now: its canary process did not finish within 0.01 s"
        assert world.message() == f"WARNING still serving tiny/1: {problem}"
        until(lambda: world.tries() > 3)
        assert world.messages.empty()
    assert world.update().sha256 == version.sha256
    assert world.message() == "INFO tiny/2 is available again; tiny resolves to tiny/2"
    assert not world.registry.resolve("tiny/2").refusals


def test_waits_grow_while_there_is_trouble(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    for tries in (0, 1, 2, 3, 20, 5000):
        world.updater._tries = tries
        waits.append(world.updater._wait_s())
    usual = waits[0]
    assert all(usual * 2**tries / 2 <= wait <= usual * 2**tries for tries, wait in enumerate(waits[1:4], 1))
    assert all(12 <= wait <= 30 for wait in waits[4:]), "healed within a minute"


def test_cache_wiped_during_a_swap(world: World) -> None:
    shutil.rmtree(models())
    version = world.promote(world.file(seed=1))
    assert world.update().sha256 == version.sha256
    assert (models() / f"{version.sha256}.onnx").is_file()


def complaint(sha256: str, values: float) -> Complaint:
    """A complaint about windows of one value."""
    inputs = {"x": np.full((3, 12, 1), values, np.float32)}
    return Complaint(sha256, "too many of its outputs are not finite", inputs)


def test_model_that_does_worse_than_the_one_before_is_refused_in_service(world: World) -> None:
    before, worse = world.registry.resolve("tiny"), world.promote(world.file(seed=1))
    world.update()
    world.updater.complain(complaint(worse.sha256, 1.0))
    assert world.update().sha256 == before.sha256
    line = "tiny/2 is rejected: too many of its outputs are not finite"
    assert world.message() == f"WARNING still serving tiny/2: {line}; going back to tiny/1"
    assert world.message() == f"WARNING still serving tiny/1: {line}"
    assert world.registry.resolve("tiny/2").refusals == {"": "too many of its outputs are not finite"}
    assert (world.updater.following.refused, world.updater.following.up_to_date) == (1, False)
    assert Admission(world.uri, "cpu", "group").start("tiny").label == "tiny/1"


def test_input_on_which_no_version_does_better_refuses_none(world: World) -> None:
    version = world.promote(world.file(seed=1))
    world.update()
    world.updater.complain(complaint(version.sha256, np.inf))
    world.wait_for("no earlier version does better, so it stays")
    assert not world.registry.resolve("tiny/2").refusals
    world.updater.complain(complaint("of the one before", 1.0))
    third = world.promote(world.file(seed=2))
    assert world.update().sha256 == third.sha256


def test_complaint_is_followed_once_the_registry_answers_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    worse = world.promote(world.file(seed=1))
    world.update()
    good_versions, answers = Registry.good_versions, iter([False, True])

    def unavailable_once(self: Registry, name: str, alias: str) -> Iterator[Version]:
        if not next(answers, True):
            raise RegistryUnavailable("no answer")
        return iter(good_versions(self, name, alias))

    monkeypatch.setattr(Registry, "good_versions", unavailable_once)
    world.updater.complain(complaint(worse.sha256, 1.0))
    assert "the registry is unavailable" in world.message()
    assert world.update().sha256 != worse.sha256
