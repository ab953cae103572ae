"""The page as a process, over a log as services leave it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from dashboards import Page, StartPage, Writer, pages

from pipeline.log.connect import connect


@pytest.fixture
def start_page(tmp_path: Path) -> Iterator[StartPage]:
    """Start the page, on any free port."""
    yield from pages(tmp_path)


@pytest.fixture
def address(tmp_path: Path) -> str:
    """A new SQLite log's."""
    return f"sqlite:{tmp_path / 'log.db'}"


@pytest.fixture
def writer(address: str) -> Iterator[Writer]:
    """Writes to it."""
    with closing(connect(address)) as log:
        yield Writer(log)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page over a log with all that a service writes, read to its end."""
    folder = tmp_path_factory.mktemp("page")
    with closing(connect(f"sqlite:{folder / 'log.db'}")) as log:
        Writer(log).all()
    for start in pages(folder):
        page = start("--bootstrap", f"sqlite:{folder / 'log.db'}")
        page.until_read()
        yield page
