"""What people do on the page, in a real Chromium."""

import re
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from pages import START, STEP, Written
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow
MINUS = "\N{MINUS SIGN}"
HOSTILE = "<img src=x onerror=alert(1)>"


def fact(page: Page, name: str) -> str:
    """One of the numbers in the head of a series."""
    return page.locator(".series-head .fact", has_text=name).locator("dd").inner_text().split("\n")[0]


def test_live(page: Page, address: str, written: Written) -> None:
    """Values and forecasts that come in are shown by themselves, as long as one looks."""
    page.goto(f"{address}?view=series&series=worst+pump")
    expect(page.locator("#connection")).to_have_text("Live")
    newest = page.locator(".series-head .fact").filter(has_text="Newest value").locator("dd")
    for _ in range(3):
        expect(newest).to_contain_text(f"{written.value(0, written.steps - 1):.4g}")
        written.write(1)
    expect(newest).to_contain_text(f"{written.value(0, written.steps - 1):.4g}")
    assert fact(page, "Next step") == f"{written.value(0, written.steps) + 1:.4g}"


def test_fleet(page: Page, address: str) -> None:
    """The worst series is first; what is searched and sorted is in the address, and back goes back."""
    page.goto(address)
    first = page.locator("table.fleet tbody tr:not(.spacer)").first
    expect(first).to_contain_text("worst pump")
    expect(first).to_contain_text("level shift")
    expect(page.locator(".count")).to_have_text("41 series")
    page.get_by_label("sort by").select_option("name")
    expect(first).to_contain_text(HOSTILE)
    page.get_by_label("Search the series").fill("PUMP-7")
    expect(page.locator(".count")).to_have_text("4 of 41 series")
    expect(page).to_have_url(re.compile("q=PUMP-7"))
    first.locator("a").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("site-0/pump-7")
    page.go_back()
    expect(page.locator(".count")).to_have_text("4 of 41 series")
    page.get_by_label("Search the series").fill("nowhere")
    expect(page.locator(".empty-what")).to_contain_text("No series has “nowhere” in its name.")


def test_skill_since(page: Page, address: str) -> None:
    """The skill of the last hours is that of the buckets in them, counted from the newest value."""
    page.goto(address)
    skill = page.locator("table.fleet tbody tr:not(.spacer)").first.locator(".skill-text")
    expect(skill).to_have_text("\N{MINUS SIGN}0.20")
    page.get_by_role("group", name="Skill of the last").get_by_role("button", name="24 h").click()
    expect(skill).to_have_text("0.00")


def test_names_and_letters_of_others(page: Page, address: str) -> None:
    """A series' name and a dead letter are text: no HTML, no terminal escapes."""
    page.goto(f"{address}?view=series&series={quote(HOSTILE)}")
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    page.goto(f"{address}?view=service")
    letter = page.locator(".letters li").first
    expect(letter).to_contain_text("<img src=x onerror=alert(2)>")
    expect(letter).to_contain_text("malformed json")
    assert "\x1b" not in letter.inner_text()
    assert page.locator("main img").count() == 0


def test_forecast_from_here(page: Page, address: str, written: Written) -> None:
    """A point that is picked by keys shows the forecast made there, and all that were made for its time."""
    page.goto(f"{address}?view=series&series=best")
    expect(page.locator(".ahead-result")).to_contain_text("MAE")
    chart = page.get_by_role("application", name="Values and forecasts over time")
    chart.focus()
    for key in ("Home", "Shift+ArrowRight", "ArrowRight"):
        chart.press(key)
    expect(page.locator("#announcer")).to_contain_text("actual")
    chart.press("Enter")
    expect(page).to_have_url(re.compile("origin="))
    made, made_for = (page.locator(".columns > .panel").nth(at) for at in (0, 1))
    expect(made).to_contain_text("tidecast explain pumps-forecasts 0 ")
    expect(made.locator("tbody tr")).to_have_count(4)
    for table in (made, made_for):  # each forecast is too high by its steps: one sign in both
        errors = [each.split("\t")[4] for each in table.locator("tbody tr").all_inner_texts()]
        assert [float(error.replace(MINUS, "-")) for error in errors] == [-1, -2, -3, -4]
    expect(made_for.locator("tbody tr")).to_have_count(4)
    expect(made_for).to_contain_text("3 of 4")  # four steps ahead it is too high by four, and bounds are three away
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the link to this view").click()
    expect(page.locator("#announcer")).to_contain_text("copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert re.search(r"origin=\d+&from=\d+&to=\d+", link), link  # the time in sight stays, whatever comes
    page.goto(link)
    expect(page.locator(".columns > .panel").first).to_contain_text("tidecast explain")
    page.keyboard.press("Escape")
    expect(page.locator(".columns > .panel").first).to_be_hidden()


def test_typed_time(page: Page, address: str, written: Written) -> None:
    """What was forecast for a time is a question that can be typed, in the zone that the page shows."""
    page.goto(f"{address}?view=series&series=best")
    when = datetime.fromtimestamp((START + 10 * STEP) / 1000, ZoneInfo("Europe/Berlin"))
    field = page.get_by_label("What was forecast for")
    expect(field).not_to_have_value("")
    field.fill(when.strftime("%Y-%m-%dT%H:%M"))
    made_for = page.locator(".columns > .panel").nth(1)
    expect(made_for).to_contain_text(f"{written.value(40, 10):.4g}")
    expect(made_for.locator("tbody tr")).to_have_count(4)


def test_steps_ahead(page: Page, address: str) -> None:
    """The slider chooses how far ahead the past's forecasts were made: here each is off by its steps."""
    page.goto(f"{address}?view=series&series=best")
    result = page.locator(".ahead-result")
    for k in (1, 2, 3):
        expect(result).to_contain_text(f"In the chart: MAE {k}, 100.0 % of ")
        page.get_by_label("Past forecasts, made").press("ArrowRight")
    expect(result).to_contain_text("In the chart: MAE 4, 0.0 % of ")
    expect(page).to_have_url(re.compile("k=4"))
    expect(page.locator(".legend")).to_contain_text(["forecast 4 steps ahead"])


def test_zoom(page: Page, address: str) -> None:
    """Drag, buttons and keys choose the time in sight, which is in the address; Live follows the stream again."""
    page.goto(f"{address}?view=series&series=best")
    over = page.locator(".plot .u-over").first
    expect(over).to_be_visible()
    box = over.bounding_box()
    assert box
    page.mouse.move(box["x"] + 100, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 60, steps=4)
    page.mouse.up()
    expect(page).to_have_url(re.compile("from=\\d+&to=\\d+"))
    before = page.url
    page.get_by_role("button", name="Later").click()
    expect(page).not_to_have_url(before)
    live, everything = (page.get_by_role("button", name=name, exact=True) for name in ("Live", "All"))
    live.click()
    expect(page).not_to_have_url(re.compile("from="))
    expect(live).to_have_attribute("aria-pressed", "true")
    everything.click()
    expect(everything).to_have_attribute("aria-pressed", "true")
    expect(live).to_have_attribute("aria-pressed", "false")


def test_a_bad_series_says_why(page: Page, address: str) -> None:
    """Where it is worse than the naive forecast, and which version is."""
    page.goto(f"{address}?view=series&series=worst+pump")
    why = page.locator(".why")
    expect(why).to_contain_text("Worse than the naive forecast")
    expect(why).to_contain_text(re.compile(r"Skill of .+, of .+ before it"))


def test_the_arrows_begin_with_the_first_row(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator(".count")).to_have_text("41 series")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("worst pump")


def test_all_by_keys(page: Page, address: str) -> None:
    """From the fleet to a series, to the next one, to the other views, and to the keys' own list."""
    page.goto(address)
    expect(page.locator(".count")).to_have_text("41 series")
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_have_text(HOSTILE)
    page.keyboard.press("[")
    expect(heading).to_have_text("worst pump")
    page.keyboard.press("]")
    expect(heading).to_have_text(HOSTILE)
    page.keyboard.press("/")
    page.keyboard.type("pump-3")
    expect(page.get_by_role("option")).to_have_count(4)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(heading).to_have_text("site-0/pump-3")
    for key, view in (("3", "models"), ("4", "service"), ("1", "fleet")):
        page.keyboard.press(key)
        expect(page).to_have_url(re.compile(f"view={view}"))
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Keys and terms")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_swap(page: Page, address: str) -> None:
    """The last swap is said, and both versions stand beside each other, with how many values their skills are of."""
    page.goto(f"{address}?view=models")
    expect(page.locator(".headline-more")).to_contain_text("pumps/2 took over from pumps/1")
    expect(page.locator(".headline")).to_have_text("Yes: skill rose.")
    expect(page.locator(".headline-panel .facts")).to_contain_text("4,920 values")
    expect(page.locator(".headline-panel .fact")).to_contain_text(["Before, skill", "After, skill", "Difference"])
    rows = page.get_by_role("region", name="Live scores by version, table").locator("tbody tr")
    for row, version, skill in zip((0, 1), ("pumps/1", "pumps/2"), ("+0.11", "+0.41"), strict=True):
        expect(rows.nth(row)).to_contain_text(version)
        expect(rows.nth(row)).to_contain_text(skill)
        expect(rows.nth(row)).to_contain_text("4,920")


def test_theme_and_zone(page: Page, address: str) -> None:
    """Both are kept over a reload; the axis says which zone its times are of."""
    page.goto(f"{address}?view=series&series=best")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.keyboard.press("t")
    page.keyboard.press("z")
    page.reload()
    expect(page.locator("#zone")).to_have_text("UTC")
    assert page.evaluate(background) != light
    page.locator(".chart summary").first.click()
    expect(page.locator(".chart").first).to_contain_text("Times are UTC.")


def test_ten_thousand(page: Page, tmp_path: Path, dashboard: Callable[..., str]) -> None:
    """Of 10,000 series only those in sight are elements; the last one is a key away."""
    with closing(
        Written(f"sqlite:{tmp_path / 'log.db'}", [f"pump-{number:05d}" for number in range(10_000)])
    ) as written:
        written.write(2)
        page.goto(f"{dashboard(written.address)}?sort=name")
        expect(page.locator(".count")).to_have_text("10,000 series")
        rows = page.locator("table.fleet tbody tr:not(.spacer)")
        rows.first.locator("a").focus()
        page.keyboard.press("End")
        expect(rows.last).to_contain_text("pump-09999")
        assert rows.count() < 60
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("pump-09999")
        assert fact(page, "Newest value") == f"{written.value(9999, 1):.4g}"
