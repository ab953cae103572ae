"""What the page says is what is so: lines, ages, problems, periods."""

import json
import re
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from pages import HORIZON, START, STEP, Written
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow


def times_in_table(page: Page) -> list[str]:
    """The first column of the large chart's table."""
    rows = page.get_by_role("region", name="Values and forecasts over time, as a table").locator("tbody th")
    return rows.all_inner_texts()


def test_spans(page: Page, address: str, written: Written) -> None:
    """A length of time is chosen while the stream is followed: it acts at once, and goes on following."""
    page.goto(f"{address}?view=series&series=best")
    page.locator(".chart summary").first.click()
    presets = {"6 h": 12, "1 d": 48, "All": written.steps}
    for name, steps in presets.items():
        button = page.get_by_role("button", name=name, exact=True)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        rows = page.get_by_role("region", name="Values and forecasts over time, as a table").locator("tbody tr")
        expect(rows).to_have_count(min(steps + 1, written.steps) + HORIZON)
    page.get_by_role("button", name="6 h", exact=True).click()
    expect(rows).to_have_count(13 + HORIZON)
    oldest = times_in_table(page)[0]
    written.write(1)
    expect(rows.first).not_to_contain_text(oldest)
    expect(rows).to_have_count(13 + HORIZON)


def test_no_line_without_forecasts(page: Page, tmp_path: Path, dashboard: Callable[..., str]) -> None:
    """Hours for which nothing was forecast are empty, and why is said where one points."""
    with closing(Written(f"sqlite:{tmp_path / 'log.db'}", ["cold"])) as written:
        written.write(20)
        written.write(12, forecasts=False)
        written.write(20)
        page.goto(f"{dashboard(written.address)}?view=series&series=cold&span={100 * STEP}")
        chart = page.get_by_role("application", name="Values and forecasts over time")
        page.locator(".chart summary").first.click()
        rows = page.get_by_role("region", name="Values and forecasts over time, as a table").locator("tbody tr")
        expect(rows).to_have_count(52 + HORIZON)
        forecasts = [row.split("\t")[2] for row in rows.all_inner_texts()]
        assert [at for at, text in enumerate(forecasts) if not text.strip()] == [0, *range(21, 33)]
        chart.focus()
        chart.press("Home")
        for _ in range(25):
            chart.press("ArrowRight")
        expect(page.locator(".legend").first).to_contain_text("none was made")


def test_ages_grow(page: Page, address: str) -> None:
    """How long ago something was is kept true while one looks."""
    page.clock.install()
    page.goto(f"{address}?view=service")
    expect(page.locator("#connection")).to_have_text("Live")
    page.evaluate(
        "const it = document.createElement('p'); it.id = 'old'; it.dataset.ago = Date.now() - 60000;"
        "document.querySelector('main').append(it)"
    )
    page.clock.run_for(120_000)
    expect(page.locator("#old")).to_have_text("3 min ago")


def test_problem_everywhere(page: Page, address: str, written: Written) -> None:
    """What is wrong with the service is said in every view, with the way to where more is said."""
    for _ in range(200):
        written.dead_letter(b"{")
    page.goto(address)
    problem = page.locator("#problem")
    expect(problem).to_contain_text("refused", timeout=60_000)
    for view in ("models", "series&series=best"):
        page.goto(f"{address}?view={view}")
        expect(problem).to_contain_text("refused")
    problem.get_by_role("link").click()
    expect(page).to_have_url(re.compile("view=service"))
    expect(page.locator(".headline")).to_contain_text("refused")
    expect(page.locator(".headline-panel")).to_contain_text("1 sensor alert is open.")


def test_names_keep_their_room(page: Page, address: str) -> None:
    """However wide the window is, a series' name has room."""
    page.goto(address)
    name = page.locator("table.fleet tbody tr:not(.spacer) th").first
    expect(name).to_contain_text("worst pump")
    for width in (1440, 1280, 1024, 900, 768, 600, 380):
        page.set_viewport_size({"width": width, "height": 800})
        box = name.bounding_box()
        assert box is not None
        assert box["width"] > 120, width
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width


def test_bars_compare(page: Page, address: str, written: Written) -> None:
    """The bars of reasons are as long as their numbers, on tracks of one length."""
    for _ in range(3):
        written.dead_letter(b"{")
    page.goto(f"{address}?view=service")
    tracks = page.locator(".reason .reason-bar")
    expect(tracks.first).to_be_visible()
    widths = {round(box["width"]) for track in tracks.all() if (box := track.bounding_box())}
    assert len(widths) == 1


def test_alert_is_shown(page: Page, address: str, written: Written) -> None:
    """An open alert is listed above the fleet; its time on the series' page brings it in sight."""
    page.goto(address)
    alerts = page.locator(".open-alerts")
    expect(alerts).to_contain_text("1 alert is open")
    alerts.get_by_role("link", name="worst pump").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("worst pump")
    page.locator(".alerts").get_by_role("button").click()
    expect(page).to_have_url(re.compile("from="))
    begin, end = (int(found) for found in re.findall(r"(?:from|to)=(\d+)", page.url))
    assert begin < START + (written.steps - 7) * STEP < end


def test_csv(page: Page, address: str, written: Written) -> None:
    """What is in sight can be saved: each value with what was forecast for it."""
    page.goto(f"{address}?view=series&series=best")
    expect(page.locator(".ahead-result")).to_contain_text("MAE 1")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    assert download.value.suggested_filename == "best.csv"
    head, *rows = download.value.path().read_text("utf-8").splitlines()
    assert head.startswith("time,actual,forecast_1_ahead,")
    assert len(rows) == written.steps + HORIZON
    for before, after in pairwise(row.split(",")[0] for row in rows):
        assert before < after
    assert float(rows[1].split(",")[2]) - float(rows[1].split(",")[1]) == pytest.approx(1)


def test_period_follows(page: Page, address: str) -> None:
    """The period that skill is of goes with a reader from the fleet to a series, and is said there."""
    page.goto(f"{address}?since=24+h")
    first = page.locator("table.fleet tbody tr:not(.spacer)").first
    expect(first.locator(".skill-text")).to_have_text("0.00")
    skill = page.locator(".series-head .fact").filter(has_text="Skill")
    first.locator("a").click()
    expect(skill).to_contain_text("of the last 24 h")
    expect(skill.locator("dd")).to_contain_text(re.compile("^0.00"))
    page.go_back()
    expect(first.locator("a")).to_be_focused()
    assert json.dumps(page.url).count("row=") == 1
