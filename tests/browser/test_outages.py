"""The page while its server, or the broker behind that, is away."""

import os
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from pages import Written
from playwright.sync_api import BrowserContext, expect

pytestmark = pytest.mark.slow


def test_server_restarts(context: BrowserContext, written: Written, start_tidecast: Callable[..., "subprocess.Popen[str]"], unused_port: int) -> None:
    """The page says that it reconnects, and goes on when its server is back."""
    page, command = context.new_page(), ("dashboard", "--bootstrap", written.address, "--port", unused_port)
    server = start_tidecast(*command)
    assert server.stdout
    address = server.stdout.readline().split()[0]
    page.goto(f"{address}?view=series&series=best")
    state, newest = page.locator("#connection"), page.locator(".series-head .fact").filter(has_text="Newest value")
    expect(state).to_have_text("Live")
    server.kill()
    expect(state).to_have_text("Reconnecting")
    written.write(1)
    again = start_tidecast(*command)
    assert again.stdout
    again.stdout.readline()
    expect(state).to_have_text("Live")
    expect(newest).to_contain_text(f"{written.value(40, written.steps - 1):.4g}")


@pytest.mark.filterwarnings(  # kafka-python leaves a socket that could not connect to the collector
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_broker_restarts(context: BrowserContext, tmp_path: Path, dashboard: Callable[..., str], unused_port: int) -> None:
    """The page says that the broker is not reachable, keeps what it has, and goes on when the broker is back."""
    if not (home := os.environ.get("KAFKA_HOME")):
        pytest.skip("KAFKA_HOME is not set: this needs Apache Kafka, its bin/kafka and a Java to run it")
    kafka, folder = Path(home) / "bin" / "kafka", tmp_path / "kafka"

    def broker(*arguments: object) -> None:
        subprocess.run([kafka, *map(str, arguments)], check=True, capture_output=True)

    broker("start", folder, "--port", unused_port)
    try:
        with closing(Written(f"127.0.0.1:{unused_port}", ["one", "two"])) as written:
            written.write(50)
            page = context.new_page()
            page.goto(f"{dashboard(written.address, '--from', '3650d')}?view=series&series=two")
            state, newest = page.locator("#connection"), page.locator(".series-head .fact").filter(has_text="Newest value")
            expect(newest).to_contain_text(f"{written.value(1, 49):.4g}")
            broker("kill", folder, 0)
            expect(state).to_have_text("Broker not reachable", timeout=120_000)
            expect(page.locator("#notice")).to_be_visible()
            expect(newest).to_contain_text(f"{written.value(1, 49):.4g}")
            broker("restart", folder, 0)
            written.write(1)
            expect(newest).to_contain_text(f"{written.value(1, 50):.4g}", timeout=60_000)
            expect(state).to_have_text("Live", timeout=60_000)
    finally:
        broker("kill", folder)
