"""The pictures of the README: the demo's page, light and dark, into docs/pictures/.

make screenshots            needs Debian's chromium, or CHROMIUM=PATH; the font Inter, if it is there
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from page import chromium, dashboard
from PIL import Image
from playwright.sync_api import Browser, ViewportSize, expect

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
VIEW = "?view=series&series=nyc_taxi&k=12"
SIZE: ViewportSize = {"width": 1280, "height": 900}
MARGIN = 16


def picture(browser: Browser, address: str, theme: Literal["light", "dark"]) -> Path:
    """The series of the demo, in a theme."""
    path = PICTURES / f"page-{theme}.png"
    with browser.new_context(viewport=SIZE, color_scheme=theme, timezone_id="UTC") as context:
        page = context.new_page()
        page.goto(f"{address}{VIEW}")
        expect(page.locator("#foot")).to_contain_text("past read")
        expect(page.locator(".ahead-result")).to_contain_text("MAE")
        chart = page.locator(".panel").first.bounding_box()
        assert chart
        height = chart["y"] + chart["height"] + MARGIN
        page.screenshot(path=path, clip={"x": 0, "y": 0, "width": SIZE["width"], "height": height})
    with Image.open(path) as taken:
        few = taken.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    return path


def main() -> None:
    """Run the demo to its end, and show what it left."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "tidecast", "demo", "--once"], cwd=folder, check=True)
        with dashboard(f"sqlite:{folder}/.tidecast/log.db", "--from", "3650d") as address, chromium() as browser:
            for path in (picture(browser, address, "light"), picture(browser, address, "dark")):
                print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
