"""The page over a real broker that is killed and comes back."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from dashboards import MINUTE, START, Page, StartPage, Writer, pages, streamed, value
from kafka import KafkaAdminClient, KafkaProducer
from waiting import until

from pipeline.log import Commit
from pipeline.log.connect import connect

pytestmark = pytest.mark.slow


@pytest.fixture
def start_page(tmp_path: Path) -> Iterator[StartPage]:
    yield from pages(tmp_path)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[str, Path, Path]]:
    """A broker of this test's own: its address, the program that runs it, and its folder."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME is not set")
    kafka, folder = Path(home) / "bin" / "kafka", tmp_path / "kafka"
    command = [str(kafka), "start", str(folder), "--port", str(free_port())]
    address = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    yield address, kafka, folder
    subprocess.run([kafka, "kill", folder], check=True)


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def newest(page: Page) -> list[float]:
    found: list[float] = page.get("series", series="good")["values"]["value"]
    return found


def test_the_page_goes_on_after_a_broker_was_killed(broker: tuple[str, Path, Path], start_page: StartPage) -> None:
    address, kafka, folder = broker
    with closing(connect(address)) as log:
        Writer(log).steps(range(3))
    page = start_page("--bootstrap", address)
    page.until_read()
    assert newest(page) == [value(0, step) for step in range(3)]
    with streamed(page, view="series", series="good") as events:
        assert next(body for name, body in events if name == "points")["values"]["ts"][-1] == START + 2 * MINUTE
        subprocess.run([kafka, "kill", folder], check=True)
        page.until(lambda page: page.get("overview")["log_error"] is not None)
        assert newest(page) == [value(0, step) for step in range(3)]
        assert next(body for name, body in events if name == "status" and body["log_error"])
        subprocess.run([kafka, "restart", folder], check=True, capture_output=True)
        with closing(connect(address)) as log:
            writer = Writer(log)
            writer.steps([3])
        times = (body["values"]["ts"] for name, body in events if name == "points")
        assert any(START + 3 * MINUTE in each for each in times)
    page.until(lambda page: page.get("overview")["log_error"] is None)
    assert newest(page) == [value(0, step) for step in range(4)]


def test_a_topic_that_is_made_anew_is_read_from_its_beginning(
    kafka_bootstrap: str, start_page: StartPage, fresh: Callable[[str], str]
) -> None:
    topic, group = fresh("tides"), fresh("group")
    with closing(connect(kafka_bootstrap)) as log, KafkaAdminClient(bootstrap_servers=kafka_bootstrap) as admin:
        Writer(log, topic, group).steps(range(3))
        page = start_page("--bootstrap", kafka_bootstrap, "--topic", topic, "--group", group)
        page.until_read()
        assert page.get("service")["members"] == []
        admin.delete_topics([topic])
        page.until(lambda page: page.get("overview")["topics"]["input"] is None)
        assert newest(page) == [value(0, step) for step in range(3)]
        Writer(log, topic, group).steps([3])
        page.until(lambda page: newest(page) == [value(0, step) for step in range(4)])


def test_a_topic_that_transactions_write_has_no_lag_once_its_records_are_read(
    kafka_bootstrap: str, start_page: StartPage, fresh: Callable[[str], str]
) -> None:
    topic, group = fresh("tides"), fresh("group")
    with closing(connect(kafka_bootstrap)) as log:
        Writer(log, topic, group)
        with closing(KafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=topic)) as producer:
            producer.init_transactions()
            producer.begin_transaction()
            for number in range(3):
                producer.send(topic, msgspec.json.encode({"series": "good", "ts": START + number, "value": 1.0}))
            producer.commit_transaction()
        assert log.bounds(topic)[0].end == 4, "a marker is behind the records"
        with closing(log.consumer(group, topic)) as consumer:
            until(lambda: bool(consumer.poll(0.2, 1).assigned))
            consumer.commit({0: Commit(3)})
        page = start_page("--bootstrap", kafka_bootstrap, "--topic", topic, "--group", group)
        page.until_read()
        assert page.get("service")["lag"] == {"total": 0, "by_partition": {"0": 0}}
