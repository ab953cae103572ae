"""The table "Found beforehand" of docs/operations.md: each configuration, set up for real, has its line in `check`."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaAdminClient
from models import exported
from rights import run_without_rights
from sharing import Shared
from waiting import until

from deploy.serving.identity import SECTION, Family
from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from model.card import Card, InputSpec, OutputSpec
from pipeline.formats.events import Event, encode
from pipeline.log import Commit, EventLog
from pipeline.log.connect import connect
from pipeline.state.records import PARTITION_KEY, PartitionRecord, encode_metadata, encode_partition

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Fresh = Callable[[str], str]
OnnxFile = Callable[..., Path]

pytestmark = pytest.mark.slow  # each row is set up for real

DOCS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
TABLE = DOCS.read_text().partition("### Found beforehand")[2].partition("\n## ")[0]
LINES = dict(re.findall(r"^\| (?!configuration|-)(.+?) \| (`+ ?.+`) \|$", TABLE, re.MULTILINE))
"""The line of each configuration; `...` stands for any text."""
START, HOUR = 1_704_067_200_000, 3_600_000
CALM = np.round(40 * np.sin(np.arange(30.0))) + 0.1
NOT_FINITE = "m (float[batch, 12, 1] x) => (float[batch, 4] y) <float zero = {0.0}, int64[1] two = {2}, int64[1] from "
NOT_FINITE += "= {8}, int64[1] to = {12}, int64[1] one = {1}> { flat = Squeeze (x, two) part = Slice (flat, from, to, "
NOT_FINITE += "one) y = Div (part, zero) }"


@dataclass
class Setting:
    """A topic, a group and a model, which a configuration is made of."""

    log: EventLog
    address: str
    topic: str
    model: object
    """A file, or a registered model's name."""
    folder: Path
    tracking_uri: str
    shared: Shared
    onnx_file: OnnxFile
    run: Run
    closing: ExitStack
    options: list[object] = field(default_factory=list)

    @property
    def group(self) -> str:
        return f"{self.topic}-group"

    @property
    def state(self) -> str:
        return f"{self.group}-state"

    @property
    def dead_letters(self) -> str:
        return f"{self.group}-dead-letters"

    @property
    def output(self) -> str:
        return f"{self.topic}-forecasts"

    def create(self, topic: str, partitions: int = 2, **settings: str) -> None:
        configs = {name.replace("_", "."): value for name, value in settings.items()}
        with KafkaAdminClient(bootstrap_servers=self.address) as admin:
            admin.create_topics({topic: {"num_partitions": partitions, "configs": configs}})

    def send(self, topic: str, values: Sequence[bytes], key: bytes = b"pump") -> None:
        with closing(self.log.producer()) as producer:
            for value in values:
                producer.send(topic, 0, key, value)
            producer.flush()

    def write(self, values: Any = CALM, step: float = 1, late: Any = 0, series: str = "pump") -> None:
        """Events of these values, so many hours apart, each `late` by so many hours."""
        hours = np.arange(len(values)) * step + late
        events = [
            Event(series, START + round(hour * HOUR), (float(value),))
            for hour, value in zip(hours, values, strict=True)
        ]
        self.send(self.topic, [encode(event) for event in events], series.encode())

    def write_json(self, **event: object) -> None:
        self.send(self.topic, [json.dumps({"series": "pump", **event}).encode()])

    def join(self, instance: str | None = None) -> Any:
        consumer = self.closing.enter_context(closing(self.log.consumer(self.group, self.topic, instance=instance)))
        until(lambda: bool(consumer.poll(0.5, 1).assigned))
        return consumer

    def serve_another_model(self) -> None:
        self.create(self.state, cleanup_policy="compact")
        sections = {SECTION: Family("heat", "forecast", "4 steps of value").section}
        topic_id = self.log.identities([self.topic])[self.topic].id
        record = encode_partition(PartitionRecord(position=0, partitions=2, topic_id=topic_id, sections=sections))
        self.send(self.state, [record], PARTITION_KEY)
        self.join().commit({0: Commit(0, encode_metadata(0))})

    def register(self, model: object, name: str = "tides") -> Version:
        run = self.folder / "run"
        run.mkdir()
        (run / "model.onnx").write_bytes(Path(str(model)).read_bytes())
        self.options += ["--tracking-uri", self.tracking_uri]
        registry = Registry(self.tracking_uri)
        with registry.run(name) as training:
            return registry.register(name, training, run, tags={})

    def serve_registered(self) -> Version:
        self.model, version = "tides", self.register(self.model)
        return version

    def refuse(self) -> None:
        Registry(self.tracking_uri).refuse(self.serve_registered(), "it was tried and found wanting")

    def replace_the_file(self) -> None:
        version = self.serve_registered()
        (stored,) = self.folder.rglob(f"artifacts/**/{version.run_id}/**/model.onnx")
        stored.write_bytes(stored.read_bytes() + b"\n")

    def shadow(self, model: object = None, alias: str = "champion") -> None:
        self.register(model or self.model)
        self.options += ["--shadow", f"tides@{alias}"]

    def shadow_with_other_windows(self) -> None:
        foreign = NOT_FINITE.replace("Div (part, zero)", "Add (part, zero)")
        self.shadow(self.onnx_file(foreign))

    def leave_the_allowlist(self) -> None:
        self.model = self.onnx_file("m (float[batch, 12, 1] x) => (float[batch, 12, 1] y) { y = RandomNormalLike (x) }")

    def close_home(self) -> None:
        home = self.folder / "home"
        home.mkdir(0o500)
        self.options += ["--home", home]
        self.run = run_without_rights

    def spoil(self) -> None:
        card = Card(
            name="calm",
            input=InputSpec(seq_len=12, freq="1h"),
            output=OutputSpec(horizon=4),
            arch="segment",
            hyperparameters={"hidden": 8, "layers": 1, "dropout": 0.0, "location": "last", "segment": 4},
            trained_until=0,
            floors={"value": 0.1},
            spans={"value": 100.0},
        )
        self.model = exported(self.shared, card)
        self.write([*CALM[:-1], 1e9])


def lasting(to: Setting) -> None:
    to.write()
    to.options = ["--lateness", "12000d", "--waiting-limit", "2"]  # one for each of 100,000 series may wait


def crowded(to: Setting) -> None:
    to.write(CALM[:2], series="pump")
    to.write(CALM[:2], series="valve")
    to.options = ["--series-limit", "1"]


def hidden_twice(to: Setting) -> None:
    to.write_json(ts=START, flow=1.5)
    to.write_json(ts=START + HOUR, level=1.5)


def twin(to: Setting) -> None:
    to.join("twin")
    to.options = ["--instance", "twin"]


def both(*makers: Callable[[Setting], Any]) -> Callable[[Setting], None]:
    def make(to: Setting) -> None:
        for maker in makers:
            maker(to)

    return make


JITTER = 0.5 + np.random.default_rng(0).normal(0, 0.01, len(CALM))
SETTINGS: Mapping[str, Callable[[Setting], Any]] = {
    "the input is compacted": lambda to: to.create(to.topic, cleanup_policy="compact"),
    "the dead letters are compacted": lambda to: to.create(to.dead_letters, cleanup_policy="compact"),
    "the state topic is not compacted": lambda to: to.create(to.state),
    "the state topic is compacted and deletes": lambda to: to.create(
        to.state, cleanup_policy="compact,delete", retention_ms="86400000"
    ),
    "the broker has created a topic by itself, with the partitions of its default": lambda to: to.create(to.output, 1),
    "the state topic takes very small records only": lambda to: to.create(
        to.state, cleanup_policy="compact", max_message_bytes="1000"
    ),
    "the output takes smaller records than a forecast": lambda to: to.create(to.output, max_message_bytes="1000"),
    "the shadow's output takes smaller records than a forecast": both(
        Setting.shadow, lambda to: to.create(f"{to.output}-shadow", max_message_bytes="1000")
    ),
    "the dead letters take smaller records than the input": lambda to: to.create(
        to.dead_letters, max_message_bytes="100000"
    ),
    "the output refuses old times that the input takes": lambda to: to.create(
        to.output, message_timestamp_before_max_ms="86400000"
    ),
    "the output refuses times ahead that the input takes": lambda to: to.create(
        to.output, message_timestamp_after_max_ms="1000"
    ),
    "the state topic was deleted": lambda to: to.join().commit({0: Commit(0)}),
    "two models in one group": Setting.serve_another_model,
    "two processes with one instance's name": twin,
    "the model was refused before": Setting.refuse,
    "the model's outputs are not finite": lambda to: setattr(to, "model", to.onnx_file(NOT_FINITE)),
    "the model holds what none needs": Setting.leave_the_allowlist,
    "the model's file is not the one that was registered": Setting.replace_the_file,
    "the shadow's model takes other windows": Setting.shadow_with_other_windows,
    "the shadow's model is not there": lambda to: to.shadow(alias="challenger"),
    "a registered model, and no permission for its folder": both(Setting.serve_registered, Setting.close_home),
    "a model's file, and no permission for the home folder": Setting.close_home,
    "the events' times are not used": lambda to: to.write_json(value=1.5, measured="2024-01-01T00:00:00Z"),
    "the value can be read in two ways": hidden_twice,
    "the events are in Confluent's wire format": lambda to: to.send(to.topic, [b"\0\0\0\0\7\2\4"] * 30),
    "the events are around the border of two steps": lambda to: to.write(late=JITTER),
    "the events have another spacing than the model": lambda to: to.write(step=0.5),
    "a model of an earlier version, and values at a large level": lambda to: to.write(3e9 + CALM),
    "readings far from all others": Setting.spoil,
    "more series than may be": crowded,
    "more steps wait than may": lasting,
}
"""How each configuration of the table is made."""


@pytest.fixture
def setting(
    kafka_bootstrap: str,
    tidecast: Run,
    fresh: Fresh,
    own_model: Path,
    tmp_path: Path,
    tracking_uri: str,
    shared: Shared,
    onnx_file: OnnxFile,
) -> Iterator[Setting]:
    where = (tmp_path, tracking_uri, shared, onnx_file, tidecast)
    with ExitStack() as stack:
        log = stack.enter_context(closing(connect(kafka_bootstrap)))
        yield Setting(log, kafka_bootstrap, fresh("power"), own_model, *where, stack)


@pytest.mark.parametrize("configuration", SETTINGS)
def test_a_configuration_has_its_line(configuration: str, setting: Setting) -> None:
    if configuration != "the input is compacted":
        setting.create(setting.topic, retention_ms="-1")
    SETTINGS[configuration](setting)
    options = ("--topic", setting.topic, "--group", setting.group, "--model", setting.model, *setting.options)
    ended = setting.run("check", *options, "--bootstrap", setting.address, "--json")
    worst = [each for each in json.loads(ended.stdout)["findings"] if each["verdict"] != "ok"]
    assert ended.returncode == (os.EX_CONFIG if any(each["verdict"] == "wrong" for each in worst) else 0)
    line = LINES[configuration].strip("`") if "``" not in LINES[configuration] else LINES[configuration][3:-3]
    pattern = re.escape(line.replace("GROUP", setting.group).replace("TOPIC", setting.topic))
    (found,) = (each for each in worst if re.match(pattern.replace(re.escape("..."), ".+"), each["found"]))
    assert found["found"].isprintable(), "one line"
    refused = {each["found"].removesuffix("; serve refuses it") for each in worst if each["about"] == "topics"}
    if refused:
        served = setting.run("serve", *options, "--bootstrap", setting.address)
        assert served.returncode == os.EX_CONFIG
        assert any(f"tidecast: {each}" in served.stderr for each in refused)


def test_every_row_is_made() -> None:
    assert list(SETTINGS) == list(LINES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[serve]\nguarantee = 'often'", "guarantee"),
        ("[serve]\nstatic = true", "instance: --static needs the name"),
        ("[serve]\nfollow = '0s'", "follow: "),
        ("[serve]\nshadow = 'm.onnx'", "shadow: give NAME@ALIAS"),
        ("[serve]\nlate-topic = 'power'", "output, late-topic: power, "),
    ],
)
def test_a_setting_that_cannot_be_ends_check_as_it_ends_serve(tidecast: Run, settings: str, message: str) -> None:
    Path("tidecast.toml").write_text(f"topic = 'power'\nmodel = 'm'\n{settings}")
    checked, served = (tidecast(command) for command in ("check", "serve"))
    assert checked.returncode == served.returncode == os.EX_CONFIG
    assert checked.stderr == served.stderr
    assert message in checked.stderr
