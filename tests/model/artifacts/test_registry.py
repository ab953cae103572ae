import hashlib
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from model.artifacts.registry import JOB, Registry
from model.artifacts.registry.runs import Point
from model.artifacts.versions import Version
from tidecast.errors import (
    CorruptModel,
    PromotionConflict,
    RegistryError,
    RegistryUnavailable,
    TidecastError,
    UnknownModel,
)

PARAMS = {"hidden": 64, "segment": None}
HISTORY = [{"train_loss": 0.5, "validation_mse": 0.4}, {"train_loss": 0.3, "validation_mse": 0.2}]


@dataclass(frozen=True)
class Store:
    uri: str
    artifacts: Path


@pytest.fixture
def server(mlflow_server: tuple[str, Path]) -> Store:
    return Store(*mlflow_server)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    return Store(f"sqlite:///{folder}/new/mlflow.db", folder / "new" / "artifacts")


@pytest.fixture(params=["database", "server"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


def record(store: Store, name: str, folder: Path, content: bytes = b"a model") -> Version:
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "model.onnx").write_bytes(content)
    (folder / "run" / "forecasts.png").write_bytes(b"a picture")
    metrics = {"validation_mse": 0.2}
    registry = Registry(store.uri)
    with registry.run(name) as training:
        training.log_params(PARAMS)
        epochs = enumerate([*HISTORY, metrics], 1)
        training.log_metrics([Point(key, value, step) for step, epoch in epochs for key, value in epoch.items()])
        return registry.register(name, training, folder / "run", tags={"offsets": '{"0": [0, 7224]}'})


def test_references_resolve_to_the_registered_version(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = record(store, "taxi", tmp_path), record(store, "taxi", tmp_path, b"a better one")
    assert (first.label, second.label) == ("taxi/1", "taxi/2")
    registry = Registry(store.uri)
    assert registry.resolve("taxi") == registry.resolve("taxi@champion") == registry.resolve("taxi/1") == first
    assert registry.resolve("taxi/2") == second
    assert second.sha256 == hashlib.sha256(b"a better one").hexdigest()
    assert second.tags == {"offsets": '{"0": [0, 7224]}', "sha256": second.sha256}
    path = registry.download(second, tmp_path / "models")
    assert path.read_bytes() == b"a better one"
    assert list((tmp_path / "models").iterdir()) == [path]
    assert [entry.name for entry in tmp_path.iterdir() if entry.name not in ("run", "models")] == []
    assert capfd.readouterr() == ("", "")


def test_run_records_params_metrics_and_artifacts(store: Store, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    version = record(store, "logged", tmp_path)
    client = MlflowClient(store.uri, store.uri)
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"hidden": "64", "segment": "None"}
    points = client.get_metric_history(version.run_id, "validation_mse")
    assert sorted((point.step, point.value) for point in points) == [(1, 0.4), (2, 0.2), (3, 0.2)]
    assert sorted(file.path for file in client.list_artifacts(version.run_id)) == ["forecasts.png", "model.onnx"]


def test_cached_download_needs_no_registry(store: Store, tmp_path: Path) -> None:
    version = record(store, "kept", tmp_path)
    path = Registry(store.uri).download(version, tmp_path)
    nowhere = Registry("http://127.0.0.1:1")
    assert nowhere.download(version, tmp_path) == path
    path.write_bytes(b"damaged")
    with pytest.raises(RegistryUnavailable):
        nowhere.download(version, tmp_path)
    assert Registry(store.uri).download(version, tmp_path).read_bytes() == b"a model"


def test_changed_or_missing_model_file_is_rejected(store: Store, tmp_path: Path) -> None:
    version = record(store, "changed", tmp_path)
    (file,) = (path for path in store.artifacts.rglob("model.onnx") if version.run_id in str(path))
    file.write_bytes(b"another model")
    with pytest.raises(CorruptModel, match="changed/1: its file's sha256"):
        Registry(store.uri).download(version, tmp_path)
    file.unlink()
    with pytest.raises(CorruptModel, match=r"changed/1: its run holds no model\.onnx"):
        Registry(store.uri).download(version, tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


def test_version_not_registered_by_tidecast_is_rejected(store: Store) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store.uri, store.uri)
    client.create_registered_model("foreign")
    run = client.create_run("0")
    client.create_model_version("foreign", f"{run.info.artifact_uri}/model", run.info.run_id)
    with pytest.raises(CorruptModel, match="foreign/1: it has no"):
        Registry(store.uri).resolve("foreign/1")
    with pytest.raises(UnknownModel, match="'foreign' has no 'champion'"):
        Registry(store.uri).resolve("foreign")


@pytest.mark.parametrize(
    "reference",
    ["nobody", "nobody@champion", "nobody/1", "known@nobody", "known/99", "known/" + "9" * 20, "", "a/b/c", "a@"],
)
def test_unknown_model_error_is_one_line(store: Store, tmp_path: Path, reference: str) -> None:
    if "known" in reference:
        record(store, "known", tmp_path)
    with pytest.raises(UnknownModel) as raised:
        Registry(store.uri).resolve(reference)
    assert "\n" not in str(raised.value)
    if reference.startswith("nobody"):
        assert "no model is called nobody: tidecast train --name nobody trains one; there are: " in str(raised.value)
    if reference == "known/99":
        assert "known has no version 99; tidecast models known shows those it has" in str(raised.value)


@pytest.mark.parametrize("name", ["", "a/b", "a@b", "a:b"])
def test_invalid_model_name_is_not_registered(database: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^name: "):
        record(database, name, tmp_path)


def test_what_mlflow_does_not_take_is_a_wrong_setting(store: Store, tmp_path: Path) -> None:
    """And no trouble of the registry, after which the same would be tried again."""
    version = record(store, "known", tmp_path)
    for wrong in (lambda: Registry(store.uri).set_alias(version, "v1"), lambda: record(store, "..", tmp_path)):
        with pytest.raises(RegistryError) as raised:
            wrong()
        assert (type(raised.value), raised.value.exit_code) == (RegistryError, os.EX_CONFIG)
        assert "\n" not in str(raised.value)


def test_a_wrong_variable_of_mlflow_s_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")
    with pytest.raises(RegistryError, match="Failed to convert 'soon' for MLFLOW_HTTP_REQUEST_TIMEOUT") as raised:
        Registry("http://127.0.0.1:1").resolve("taxi")
    assert raised.value.exit_code == os.EX_CONFIG


def test_unreachable_server_error_is_fast_and_redacted() -> None:
    with pytest.raises(RegistryUnavailable) as raised:
        Registry("http://me:secret@127.0.0.1:1").resolve("taxi")
    assert str(raised.value) == "http://127.0.0.1:1: no MLflow server answers there"


def test_unresponsive_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    unanswered = pytest.raises(RegistryUnavailable, match="no MLflow server answers there")
    with socket.create_server(("127.0.0.1", 0)) as silent, unanswered:
        Registry(f"http://127.0.0.1:{silent.getsockname()[1]}").resolve("taxi")


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, "no", "the server does not know the user: set MLFLOW_TRACKING_USERNAME"),
        (404, "<html>", "what answers there is no MLflow server"),
        (502, "<html>", "a proxy answers there, and no MLflow server behind it"),
        (418, "tea", "the server answers with 418: its log says why"),
        (200, "<html>", "what answers there is no MLflow server"),
    ],
)
def test_what_a_server_answers_is_said_as_a_sentence(
    status: int, body: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(TidecastError) as raised:
            Registry(uri).resolve("taxi")
        server.shutdown()
    assert str(raised.value).startswith(f"{uri}: {says}")


def test_invalid_sqlite_file_error_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(RegistryUnavailable, match="file is not a database") as raised:
        Registry(f"sqlite:///{tmp_path}/mlflow.db").resolve("taxi")
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_concurrent_creation_of_a_store_succeeds(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.onnx").write_bytes(b"a model")
    program = """
import sys
from pathlib import Path
from model.artifacts.registry import Registry
uri, folder = sys.argv[1:]
registry = Registry(uri)
with registry.run("taxi") as training:
    print(registry.register("taxi", training, Path(folder), tags={}).label)
"""
    command = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/store/mlflow.db", f"{tmp_path}/run"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate()[0].strip() for process in running) == ["taxi/1", "taxi/2"]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://anna:secret@mlflow:5000", "http://mlflow:5000"),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("http://anna:se/cr@et@mlflow:5000", "http://mlflow:5000"),
        ("anna:secret@mlflow:5000", "mlflow:5000"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
    ],
)
def test_tracking_uri_is_redacted(uri: str, shown: str) -> None:
    assert Registry(uri).redacted_uri == shown


def test_invalid_tracking_uri_error_is_redacted() -> None:
    with pytest.raises(RegistryError, match="'mlflow:5000' is no URL"):
        Registry("anna:secret@mlflow:5000").resolve("taxi")


def test_versions_list_aliases_and_rollback_restores_the_champion(store: Store, tmp_path: Path) -> None:
    first, second, third = (record(store, "life", tmp_path, content) for content in (b"1", b"2", b"3"))
    registry = Registry(store.uri)
    registry.set_alias(third, "challenger")
    assert registry.promote(second)
    assert [(version.number, version.aliases) for version in registry.versions("life")] == [
        ("3", ("challenger",)),
        ("2", ("champion",)),
        ("1", ()),
    ]
    assert registry.resolve("life@champion").sha256 == second.sha256
    registry.promote(third, instead_of="2")
    assert registry.rollback("life").label == "life/2"
    assert registry.rollback("life").label == "life/1"
    with pytest.raises(UnknownModel, match="no champion before"):
        registry.rollback("life")
    assert registry.resolve("life") == first
    assert "life" in registry.names()


def test_promotion_against_an_outdated_champion_is_a_conflict(store: Store, tmp_path: Path) -> None:
    first, second, third = (record(store, "race", tmp_path, content) for content in (b"1", b"2", b"3"))
    registry = Registry(store.uri)
    registry.promote(second, instead_of=first.number)
    with pytest.raises(PromotionConflict, match="race/3 was judged against race/1; 2 serves now"):
        registry.promote(third, instead_of=first.number)
    assert not registry.promote(second), "it is the champion already"
    assert registry.rollback("race") == first, "a promotion of the champion is none"


@pytest.mark.parametrize("step", ["uploaded", "registered"])
def test_retried_job_leaves_one_version(store: Store, tmp_path: Path, step: str) -> None:
    from mlflow import MlflowClient

    name = f"job-{step}"
    record(store, name, tmp_path)

    def attempt(fails_at: str = "") -> Version:
        def reached(where: str) -> None:
            if where == fails_at:
                raise KeyboardInterrupt

        (tmp_path / "run" / "model.onnx").write_bytes(b"retrained")
        registry = Registry(store.uri)
        if version := registry.version_of_job(name, "abc"):
            return version
        with registry.run(name, "abc") as training:
            return registry.register(name, training, tmp_path / "run", tags={JOB: "abc"}, reached=reached)

    with pytest.raises(KeyboardInterrupt):
        attempt(step)
    assert len(Registry(store.uri).versions(name)) == (2 if step == "registered" else 1)
    assert attempt().label == f"{name}/2"
    assert attempt().label == f"{name}/2", "the same job again is done already"
    assert Registry(store.uri).version_of_job(name, "other") is None
    client = MlflowClient(store.uri, store.uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 2
