"""The page by a screen reader, in both themes, and on a phone."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import Watched
from playwright.sync_api import Browser, Page, ViewportSize, expect

from pipeline.formats.headers import INPUT, OFFSETS
from pipeline.formats.labels import Label
from pipeline.log.connect import connect

pytestmark = pytest.mark.slow
VIEWS = ("view=fleet", "view=series&series=worst+pump&origin=1795050000000", "view=models", "view=service")
WIDTHS: dict[str, ViewportSize] = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 380, "height": 800}}


@pytest.fixture(params=[(theme, width) for theme in ("light", "dark") for width in WIDTHS])
def any_page(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Page]:
    """A page of either theme and width."""
    theme, width = request.param
    with chromium.new_context(
        viewport=WIDTHS[width], color_scheme=theme, reduced_motion="reduce", bypass_csp=True
    ) as context:
        yield Watched().over(context.new_page())


def violations(page: Page) -> list[str]:
    """What axe-core finds, one line each."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


def settled(page: Page) -> None:
    """Wait until a view is filled."""
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.locator("main h1")).to_be_visible()
    page.wait_for_load_state("load")


def test_no_violations(any_page: Page, address: str) -> None:
    """Axe-core finds nothing in any view, with everything unfolded; nothing is wider than the window."""
    for view in VIEWS:
        any_page.goto(f"{address}?{view}")
        settled(any_page)
        for summary in any_page.locator("main details:not([open]) > summary").filter(visible=True).all()[::-1]:
            summary.click()
        assert violations(any_page) == [], view
        assert any_page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    any_page.keyboard.press("?")
    assert violations(any_page) == [], "help"


def test_texts(page: Page, tmp_path: Path, dashboard: Callable[..., str]) -> None:
    """A classifier's topic has a view of its own: newest answers, labels over time, confidence."""
    address = f"sqlite:{tmp_path / 'texts.db'}"
    with closing(connect(address)) as log, closing(log.producer()) as producer:
        for name in ("messages", "messages-labels"):
            log.create_topic(name, 1)
        encode, number = msgspec.json.Encoder().encode, count()
        for label, probability in (("ham", 0.9), ("spam", 0.7), ("ham", 0.6)):
            key = f"m{next(number)}"
            text = {"id": key, "text": f"<b>{key}</b> of {label}"}
            producer.send("messages", 0, key.encode(), encode(text))
            origin = [(INPUT, b"messages/0"), (OFFSETS, f"{key[1:]}-{key[1:]}".encode())]
            value = encode(Label(key, label, probability, "spam/2"))
            producer.send("messages-labels", 0, key.encode(), value, headers=origin)
        producer.flush()
        page.goto(dashboard(address))
        answers = page.get_by_role("region", name="Newest answers, table").locator("tbody tr")
        expect(answers).to_have_count(3)
        expect(answers.first).to_contain_text("<b>m2</b> of ham")
        newest = page.get_by_role("heading", name="Newest answers")
        box = newest.bounding_box()
        assert box is not None
        assert box["y"] < 700, "on the first screen"
        page.get_by_role("button", name="spam").click()
        expect(answers).to_have_count(1)
        expect(newest).to_have_text("Newest answers: spam")
        expect(page.locator(".texts-over .legend")).to_contain_text("spam, so far")
        expect(page.locator(".histogram-ends")).to_have_text("50 %75 %100 %")
        expect(page.locator(".confidence")).to_contain_text("the answer spam, over 1 text.")
        settled(page)
    assert violations(page) == []
