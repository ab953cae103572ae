"""The table "Found beforehand" of docs/operations.md: each configuration, set up for real, has its line in `check`."""

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from waiting import until

from pipeline.formats.events import Event, encode
from pipeline.log import Commit, EventLog
from pipeline.log.connect import connect

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Fresh = Callable[[str], str]

DOCS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
TABLE = DOCS.read_text().partition("### Found beforehand")[2].partition("\n## ")[0]
LINES = dict(re.findall(r"^\| (?!configuration)([^|]+) \| `([^`]+)` \|$", TABLE, re.MULTILINE))
"""The line of each configuration; `...` stands for any text."""
START, HOUR = 1_704_067_200_000, 3_600_000


class Setting:
    """A topic, a group and a model, which a configuration is made of."""

    def __init__(self, log: EventLog, address: str, topic: str) -> None:
        self.log, self.address, self.topic, self.options = log, address, topic, list[str]()
        self.output, self.group = f"{topic}-forecasts", f"{topic}-group"
        self.state, self.dead_letters = f"{self.group}-state", f"{self.group}-dead-letters"

    def create(self, topic: str, **settings: str) -> None:
        configs = {name.replace("_", "."): value for name, value in settings.items()}
        with KafkaAdminClient(bootstrap_servers=self.address) as admin:
            admin.create_topics({topic: {"num_partitions": 1, "configs": configs}})

    def commit(self) -> None:
        with closing(self.log.consumer(self.group, self.topic)) as consumer:
            until(lambda: bool(consumer.poll(0.5, 1).assigned))
            consumer.commit({0: Commit(0)})

    def write(self) -> None:
        with closing(self.log.producer()) as producer:
            for hour in range(30):
                producer.send(self.topic, 0, b"pump", encode(Event("pump", START + hour * HOUR, (1.0,))))
            producer.flush()


def lasting(setting: Setting) -> None:
    setting.write()
    setting.options = ["--lateness", "12000d", "--waiting-limit", "2"]  # one for each of 100,000 series may wait


SETTINGS: Mapping[str, Callable[[Setting], Any]] = {
    "the input is compacted": lambda to: to.create(to.topic, cleanup_policy="compact"),
    "the dead letters are compacted": lambda to: to.create(to.dead_letters, cleanup_policy="compact"),
    "the state topic is not compacted": lambda to: to.create(to.state),
    "the state topic is compacted and deletes": lambda to: to.create(
        to.state, cleanup_policy="compact,delete", retention_ms="86400000"
    ),
    "the state topic takes very small records only": lambda to: to.create(
        to.state, cleanup_policy="compact", max_message_bytes="1000"
    ),
    "the output takes smaller records than a forecast": lambda to: to.create(to.output, max_message_bytes="1000"),
    "the dead letters take smaller records than the input": lambda to: to.create(
        to.dead_letters, max_message_bytes="100000"
    ),
    "the output refuses old times that the input takes": lambda to: to.create(
        to.output, message_timestamp_before_max_ms="86400000"
    ),
    "the output refuses times ahead that the input takes": lambda to: to.create(
        to.output, message_timestamp_after_max_ms="1000"
    ),
    "the state topic was deleted": lambda to: to.commit(),
    "more steps wait than may": lasting,
}
"""How each configuration of the table is made."""


@pytest.mark.parametrize("configuration", SETTINGS)
def test_a_configuration_has_its_line(
    configuration: str, kafka_bootstrap: str, tidecast: Run, fresh: Fresh, own_model: Path
) -> None:
    with closing(connect(kafka_bootstrap)) as log:
        setting = Setting(log, kafka_bootstrap, fresh("power"))
        if configuration != "the input is compacted":
            setting.create(setting.topic, retention_ms="-1")
        SETTINGS[configuration](setting)
        options = ("--topic", setting.topic, "--group", setting.group, "--model", own_model, *setting.options)
        found = json.loads(tidecast("check", *options, "--bootstrap", kafka_bootstrap, "--json").stdout)["findings"]
        worst = [each for each in found if each["verdict"] != "ok"]
        line = LINES[configuration].replace("GROUP", setting.group).replace("TOPIC", setting.topic)
        pattern = re.escape(line).replace(re.escape("..."), ".+")
        assert [each for each in worst if re.match(pattern, each["found"])], worst
        refused = {each["found"].removesuffix("; serve refuses it") for each in worst if each["about"] == "topics"}
        if refused:
            served = tidecast("serve", *options, "--bootstrap", kafka_bootstrap)
            assert served.returncode == 78
            assert any(f"tidecast: {each}" in served.stderr for each in refused)


def test_every_row_is_made() -> None:
    assert set(SETTINGS) == set(LINES)
