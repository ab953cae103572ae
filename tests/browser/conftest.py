"""The page in a real Chromium: over topics as a service leaves them, and watched for what must never happen."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from pages import Watched, Written
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: this needs Debian's package chromium, or CHROMIUM=PATH")
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    """Some series with forecasts of two versions, scores, an alert and a dead letter, in a SQLite log."""
    names = [
        "worst pump",
        "<img src=x onerror=alert(1)>",
        *(f"site-{n // 10}/pump-{n % 10}" for n in range(38)),
        "best",
    ]
    with closing(Written(f"sqlite:{tmp_path / 'log.db'}", names)) as written:
        written.write(80)
        written.score()
        written.alert(0, "worst pump: the level rose by 9, from about 100 to 109")
        written.dead_letter(b"{\x1b[31m <img src=x onerror=alert(2)> \xff")
        yield written


@pytest.fixture
def dashboard(start_tidecast: Callable[..., "subprocess.Popen[str]"]) -> Callable[..., str]:
    """Starts `tidecast dashboard` over a log; its address."""

    def start(log: str, *options: object, port: int = 0) -> str:
        process = start_tidecast("dashboard", "--bootstrap", log, "--port", port, *options)
        assert process.stdout
        address = process.stdout.readline().split()
        assert address, process.communicate()[1]
        return address[0]

    return start


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens at, nor at the next one, which the broker takes for its controller."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with suppress(OSError):
                second.bind(("127.0.0.1", port + 1))
                return port


@pytest.fixture
def address(written: Written, dashboard: Callable[..., str]) -> str:
    """The page over `written`."""
    return dashboard(written.address)


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser of its own: a laptop's window, in Berlin."""
    with chromium.new_context(viewport={"width": 1280, "height": 800}, timezone_id="Europe/Berlin") as context:
        context.set_default_timeout(30_000)
        yield context


@pytest.fixture
def watched() -> Watched:
    """What pages did that they must not."""
    return Watched()


@pytest.fixture
def page(context: BrowserContext, watched: Watched) -> Iterator[Page]:
    """A page that says nothing on its console, and asks its own server only."""
    page = watched.over(context.new_page())
    yield page
    assert watched.said == []
    assert len(watched.asked) == 1
