"""The command line as a user meets it: its help, its exit codes, its one line when something is wrong."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from waiting import PATIENCE_S, until

from model.card import InputSpec
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import EPOCHS
from pipeline.log import Record
from pipeline.log.connect import connect
from tidecast.errors import UnknownTopic

Tidecast = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
OnnxFile = Callable[..., Path]
UntilWritten = Callable[..., list[Record]]

START = 1_704_067_200_000
HOUR = 3_600_000
NOWHERE = "127.0.0.1:1"
COMMANDS = (
    "ingest",
    "tail",
    "dead-letters",
    "train",
    "backtest",
    "forecast",
    "serve",
    "check",
    "retrain",
    "schedule",
    "score",
    "dashboard",
    "models",
    "promote",
    "rollback",
    "replay",
    "explain",
    "generate",
    "trace",
    "demo",
)
WITHOUT_A_LOG = {"forecast", "models", "promote", "rollback", "generate", "trace"}
SHOPS = "".join(f"2024-01-{day:02},{shop},{day * shop}.5\n" for shop in (1, 2, 3) for day in range(1, 31))
FILES: dict[str, str | bytes] = {
    "hours.csv": "ts,value\n" + "\n".join(f"{START + hour * HOUR},{hour % 24}" for hour in range(20)),
    "text.csv": "ts,value\n1704067200000,much",
    "junk.csv": b"\xff\xfe\xff",
    "junk.onnx": b"junk",
    "broken.toml": "topic =",
    "unknown.toml": "topics = 'power'",
    "nested.toml": "[server]\ntopic = 'power'",
    "deep.toml": "[serve.kafka]\ntopic = 'power'",
    "other.toml": "[serve]\nspeed = 2",
    "twice.toml": "max-gap = 1\nmax_gap = 2",
    "same.toml": "topic = 'a'\ntopic = 'b'",
    "flag.toml": "topic = true",
    "list.toml": "features = [['a']]",
    "inline.toml": "features = [{name = 'a'}]",
    "tables.toml": "[[serve]]\ntopic = 'power'",
    "bom.toml": b"\xef\xbb\xbftopic = 'power'",
    "endless.toml": "features = " + 5000 * "[" + 5000 * "]",
    "wrong.toml": "topic = 'power'\nspeed = 'fast'",
    "half.toml": "epochs = 1.5",
    "by.toml": "[score]\nby = 'mode'",
    "latin.toml": b"topic = '\xe9'",
}

WRONG = [
    (64, ["--nonsense"], "No such option: --nonsense"),
    (64, ["predict"], "No such command 'predict'"),
    (64, ["serve", "--nonsense"], "No such option: --nonsense"),
    (64, ["serve", "--topic", "power"], r"Missing option '--model' \(env var: 'TIDECAST_MODEL'\)"),
    (64, ["ingest", "hours.csv"], "Missing option '--topic'"),
    (64, ["backtest", "hours.csv"], r"unexpected extra argument\(s\) \(hours.csv\); a file is given with --data"),
    (64, ["tail"], "Missing argument 'TOPIC'"),
    (64, ["tail", "power", "--last", "x"], "Invalid value for '--last'"),
    (64, ["ingest", "hours.csv", "--topic", "power", "--partitions", 0], "'--partitions'.* greater than or equal to 1"),
    (64, ["serve", "--topic", "power", "--model", "m", "--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
    (78, ["tail", "power", "--config", "none.toml"], "none.toml: No such file or directory"),
    (78, ["tail", "power", "--config", "broken.toml"], "broken.toml: Invalid value"),
    (78, ["tail", "power", "--config", "latin.toml"], "latin.toml: 'utf-8' codec can't decode"),
    (78, ["tail", "power", "--config", "unknown.toml"], "unknown.toml: no option is called 'topics'"),
    (78, ["tail", "power", "--config", "."], r"\.: Is a directory"),
    (78, ["tail", "power", "--config", "nested.toml"], r"nested.toml: \[server\] is a table, and no command is called"),
    (78, ["tail", "power", "--config", "deep.toml"], r"deep.toml: \[serve\]: serve has no option called 'kafka'"),
    (78, ["tail", "power", "--config", "other.toml"], r"other.toml: \[serve\]: serve has no option called 'speed'"),
    (78, ["train", "--name", "m", "--config", "twice.toml"], "twice.toml: 'max-gap' is given twice"),
    (78, ["tail", "power", "--config", "same.toml"], "same.toml: Cannot overwrite a value"),
    (78, ["serve", "--model", "m", "--config", "flag.toml"], "flag.toml: topic = true: this option takes a value"),
    (78, ["train", "--name", "m", "--config", "list.toml"], "list.toml: features: neither a table nor a list"),
    (78, ["train", "--name", "m", "--config", "inline.toml"], "inline.toml: features: neither a table nor a list"),
    (78, ["tail", "power", "--config", "tables.toml"], "tables.toml: no option is called 'serve'"),
    (78, ["tail", "power", "--config", "bom.toml"], "bom.toml: it begins with a byte order mark: save it as UTF-8"),
    (78, ["tail", "power", "--config", "endless.toml"], "endless.toml: nested too deeply"),
    (78, ["ingest", "hours.csv", "--config", "wrong.toml"], "wrong.toml: speed = 'fast': .* a valid number"),
    (78, ["train", "--name", "m", "--config", "half.toml"], "half.toml: epochs = '1.5': .* a valid integer"),
    (78, ["train", "--name", "m", "--data", "hours.csv", "--freq", "1x"], "freq: '1x' is not like 250ms, 15s, 30m"),
    (78, ["train", "--name", "m", "--data", "hours.csv", "--topic", "power"], "give one of --topic and --data"),
    (78, ["train", "--name", "m"], "give one of --topic and --data"),
    (78, ["tail", "power"], "topic power does not exist"),
    (78, ["train", "--name", "m", "--topic", "power"], "topic power does not exist"),
    (78, ["tail", "power", "--bootstrap", "nonsense"], "bootstrap: 'nonsense' is not the address of a log: host:port"),
    (78, ["serve", "--topic", "power", "--model", "junk.onnx"], "junk.onnx: not an ONNX model"),
    (78, ["serve", "--topic", "t", "--model", "m", "--static"], "instance: --static needs the name"),
    (78, ["serve", "--topic", "t", "--model", "m", "--output", "t"], "output, late-topic: t, t, .* must be different"),
    (78, ["serve", "--topic", "t", "--model", "m", "--late-topic", "t"], "output, late-topic: "),
    (78, ["serve", "--topic", "t", "--model", "m", "--lateness", "soon"], "lateness: 'soon' is no duration"),
    (78, ["serve", "--topic", "t", "--model", "m", "--idle", "1mo"], "idle: '1mo' is no duration"),
    (64, ["serve", "--topic", "t", "--model", "m", "--series-limit", "0"], "Invalid value"),
    (
        64,
        ["serve", "--topic", "t", "--model", "m", "--guarantee", "at-most-once"],
        "Invalid value .*: 'at-most-once' is",
    ),
    (78, ["score", "power", "--config", "by.toml"], r"by\.toml: by = 'mode': 'mode' is not one of 'series'"),
    (78, ["train", "--name", "m", "--data", "hours.csv", "--aggregate", "mean"], "aggregate: needs --freq"),
    (78, ["serve", "--topic", "power", "--model", "none.onnx"], "none.onnx: there is no such file"),
    (75, ["tail", "power", "--bootstrap", NOWHERE], f"Kafka at {NOWHERE} does not answer .*Connection refused"),
    (75, ["train", "--name", "m", "--topic", "power", "--bootstrap", NOWHERE], f"Kafka at {NOWHERE} does not answer"),
    (78, ["train", "--name", "m", "--data", "hours.csv", "--tracking-uri", "http://["], r"'http://\[' is no URL"),
    (65, ["train", "--name", "m", "--data", "hours.csv", "--seed", "9" * 20], "seed: 9+ is not between"),
    (78, ["backtest", "--data", "hours.csv", "--test", "nan"], "test: 'nan' is not a whole number of steps"),
    (65, ["ingest", "none.csv", "--topic", "power"], "none.csv: No such file or directory"),
    (65, ["ingest", "junk.csv", "--topic", "power"], "junk.csv: row 1: not UTF-8 text"),
    (65, ["ingest", "text.csv", "--topic", "power"], "text.csv: row 2, column 'value': 'much' is not a number"),
    (65, ["train", "--name", "m", "--data", "none.csv"], "none.csv: No such file or directory"),
    (69, ["ingest", "hours.csv", "--topic", "a b"], "a topic named 'a b' with 1 partitions is not possible"),
]


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def failed(ended: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    """It ended with this code, nothing on stdout, and one line that says why."""
    *before, last = ended.stderr.splitlines()
    assert re.match(f"tidecast: .*{message}", last), last
    assert not [line for line in before if line.startswith(("tidecast:", "Traceback", " "))]
    assert (ended.returncode, ended.stdout) == (code, "")


@pytest.mark.parametrize(("code", "arguments", "message"), WRONG)
def test_a_user_error_is_one_line_and_an_exit_code(
    tidecast: Tidecast, code: int, arguments: list[str], message: str
) -> None:
    failed(tidecast(*arguments), code, message)


GOOD = "series,ts,value\na,2020-01-01T00:00Z,1\nb,2020-01-01T00:00Z,2\n"
UNUSABLE: list[tuple[str, str | bytes, str]] = [
    ("column.csv", "series,ts\na,2020-01-01\n", "column.csv: no column of values among 'series', 'ts'"),
    ("ragged.csv", GOOD + "a,2020-01-02T00:00Z\n", "ragged.csv: row 4: 2 cells for 3 columns: none for column 'value'"),
    ("zones.csv", GOOD + "a,2020-01-02T00:00,1\n", "zones.csv: row 4, column 'ts': .* has no offset from UTC"),
    ("number.csv", GOOD + "a,2020-01-02T00:00Z,1.2.3\n", "number.csv: row 4, column 'value': '1.2.3' is not a number"),
    ("empty.csv", "", "empty.csv: the file is empty"),
    ("no.parquet", GOOD, "no.parquet: not a complete Parquet file"),
    ("short.csv.gz", gzip.compress(GOOD.encode())[:-9], "short.csv.gz: the gzip file is truncated"),
    ("early.csv", GOOD + "a,1999-12-31T00:00Z,1\n", "1 of 3 measurements lie before 2000-01-01"),
]


@pytest.mark.parametrize(("name", "content", "message"), UNUSABLE, ids=[name for name, _, _ in UNUSABLE])
def test_an_unusable_file_is_not_ingested_at_all(
    tidecast: Tidecast, tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert tidecast("ingest", "hours.csv", "--topic", "power").returncode == 0
    failed(tidecast("ingest", name, "--topic", "power"), 65, message)
    failed(tidecast("ingest", name, "--topic", "another"), 65, message)
    with closing(connect(f"sqlite:{tmp_path / '.tidecast' / 'log.db'}")) as log:
        assert log.bounds("power")[0].end == 20
        with pytest.raises(UnknownTopic):
            log.bounds("another")


def test_without_arguments_the_help_is_shown(tidecast: Tidecast) -> None:
    ended = tidecast()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.findall(r"^  (\w[\w-]+)  .*[^.]\.$", ended.stdout, re.MULTILINE) == list(COMMANDS), "none is cut short"
    assert tidecast("--help").stdout == ended.stdout


def test_version(tidecast: Tidecast) -> None:
    ended = tidecast("--version")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.fullmatch(r"tidecast \d+\.\d+\.\d+\n", ended.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_variable_and_default(tidecast: Tidecast, command: str) -> None:
    ended = tidecast(command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    _, *options = re.split(r"\n  --", ended.stdout.split("\nOptions:")[1].replace("\n  -h, --help", "\n  --help"))
    described = {re.match(r"[a-z-]+", option)[0]: " ".join(option.split()) for option in options}  # type: ignore[index]
    del described["help"]
    assert ("bootstrap" in described) == (command not in WITHOUT_A_LOG)
    assert ("config" in described) == (command != "trace")
    for name, text in described.items():
        variable = f"TIDECAST_{name.replace('-', '_').upper()}"
        assert variable in text
    assert "default: sqlite:.tidecast/log.db" in described.get("bootstrap", "default: sqlite:.tidecast/log.db")


def test_defaults_in_the_help_of_train_are_those_of_its_config(tidecast: Tidecast) -> None:
    text = " ".join(tidecast("train", "--help").stdout.split())
    config = ForecastConfig()
    defaults = {"arch": config.arch, "hidden": config.hidden, "epochs": EPOCHS, "seed": config.seed}
    for name, value in defaults.items():
        assert re.search(rf"TIDECAST_{name.upper()}; default: \({value}[;)]", text)
    assert re.search(rf"TIDECAST_MAX_GAP; default: \({InputSpec(seq_len=2).max_gap}\)", text)


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("kafka", "matplotlib", "mlflow", "onnxruntime", "polars", "torch")
    program = f"import sys, tidecast, deploy.cli.main; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout == b"[]\n"


@pytest.mark.parametrize("command", [["forecast"], ["backtest"], ["train", "--name", "m"]])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("shops.csv", "date,shop,sales\n" + SHOPS, "rows repeat their times: name .* with --series-column shop"),
        (
            "often.csv",
            "ts,load\n" + 30 * f"{START},1.5\n",
            "29 of 30 measurements, 96.7%, are left out: 29 of a series",
        ),
        ("thousands.csv", "ts;load\n2020-01-01;1.189\n2020-01-02;987\n", "'1.189' may be 1.189 or 1189: --decimal"),
    ],
)
def test_what_is_open_in_a_file_is_said_before_torch_is_imported(
    tidecast: Tidecast, tmp_path: Path, command: list[str], name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    program = "import sys; sys.modules['torch'] = None; from tidecast.__main__ import main; main()"
    arguments = [sys.executable, "-c", program, *command, "--data", str(tmp_path / name)]
    failed(subprocess.run(arguments, capture_output=True, text=True), 65, message)


def test_training_without_its_extra_names_the_extra(tmp_path: Path) -> None:
    program = "import sys; sys.modules['torch'] = None; from tidecast.__main__ import main; main()"
    command = [sys.executable, "-c", program, "train", "--name", "m", "--data", str(tmp_path / "hours.csv")]
    failed(subprocess.run(command, capture_output=True, text=True), 69, r"this needs torch, .* its extra \[tr")


def test_too_little_data_is_an_error_with_the_number_needed(
    tidecast: Tidecast, mlflow_server: tuple[str, Path]
) -> None:
    train = ("train", "--name", "m", "--data", "hours.csv", "--horizon", 24)
    ended = tidecast(*train, "--tracking-uri", mlflow_server[0])
    failed(ended, 65, r"too few windows: .* one of them needs \d+ events without a break to train on")


@pytest.mark.parametrize("command", [["serve", "--topic", "power", "--model", "m"], ["train", "--data", "hours.csv"]])
def test_an_unavailable_registry_fails_before_the_work(tidecast: Tidecast, command: list[str]) -> None:
    name = ["--name", "m"] if command[0] == "train" else []
    ended = tidecast(*command, *name, "--tracking-uri", f"http://{NOWHERE}")
    failed(ended, 75, f"http://{NOWHERE}: no MLflow server answers there")
    assert "steps back" not in ended.stderr


def test_an_unknown_model_is_an_error(tidecast: Tidecast, mlflow_server: tuple[str, Path]) -> None:
    for model in ("nobody", "nobody@champion", "nobody/3", "no/body/3"):
        ended = tidecast("serve", "--topic", "power", "--model", model, "--tracking-uri", mlflow_server[0])
        failed(ended, 78, "no.?body")


def test_a_model_of_the_wrong_shape_is_an_error(tidecast: Tidecast, onnx_file: OnnxFile) -> None:
    path = onnx_file("g (float[batch, 12, 2] x) => (float[batch, 12, 2] y) { y = Relu (x) }")
    failed(tidecast("serve", "--topic", "power", "--model", path), 65, r"must be \(batch, seq, 1\) -> \(batch, hor")


def test_a_flag_overrides_a_variable_and_that_the_file(
    tidecast: Tidecast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def partitions(topic: str, *arguments: object) -> int:
        ended = tidecast("ingest", "hours.csv", "--topic", topic, "--json", *arguments)
        found: int = json.loads(ended.stdout)["partitions"]
        return found

    assert partitions("default") == 1
    (tmp_path / "tidecast.toml").write_text("partitions = 2\nepochs = 7\n")
    assert partitions("file") == 2
    (tmp_path / "other.toml").write_text("partitions = 3")
    assert partitions("other", "--config", "other.toml") == 3
    monkeypatch.setenv("TIDECAST_PARTITIONS", "4")
    assert partitions("variable") == 4
    assert partitions("flag", "--partitions", "5") == 5


def test_a_variable_with_a_wrong_value_is_named(tidecast: Tidecast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDECAST_BY", "mode")
    failed(tidecast("score", "power"), 78, r"TIDECAST_BY = 'mode': 'mode' is not one of 'series'")


def test_the_closest_of_topic_and_data_counts(tidecast: Tidecast, tmp_path: Path) -> None:
    (tmp_path / "tidecast.toml").write_text("topic = 'power'\nname = 'm'\n")
    failed(tidecast("train"), 78, "topic power does not exist")
    failed(tidecast("train", "--data", "none.csv"), 65, "none.csv: No such file")
    (tmp_path / "tidecast.toml").write_text("topic = 'power'\ndata = 'none.csv'\nname = 'm'\n")
    failed(tidecast("train"), 78, "give one of --topic and --data")
    failed(tidecast("train", "--topic", "wind"), 78, "topic wind does not exist")


def test_a_list_in_the_file_is_a_comma_separated_option(tidecast: Tidecast, tmp_path: Path) -> None:
    (tmp_path / "pumps.csv").write_text(f"ts,flow,pressure\n{START},1,2\n")
    (tmp_path / "tidecast.toml").write_text("topic = 'pumps'\nfeatures = ['flow', 'pressure']\njson = true\n")
    assert json.loads(tidecast("ingest", "pumps.csv").stdout)["events"] == 1
    assert "flow 1 pressure 2" in tidecast("tail", "pumps").stdout


def test_json_is_the_only_output_on_stdout(tidecast: Tidecast) -> None:
    ended = tidecast("ingest", "hours.csv", "--topic", "power", "--json")
    note = "one series, `hours`; times from `ts`, epoch milliseconds; value `value`"
    assert json.loads(ended.stdout) == {"topic": "power", "partitions": 1, "events": 20, "series": 1, "notes": [note]}
    assert ended.stdout.count("\n") == 1
    assert ended.stderr.splitlines() == [
        note,
        "on SQLite at .tidecast/log.db; --bootstrap HOST:PORT takes a Kafka",
        "hours.csv -> power: 20 of 20",
        "20 events of 1 series, hours, on power",
    ]
    quiet = tidecast("ingest", "hours.csv", "--topic", "power")
    assert (quiet.stdout, quiet.stderr) == ("", ended.stderr)


def test_tail_shows_events_forecasts_and_dead_letters(tidecast: Tidecast, tmp_path: Path) -> None:
    forecast = {"series": "pump", "ts": START, "start": START + HOUR, "step": HOUR, "forecast": [1.5, 2, 3, 4, 5, 6, 7]}
    letter = [("tidecast.reason", b"schema"), ("tidecast.detail", b"no value")]
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        log.create_topic("mixed", 1)
        with closing(log.producer()) as producer:
            event = {"ts": START, "value": 21.5}
            producer.send("mixed", 0, b"pump", json.dumps(event).encode(), timestamp=START)
            producer.send("mixed", 0, b"pump", json.dumps({**forecast, "model": "m/1"}).encode(), timestamp=START)
            producer.send("mixed", 0, b"pump", b"{}\x1b[31m", timestamp=START, headers=letter)
            producer.flush()
    ended = tidecast("tail", "mixed", "--bootstrap", f"sqlite:{tmp_path / 'log.db'}")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        "2024-01-01 00:00:00 0:0 pump value 21.5  at 2024-01-01 00:00:00",
        "2024-01-01 00:00:00 0:1 pump forecast from 2024-01-01 01:00:00: 1.5 2 3 4 5 .. 7  m/1",
        r"2024-01-01 00:00:00 0:2 pump invalid: schema: no value | {}\x1b[31m",
    ]
    newest = tidecast("tail", "mixed", "--last", 1, "--bootstrap", f"sqlite:{tmp_path / 'log.db'}")
    assert newest.stdout.splitlines() == ended.stdout.splitlines()[-1:]


def test_serve_reads_all_options_from_the_file(
    start_tidecast: Start, until_written: UntilWritten, foreign_model: Path, tmp_path: Path
) -> None:
    """Topic and model are named by it, output and group by what they are."""
    (tmp_path / "tidecast.toml").write_text(f"topic = 'power'\nmodel = '{foreign_model}'\nbootstrap = 'sqlite:log.db'")
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        log.create_topic("power", 1)
        with closing(log.producer()) as producer:
            for hour in range(15):
                event = {"series": "pump", "ts": START + hour * HOUR, "value": hour}
                producer.send("power", 0, b"pump", json.dumps(event).encode())
            producer.flush()
        service = start_tidecast("serve", "--json")
        until_written(log, "power-forecasts", 4, service)
    service.terminate()
    out, err = service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0, err
    (summary,) = map(json.loads, out.splitlines())
    assert {"model": "written.onnx", "output": "power-forecasts", "forecasts": 4}.items() <= summary.items()
    assert "power -> power-forecasts as tidecast-power-written/" in err


@pytest.mark.slow
def test_optimised_python_is_the_same_program(tmp_path: Path) -> None:
    """`python -O` leaves out assertions: none of ours does any work."""
    rows = [f"{START + hour * HOUR},{hour % 24}" for hour in range(200)]
    (tmp_path / "days.csv").write_text("\n".join(["ts,value", *rows]))
    small = ("--data", "days.csv", "--horizon", "3", "--arch", "blend", "--epochs", "1", "--device", "cpu")
    naive = ("--topic", "days", "--name", "m", "--horizon", "3", "--seq-len", "24", "--arch", "naive")
    commands = (
        ("forecast", *small),
        ("ingest", "days.csv", "--topic", "days"),
        ("train", *naive, "--json"),
        ("check", "--topic", "days", "--model", "m"),
    )
    results: list[list[str]] = []
    for optimised in ((), ("-O",)):
        results.append([])
        folder = tmp_path / "".join(("python", *optimised))
        folder.mkdir()
        shutil.copy(tmp_path / "days.csv", folder)
        program = [sys.executable, *optimised, "-m", "tidecast"]
        for command in commands:
            ended = subprocess.run([*program, *command], cwd=folder, capture_output=True, text=True)
            assert ended.returncode == 0, ended.stderr
            results[-1].append(re.sub(r'"(seconds|run)": *"?[^",]+"?|log file \S+', "", ended.stdout))
        results[-1].append(served([*program, "serve", "--topic", "days", "--model", "m"], folder))
    assert results[1] == results[0]


def served(command: list[str], folder: Path) -> str:
    """The messages of a service about the events there, but for when and where they were made."""
    service = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    with closing(connect(f"sqlite:{folder / '.tidecast' / 'log.db'}")) as log:
        output = "days-forecasts"
        until(lambda: output in log.identities([output]) and log.bounds(output)[0].end == 177, service)
        messages = [record.value or b"" for records in log.read(output, 0, 0, 177) for record in records]
    service.terminate()
    _, err = service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0, err
    return b"\n".join(messages).decode()


def test_help_and_the_options_need_no_numpy() -> None:
    heavy = ("numpy", "onnxruntime", "kafka", "multiprocessing")
    program = f"import sys, deploy.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
