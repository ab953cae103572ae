"""Instances that are no other's, and groups that serve one model only."""

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import exported
from sharing import Shared
from waiting import PATIENCE_S, ended, until

from deploy.models.loading import load_onnx
from deploy.serving.identity import Family, fenced, instance_name
from deploy.settings.locations import home, set_home
from deploy.settings.serve import ServeConfig
from model.card import Card, InputSpec, OutputSpec, Setting
from pipeline.formats.events import Event, encode
from pipeline.log import EventLog
from pipeline.log.connect import connect
from tidecast.errors import ConsumerFenced, StateMismatch, UnknownTopic

Start = Callable[..., "subprocess.Popen[str]"]
Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]
Fresh = Callable[[str], str]

START, HOUR = 1_704_067_200_000, 3_600_000
SETTINGS: dict[str, Setting] = {"hidden": 8, "layers": 1, "dropout": 0.0, "location": "last", "segment": 4}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path) -> Iterator[None]:
    set_home(tmp_path / "home")
    yield
    set_home(None)


def model(shared: Shared, name: str = "power", horizon: int = 4) -> Path:
    inputs, outputs = InputSpec(seq_len=12, freq="1h"), OutputSpec(horizon=horizon)
    card = Card(name=name, input=inputs, output=outputs, arch="segment", hyperparameters=SETTINGS, trained_until=0)
    return exported(shared, card)


def test_two_processes_on_hosts_of_one_name_have_different_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """As two containers do, where each is process 1 of localhost, with a folder of its own or none."""
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    monkeypatch.setattr("os.getpid", lambda: 1)
    with instance_name("g") as one, instance_name("g") as another:
        assert one != another
        assert not home().exists(), "no folder is made for it"
    home().mkdir()
    with instance_name("g") as one:
        set_home(home().parent / "other")
        home().mkdir()
        with instance_name("g") as another:
            assert one != another


def test_a_name_is_kept_over_a_restart_and_is_nobody_else_s_meanwhile() -> None:
    home().mkdir()
    with instance_name("g") as first, instance_name("g") as second, instance_name("other") as third:
        assert len({first, second, third}) == 3
    with instance_name("g") as again, instance_name("g") as and_again:
        assert (again, and_again) == (first, second)
    (home() / "instances" / "g-0").write_bytes(b"\xff junk")
    with instance_name("g") as anew:
        assert anew not in (first, second)
    with instance_name("g") as kept:
        assert kept == anew


SECTIONS = st.builds(
    Family, name=st.sampled_from(["", "power", "heat"]), task=st.just("forecast"), forecast=st.just("4")
)


@given(SECTIONS, SECTIONS)
def test_a_family_refuses_another_name_but_no_missing_one(one: Family, other: Family) -> None:
    sections = {"model": other.section}
    if {one.name, other.name} == {"power", "heat"}:
        with pytest.raises(StateMismatch, match=r"group g serves .*: give it another --group; or reset this one"):
            one.check(sections, "g")
    else:
        one.check(sections, "g")
    one.check({}, "g")


def test_a_new_version_is_of_the_same_family_another_horizon_is_not(shared: Shared) -> None:
    family = Family.of(load_onnx(model(shared), "power/1"))
    assert family == Family.of(load_onnx(model(shared), "power/2"))
    family.check({"model": Family.of(load_onnx(model(shared), "power/7")).section}, "g")
    with pytest.raises(
        StateMismatch, match=r"serves power \(6 steps of value\), and this is power \(4 steps of value\)"
    ):
        family.check({"model": Family.of(load_onnx(model(shared, horizon=6), "power/8")).section}, "g")


def end(log: EventLog, topic: str) -> int:
    try:
        return sum(bounds.end for bounds in log.bounds(topic).values())
    except UnknownTopic:
        return 0


def fill(log: EventLog, topic: str, partitions: int) -> None:
    log.create_topic(topic, partitions)
    with closing(log.producer()) as producer:
        for hour in range(15):
            for partition in range(partitions):
                event = Event(f"pump-{partition}", START + hour * HOUR, (float(hour),))
                producer.send(topic, partition, event.series.encode(), encode(event))
        producer.flush()


@pytest.mark.slow
def test_two_models_in_one_group_are_refused(
    log_address: str, fresh: Fresh, shared: Shared, start_tidecast: Start, tidecast: Tidecast
) -> None:
    """The second finds the first one's mark, whether it gets a partition or waits for one."""
    topic = fresh("power")
    group = ("--group", f"{topic}-group", "--bootstrap", log_address, "--topic", topic)
    with closing(connect(log_address)) as log:
        fill(log, topic, 1)
        first = start_tidecast("serve", "--model", model(shared), *group)
        until(lambda: end(log, f"{topic}-forecasts") == 4, first)
        other = model(shared, "heat")
        code, _, said = ended(start_tidecast("serve", "--model", other, *group))
        mark = f"group {topic}-group serves power (4 steps of value), and this is heat (4 steps of value)"
        assert code == 78, said
        assert said.splitlines()[-1].startswith("tidecast: ")
        assert f"{mark}: give it another --group" in said.splitlines()[-1]
        assert first.poll() is None, "the first one goes on"
        findings = json.loads(tidecast("check", "--model", other, *group, "--json").stdout)["findings"]
        assert [each["verdict"] for each in findings if mark in each["found"]] == ["wrong"]
        first.terminate()
        assert first.wait(PATIENCE_S) == 0
        code, _, said = ended(start_tidecast("serve", "--model", other, *group))
        assert (code, mark in said) == (78, True), "after a restart too"


@pytest.mark.slow
def test_who_is_fenced_says_by_whom_and_what_to_do(
    kafka_bootstrap: str, fresh: Fresh, shared: Shared, start_tidecast: Start
) -> None:
    topic = fresh("power")
    options = ("--model", model(shared), "--group", f"{topic}-group", "--instance", "twin", "--topic", topic)
    with closing(connect(kafka_bootstrap)) as log:
        fill(log, topic, 2)
        first = start_tidecast("serve", *options, "--bootstrap", kafka_bootstrap, "--guarantee", "exactly-once")
        until(lambda: end(log, f"{topic}-group-state") > 0, first)
        start_tidecast("serve", *options, "--bootstrap", kafka_bootstrap, "--guarantee", "exactly-once")
        code, _, said = ended(first)
    assert code == 75
    line = said.splitlines()[-1]
    assert "another process" in line
    assert "give each process an --instance of its own" in line


def test_fencing_on_a_log_that_knows_no_members(tmp_path: Path) -> None:
    config = ServeConfig(topic="t", group="g", instance="twin")
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        for each in (config, replace(config, static=True)):
            said = str(fenced(ConsumerFenced("producer g-twin has been fenced"), log, each))
            assert said.startswith("producer g-twin has been fenced: another process took over; restart this one")
            assert said.endswith("give each process an --instance of its own")
