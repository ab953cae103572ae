"""The one door for models: what is refused stays so, for every member and after a restart; trouble is no verdict."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest
from models import exported
from sharing import Shared
from waiting import until

from deploy.lifecycle.versions import print_versions
from deploy.models import canary
from deploy.models.admission import Admission, Current
from deploy.models.canary import rejection_reason
from deploy.operations.check import check
from deploy.serving.connections import Connections
from deploy.settings.locations import models
from deploy.settings.serve import ServeConfig
from model.artifacts.registry import Registry
from model.artifacts.versions import REFUSED, Version
from model.card import InputSpec, OutputSpec
from model.training.forecast_config import ForecastConfig, forecast_card
from pipeline.log.connect import connect
from tidecast.errors import CorruptModel, ModelRejected, ModelUnavailable, RegistryUnavailable, TidecastError

HEADER = '<ir_version: 10, opset_import: ["" : 20]>'
PLAIN = """m (float[batch, 12, 1] x) => (float[batch, {horizon}] y)
<int64[1] from = {{{last}}}, int64[1] to = {{12}}, int64[1] one = {{1}}, int64[1] two = {{2}},
 float times = {{{times}}}, int64[1] many = {{{many}}}> {{
    flat = Squeeze (x, two)
    numbers = ConstantOfShape (many)
    nought = ReduceMax <keepdims = 0> (numbers)
    part = Slice (flat, from, to, one)
    y = {formula}
}}"""


def model(times: float = 1.0, *, horizon: int = 4, formula: str = "Mul (part, times)", many: int = 1) -> bytes:
    """A model (B,12,1) -> (B,horizon): the last values, times a number. The formula may have `nought`, which takes
    memory for so `many` numbers."""
    graph = PLAIN.format(times=times, horizon=horizon, last=12 - horizon, formula=formula, many=many)
    return bytes(onnx.parser.parse_model(HEADER + graph).SerializeToString())


NOT_FINITE = model(0.0, formula="Div (part, times)")


class Machine:
    """A folder of its own, as on another machine, and a registry that all share."""

    def __init__(self, folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.uri, self._monkeypatch = folder, uri, monkeypatch
        self.registry = Registry(uri)

    def register(self, data: bytes, name: str = "m") -> Version:
        run = self.folder / "run"
        run.mkdir(exist_ok=True)
        (run / "model.onnx").write_bytes(data)
        with self.registry.run(name) as training:
            return self.registry.register(name, training, run, tags={})

    def promote(self, data: bytes) -> Version:
        version = self.register(data)
        self.registry.promote(version)
        return version

    def member(self, name: str, group: str = "g") -> Admission:
        """A member of the group that runs on the machine of this name, as of its next start."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        self._monkeypatch.chdir(home)
        return Admission(self.uri, "cpu", group)


@pytest.fixture
def machine(tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, tracking_uri, monkeypatch)


@pytest.fixture
def no_canary(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, no canary process may be needed."""

    def started(*_: object) -> str:
        raise AssertionError("a canary was started")

    return lambda: monkeypatch.setattr("deploy.models.admission.rejection_reason", started)


def unavailable(*_: object) -> Version:
    raise RegistryUnavailable("nobody answers")


def test_refused_version_is_refused_by_every_member_and_the_last_good_one_starts(
    machine: Machine, no_canary: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    good = machine.register(model())
    assert machine.member("a").start("m").label == "m/1"
    bad = machine.promote(NOT_FINITE)
    first = machine.member("a")
    assert first.start("m").sha256 == good.sha256
    reason = "m/2 is rejected: its output is not finite"
    assert caplog.messages == [f"{reason}; using m/1, the last good one of m"]
    assert machine.registry.resolve("m/2").tags[REFUSED] == f"{bad.sha256} its output is not finite"
    with pytest.raises(ModelRejected, match=reason):
        first.start("m/2")
    caplog.clear()
    assert machine.member("b").start("m").label == "m/1", "scaled out, with an empty cache"
    assert caplog.messages == [f"{reason}; using m/1, the last good one of m"]
    no_canary()
    assert machine.member("a").start("m").label == machine.member("b").start("m").label == "m/1", "restarted"


def test_refusal_holds_without_the_registry_and_its_tag(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, no_canary: Callable[[], None]
) -> None:
    from mlflow import MlflowClient

    version = machine.register(NOT_FINITE)
    with pytest.raises(ModelRejected):
        machine.member("a").start("m")
    no_canary()
    MlflowClient(machine.uri, machine.uri).delete_model_version_tag("m", "1", REFUSED)
    assert not machine.registry.resolve("m/1").refusals
    with pytest.raises(ModelRejected, match="m/1 is rejected: its output is not finite"):
        machine.member("a").start("m")
    assert machine.registry.resolve("m/1").refusals == {"": "its output is not finite"}, "tagged again"
    admission = machine.member("b")
    with suppress(ModelRejected):
        admission.start("m")
    monkeypatch.setattr(Registry, "resolve", unavailable)
    with pytest.raises(ModelRejected):
        machine.member("b").admit(version)


def test_refusal_that_cannot_be_written_is_kept_in_memory(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though there is a note that the same file has passed its canary."""
    version, admission = machine.register(model()), machine.member("a")
    admission.start("m")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("deploy.models.verdicts.write_atomically", full)
    monkeypatch.setattr(Registry, "refuse", unavailable)
    admission.refuse(version, "half of its outputs were not finite")
    with pytest.raises(ModelRejected, match="half of its outputs"):
        admission.admit(version)


@pytest.mark.slow
def test_default_blend_may_follow_a_naive_champion(shared: Shared) -> None:
    inputs, outputs = InputSpec(seq_len=720, freq="1h"), OutputSpec(horizon=96)
    naive, blend = (
        exported(shared, forecast_card(inputs, outputs, ForecastConfig(arch=arch), "m", 100_000)).read_bytes()
        for arch in ("naive", "blend")
    )
    assert rejection_reason(blend, naive) == ""


def test_same_label_with_another_file_is_another_model(machine: Machine) -> None:
    from mlflow import MlflowClient

    machine.register(NOT_FINITE)
    with pytest.raises(ModelRejected):
        machine.member("a").start("m")
    MlflowClient(machine.uri, machine.uri).delete_registered_model("m")
    good = machine.register(model())
    started = machine.member("a").start("m")
    assert (started.label, started.sha256) == ("m/1", good.sha256)
    assert started.provenance["tidecast.model"] == good.sha256
    MlflowClient(machine.uri, machine.uri).delete_registered_model("m")
    machine.register(model(2.0))
    assert machine.member("a").start("m").sha256 != good.sha256
    assert (models() / f"{good.sha256}.onnx").is_file(), "the file of a forecast is still there"


def test_tag_of_another_file_is_no_refusal(machine: Machine) -> None:
    version = machine.register(model())
    machine.registry.refuse(Version(**{**vars_of(version), "sha256": "0" * 64}), "it was another file")
    assert machine.member("a").start("m").label == "m/1"


def vars_of(version: Version) -> dict[str, Any]:
    return {name: getattr(version, name) for name in Version.__slots__}


def test_other_windows_are_refused_for_the_group_only(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.register(model())
    admission = machine.member("a")
    serving = admission.start("m")
    longer = machine.promote(model(horizon=5))
    with pytest.raises(ModelRejected, match="it forecasts 5 steps"):
        admission.admit(longer, Current(serving.card, serving.data))
    assert machine.member("b").start("m").label == "m/1", "another member of the group"
    assert "m/2 is rejected: it forecasts 5 steps of value; switching to it takes" in caplog.messages[-1]
    assert machine.member("b", "other").start("m").label == "m/2"


def test_earlier_champion_starts_if_no_member_has_ever_served(machine: Machine) -> None:
    machine.register(model())
    machine.promote(model(2.0))
    machine.promote(NOT_FINITE)
    assert machine.member("a").start("m").label == "m/2"


def test_file_is_refused_by_its_digest(machine: Machine, no_canary: Callable[[], None]) -> None:
    admission = machine.member("a")
    Path("bad.onnx").write_bytes(NOT_FINITE)
    with pytest.raises(ModelRejected, match=r"^bad\.onnx is rejected: its output is not finite$"):
        admission.start("bad.onnx")
    no_canary()
    Path("copy.onnx").write_bytes(NOT_FINITE)
    with pytest.raises(ModelRejected, match=r"^copy\.onnx is rejected: its output is not finite$"):
        machine.member("a").start("copy.onnx")


@pytest.mark.parametrize("data", [model(), NOT_FINITE], ids=["good", "refused"])
def test_one_canary_is_enough_for_all_that_start_at_once(
    data: bytes, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[bytes]()

    def counted(candidate: bytes, serving: bytes | None) -> str:
        tried.append(candidate)
        return rejection_reason(candidate, serving)

    monkeypatch.setattr("deploy.models.admission.rejection_reason", counted)
    workers = [machine.member("a") for _ in range(4)]
    Path("m.onnx").write_bytes(data)

    def started(worker: Admission) -> str:
        try:
            return worker.start("m.onnx").label
        except ModelRejected as error:
            return str(error)

    with ThreadPoolExecutor(len(workers)) as pool:
        said = set(pool.map(started, workers))
    assert tried == [data]
    assert said == {"m.onnx is rejected: its output is not finite" if data == NOT_FINITE else "m.onnx"}


def test_listing_shows_the_refusal(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.register(NOT_FINITE)
    with suppress(ModelRejected):
        machine.member("a").start("m")
    (version,) = print_versions("m", machine.uri)["models"]["m"]  # type: ignore[index]
    assert version["refused"] == {"": "its output is not finite"}
    assert "refused: its output" in " ".join(capsys.readouterr().out.split())


def test_check_knows_the_refusal(machine: Machine) -> None:
    machine.register(NOT_FINITE)
    with suppress(ModelRejected):
        machine.member("a").start("m")
    with closing(connect("sqlite:log.db")) as log:
        log.create_topic("power", 1)
    config = ServeConfig(topic="power", group="g", instance="check")
    connections = Connections(model="m", device="cpu", bootstrap="sqlite:log.db", tracking_uri=machine.uri)
    found = check(config, connections, as_json=True)["findings"]
    texts = [finding["found"] for finding in found if finding["verdict"] == "wrong"]  # type: ignore[attr-defined]
    assert "m/1 is rejected: its output is not finite" in texts


def test_damaged_or_wiped_cache_is_filled_again(machine: Machine) -> None:
    version = machine.register(model())
    cached = machine.member("a").start("m") and models() / f"{version.sha256}.onnx"
    assert isinstance(cached, Path)
    cached.write_bytes(b"damaged")
    assert machine.member("a").start("m").sha256 == version.sha256
    shutil.rmtree(models())
    assert machine.member("a").start("m").sha256 == version.sha256
    assert cached.is_file()


def test_canary_takes_nothing_from_the_working_folder_or_pythonpath(tmp_path: Path) -> None:
    """Files of ours, of libraries, of the standard library, and what a Python starts with."""
    hostile = "import pathlib; pathlib.Path({!r}).touch()"
    ran = tmp_path / "ran"
    for name in ("onnxruntime", "msgspec", "statistics", "sitecustomize", "usercustomize", "deploy", "numpy"):
        (tmp_path / f"{name}.py").write_text(hostile.format(str(ran)))
    program = f"""
import sys
sys.path = [each for each in sys.path if each not in ("", {str(tmp_path)!r})]
from deploy.models.canary import rejection_reason
print(rejection_reason(open("m.onnx", "rb").read(), None))
"""
    (tmp_path / "m.onnx").write_bytes(NOT_FINITE)
    root = str(Path(canary.__file__).parents[2])
    start = f"import sys, os; sys.path.insert(0, {root!r}); os.environ['PYTHONPATH'] = {str(tmp_path)!r}\n{program}"
    command = [sys.executable, "-I", "-c", start]
    out = subprocess.run(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, check=True).stdout
    assert out == "its output is not finite\n"
    assert not ran.exists()


def test_killed_or_slow_canary_is_no_verdict(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    version = machine.register(model())
    with monkeypatch.context() as patched:
        patched.setattr(canary, "TIMEOUT_S", 0.01)
        with pytest.raises(ModelUnavailable, match="its canary process did not finish"):
            machine.member("a").start("m")
    before = children()
    killer = threading.Thread(target=kill_a_child, args=(before,))
    killer.start()
    with pytest.raises(ModelUnavailable, match="its canary process ended without an answer: killed by SIGKILL"):
        rejection_reason(model(), None)
    killer.join()
    assert not machine.registry.resolve("m").refusals
    assert machine.member("a").start("m").sha256 == version.sha256


def children() -> set[int]:
    """The processes that this one has started."""
    tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def kill_a_child(before: set[int]) -> None:
    """SIGKILL the next child process of this one."""
    started: set[int] = set()
    until(lambda: bool(started), meanwhile=lambda: started.update(children() - before))
    os.kill(started.pop(), signal.SIGKILL)


def test_canary_without_memory_is_no_verdict_but_a_model_that_needs_too_much_of_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = tmp_path / "python"
    limited.write_text(f'#!/bin/sh\nulimit -v 1500000\nexec {sys.executable} "$@"\n')
    limited.chmod(0o700)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(limited))
        assert rejection_reason(model(), None) == ""
        with pytest.raises(ModelUnavailable, match="its canary process ended without an answer"):
            rejection_reason(model(formula="Add (part, nought)", many=500_000_000), None)
    assert rejection_reason(model(formula="Add (part, nought)", many=5_000_000_000), None)


def test_a_file_that_is_not_the_registered_one_is_no_verdict_on_that(machine: Machine) -> None:
    """A store that gives another file may give the right one later: its digest is looked at each time."""
    version = machine.register(model())
    (stored,) = machine.folder.rglob(f"artifacts/**/{version.run_id}/**/model.onnx")
    registered = stored.read_bytes()
    stored.write_bytes(model(2.0))
    for name in ("m", "m/1"):
        with pytest.raises(CorruptModel, match="its file's sha256 is not the one it was registered with"):
            machine.member("a").start(name)
    assert not machine.registry.resolve("m").refusals
    stored.write_bytes(registered)
    assert machine.member("a").start("m").sha256 == version.sha256


def test_store_out_of_reach_is_no_verdict(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    version = machine.register(model())
    (stored,) = machine.folder.rglob(f"artifacts/**/{version.run_id}/**/model.onnx")
    away = stored.rename(stored.with_suffix(".away"))
    with pytest.raises(TidecastError, match="m/1"):
        machine.member("a").start("m")
    away.rename(stored)
    assert machine.member("a").start("m").label == "m/1"
    assert not machine.registry.resolve("m").refusals
    monkeypatch.setattr(Registry, "resolve", unavailable)
    assert machine.member("a").start("m").label == "m/1", "from the cache"
    monkeypatch.setattr(Registry, "good_versions", unavailable)
    with pytest.raises(RegistryUnavailable):
        machine.member("b").start("m")
