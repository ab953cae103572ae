"""Where files go, who may read them, and what is said where none may be written."""

import json
import math
import os
import re
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from models import exported
from rights import run_without_rights as run
from sharing import Shared

from deploy.models.admission import Admission
from deploy.settings.locations import set_home
from model.artifacts.registry import Registry
from model.card import Card, InputSpec, OutputSpec
from tidecast.errors import NotPermitted

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]

START, HOUR = 1_704_067_200_000, 3_600_000
SMALL = ("--horizon", 3, "--seq-len", 12, "--arch", "naive")


pytestmark = pytest.mark.slow  # each starts a command line


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a file of measurements, the only thing in it."""
    rows = [f"{START + hour * HOUR},{math.sin(hour / 4):.4f}" for hour in range(120)]
    place = tmp_path / "work"
    place.mkdir()
    (place / "hours.csv").write_text("\n".join(["ts,value", *rows]))
    monkeypatch.chdir(place)
    yield place
    place.chmod(0o755)


def test_a_forecast_is_printed_though_its_picture_can_t_be_saved(folder: Path) -> None:
    folder.chmod(0o555)
    ended = run("forecast", "--data", "hours.csv", *SMALL, "--json")
    assert ended.returncode == os.EX_NOPERM
    *_, table, summary = ended.stdout.strip().splitlines()
    assert table.startswith("20"), "the last of its rows"
    assert json.loads(summary)["plot"] is None
    how_read, before, *_, last = ended.stderr.splitlines()
    assert how_read.startswith("one series, `hours`"), "reading comes first, and takes no time"
    assert before == (
        "warning: .tidecast/forecasts: no permission to save the picture there; the results will be printed without it"
    )
    assert last == (
        "tidecast: .tidecast/forecasts: no permission to save the picture there; --plot FILE or --home DIR names "
        "another place"
    )
    assert not [line for line in ended.stderr.splitlines() if "atplotlib" in line or "onnxruntime" in line]


def test_an_output_that_can_t_be_written_is_said_before_the_work(folder: Path) -> None:
    folder.chmod(0o555)
    ended = run("forecast", "--data", "hours.csv", *SMALL, "--output", "ahead.csv")
    assert (ended.returncode, ended.stdout) == (os.EX_NOPERM, "")
    assert ended.stderr.splitlines()[-1] == "tidecast: output: .: no permission to write there"
    assert "validation" not in ended.stderr


def test_an_output_on_a_full_disk_is_one_line_that_names_it(tidecast: Tidecast, folder: Path) -> None:
    os.chdir(folder)
    for name in ("full.csv", "full.parquet", "full.jsonl"):
        (folder / name).symlink_to("/dev/full")
        ended = tidecast("forecast", "--data", "hours.csv", *SMALL, "--output", name, "--plot", "plot.png")
        assert ended.returncode == os.EX_CANTCREAT
        assert ended.stderr.splitlines()[-1] == f"tidecast: {name}: No space left on device"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("train", "--data", "hours.csv", "--name", "m", *SMALL), "tracking-uri: .tidecast/mlflow.db: no permission"),
        (("serve", "--topic", "power", "--model", "m@champion"), "tracking-uri: .tidecast/mlflow.db: no permission"),
        (("models",), "tracking-uri: .tidecast/mlflow.db: no permission"),
        (("ingest", "hours.csv", "--topic", "power"), ".tidecast: no permission to keep files there; --home DIR"),
        (("tail", "power"), ".tidecast: no permission to keep files there; --home DIR names another folder"),
        (("retrain", "--topic", "power", "--name", "m"), ".tidecast: no permission to keep files there; --home DIR"),
        (("schedule", "--topic", "power", "--name", "m", "--every", "1d"), ".tidecast: no permission to keep files"),
        (("tail", "power", "--bootstrap", "sqlite:other/log.db"), "log file .*/other/log.db: Permission denied"),
    ],
)
def test_a_folder_of_others_is_77_and_one_line(folder: Path, command: tuple[object, ...], message: str) -> None:
    folder.chmod(0o555)
    ended = run(*command)
    *_, last = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout) == (os.EX_NOPERM, ""), ended.stderr
    assert re.match(f"tidecast: {message}", last), last
    assert "windows" not in ended.stderr, "nothing was trained"


def test_a_service_that_may_not_keep_its_model_is_77(folder: Path, tmp_path: Path, tracking_uri: str) -> None:
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "model.onnx").touch()
    registry = Registry(tracking_uri)
    with registry.run("m") as training:
        registry.register("m", training, run_folder, tags={})
    folder.chmod(0o555)
    where = ("--tracking-uri", tracking_uri, "--bootstrap", f"sqlite:{tmp_path / 'log.db'}")
    ended = run("serve", "--topic", "power", "--model", "m", *where)
    assert (ended.returncode, ended.stderr) == (os.EX_NOPERM, "tidecast: .tidecast: Permission denied\n")


@pytest.mark.parametrize("command", [("ingest", "hours.csv", "--topic", "power"), ("models",), ("tail", "power")])
@pytest.mark.parametrize(
    ("home", "says"),
    [
        ("hours.csv", "it is no folder"),
        ("hours.csv/x", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("nowhere", "it is a link to what does not exist"),
        ("a" * 300, "File name too long"),
    ],
)
def test_a_home_that_can_be_no_folder_is_a_wrong_setting(
    tidecast: Tidecast, folder: Path, command: tuple[str, ...], home: str, says: str
) -> None:
    os.chdir(folder)  # the fixture of the command line has left it
    for name, target in (("loop", "loop"), ("nowhere", "none")):
        (folder / name).symlink_to(target)
    for ended in (tidecast(*command, "--home", home), tidecast(*command, "--home", f"./{home}")):
        assert (ended.returncode, ended.stdout) == (os.EX_CONFIG, "")
        assert ended.stderr == f"tidecast: home: {home}: {says}; --home DIR names another folder\n"


@pytest.mark.parametrize("uri", ["sqlite:///hours.csv/mlflow.db", "sqlite:///loop/mlflow.db", "sqlite:///."])
def test_a_registry_that_can_be_no_file_is_a_wrong_setting(tidecast: Tidecast, folder: Path, uri: str) -> None:
    os.chdir(folder)
    (folder / "loop").symlink_to("loop")
    ended = tidecast("models", "--tracking-uri", uri)
    assert (ended.returncode, ended.stdout) == (os.EX_CONFIG, "")
    assert re.fullmatch(r"tidecast: tracking-uri: .*(is not a f|Symlink loop).*\n", ended.stderr)


def test_files_that_may_not_be_read_are_77(folder: Path) -> None:
    for name in ("hours.csv", "tidecast.toml"):
        (folder / name).touch(0o000)
        (folder / name).chmod(0o000)
        ended = run("forecast", "--data", "hours.csv", *SMALL)
        assert (ended.returncode, ended.stderr) == (os.EX_NOPERM, f"tidecast: {name}: Permission denied\n")


def test_what_is_kept_is_for_this_user_alone(folder: Path, tidecast: Tidecast, tmp_path: Path) -> None:
    os.chdir(folder)  # the fixture of the command line has left it
    before = os.umask(0o022)
    os.umask(before)
    here = ("--home", folder / ".tidecast")  # MLflow keeps a store open by its name
    assert tidecast("ingest", "hours.csv", "--topic", "power", *here).returncode == 0
    assert tidecast("train", "--data", "hours.csv", "--name", "m", *SMALL, *here).returncode == 0
    picture = ("--plot", "own/picture.png", "--output", "ahead.csv", *here)
    assert tidecast("forecast", "--data", "hours.csv", *SMALL, *picture).returncode == 0
    assert os.umask(before) == before
    kept = [folder / ".tidecast", *(folder / ".tidecast").rglob("*")]
    assert {"log.db", "mlflow.db", "model.onnx"} <= {path.name for path in kept}
    assert not [path for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077]
    for asked in (folder / "own" / "picture.png", folder / "ahead.csv"):
        assert stat.S_IMODE(asked.stat().st_mode) == 0o666 & ~before


@pytest.mark.parametrize("source", ["flag", "variable", "file"])
def test_home_is_where_files_are_kept(
    folder: Path, tidecast: Tidecast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    os.chdir(folder)
    home = tmp_path / "kept" / "here"
    flag = ("--home", home) if source == "flag" else ()
    if source == "variable":
        monkeypatch.setenv("TIDECAST_HOME", str(home))
    elif source == "file":
        Path("tidecast.toml").write_text(f"home = '{home}'")
    ended = tidecast("ingest", "hours.csv", "--topic", "power", *flag)
    assert ended.returncode == 0, ended.stderr
    assert f"on SQLite at {home}/log.db; --bootstrap HOST:PORT takes a Kafka" in ended.stderr
    assert tidecast("models", *flag).returncode == 0
    assert {"log.db", "mlflow.db"} <= {path.name for path in home.iterdir()}
    assert not (folder / ".tidecast").exists()
    assert tidecast("tail", "power", "--home", folder / "other").returncode == os.EX_CONFIG, "it is another log"


def test_no_password_is_written_to_disk(
    folder: Path, mlflow_server: tuple[str, Path], shared: Shared, fresh: Callable[[str], str]
) -> None:
    """Not even that of a registry, of which a service remembers what a name led to."""
    card = Card(
        name=fresh("kept"),
        input=InputSpec(seq_len=12, freq="1h"),
        output=OutputSpec(horizon=4),
        arch="segment",
        hyperparameters={"hidden": 8, "layers": 1, "dropout": 0.0, "location": "last", "segment": 4},
        trained_until=0,
    )
    run_folder = folder / "run"
    run_folder.mkdir()
    (run_folder / "model.onnx").write_bytes(exported(shared, card).read_bytes())
    registry = Registry(mlflow_server[0])
    with registry.run(card.name) as training:
        registry.register(card.name, training, run_folder, tags={})
    uri = f"http://alice:s3cret-9Z@{urlsplit(mlflow_server[0]).netloc}"
    set_home(None)
    Admission(uri, "cpu", "group").start(card.name)
    kept = [path for path in (folder / ".tidecast").rglob("*") if path.is_file()]
    assert not [path for path in kept if b"s3cret-9Z" in path.read_bytes()]
    (note,) = (path for path in kept if path.name == f"{card.name}.json")
    assert json.loads(note.read_bytes())[1]["name"] == card.name


class Refusing(BaseHTTPRequestHandler):
    """A proxy that lets nobody through, in words of its own."""

    def do_GET(self) -> None:
        self.send_error(403, "not for you")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def test_a_registry_that_refuses_a_user_is_77() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(NotPermitted, match="does not let the user do this"):
            Registry(f"http://127.0.0.1:{server.server_port}").names()
        server.shutdown()
