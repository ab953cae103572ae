"""The page in a real Chromium, measured: first paint, live data, switching among many series, an hour's stream.

    PYTHONPATH=tests/support python benchmarks/page.py            needs Debian's chromium, or CHROMIUM=PATH

A SQLite log of 10,000 series, `tidecast dashboard` over it, and a headless browser. The hour is one series' 3,600,000
events at 1,000 a second, 500 a message as the server sends them twice a second, handed over as fast as the page takes
them; the heap is measured after a collection. About five minutes; one JSON object as its last line.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import uvicorn
from pages import HORIZON, START, Watched, Written
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from deploy.dashboard.app import STATIC

SERIES, STEPS, SWITCHES = 10_000, 12, 60
EVENTS, A_MESSAGE = 3_600_000, 500
SHARES = (0.1, 0.4, 0.7, 1.0)
MIB = 2**20
PATIENCE_MS = 120_000
SWITCH = """async ([name, value]) => {
  const { go } = await import("/js/state.js");
  const began = performance.now();
  go({ view: "series", series: name });
  const frame = () => new Promise(requestAnimationFrame);
  while (document.querySelector(".series-head dd")?.firstChild?.textContent !== value) await frame();
  await frame();
  return performance.now() - began;
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@contextmanager
def dashboard(log: str, *options: str) -> Iterator[str]:
    """`tidecast dashboard` over a log; its address."""
    command = [sys.executable, "-m", "tidecast", "dashboard", "--bootstrap", log, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process.stdout.readline().split()[0]
        process.terminate()


def many_series(browser: Browser, series: int) -> dict[str, Any]:
    """First paint, live data and switching."""
    with tempfile.TemporaryDirectory() as folder:
        names = [f"site-{number // 100}/pump-{number % 100:02d}" for number in range(series)]
        with closing(Written(f"sqlite:{folder}/log.db", names)) as written:
            written.write(STEPS)
            written.score()
            with dashboard(written.address) as address:
                watched = Watched()
                page = watched.over(browser.new_page())
                page.goto(address)
                expect(page.locator(".count")).to_have_text(f"{series:,} series", timeout=PATIENCE_MS)
                expect(page.locator("#foot")).to_contain_text("past read", timeout=PATIENCE_MS)
                found = opened(page, address, names[0])
                found |= switched(page, written)
                page.close()
                return found | {"said": watched.said, "hosts": len(watched.asked)}


def opened(page: Page, address: str, name: str) -> dict[str, float]:
    """From opening a page: its first paint, and a fleet's and a series' live data, in ms."""
    page.goto(address)
    page.wait_for_selector("table.fleet tbody tr:not(.spacer):not(.waiting)")
    fleet = page.evaluate("performance.now()")
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.goto(f"{address}?view=series&series={name}")
    page.wait_for_selector("#connection.live")
    page.wait_for_selector(".series-head dd")
    return {
        "first_paint_ms": round(paint),
        "fleet_ms": round(fleet),
        "live_ms": round(page.evaluate("performance.now()")),
    }


def switched(page: Page, written: Written) -> dict[str, float]:
    """From choosing a series until it is drawn, in ms."""
    rng = np.random.default_rng(0)
    numbers = rng.choice(len(written.series), SWITCHES, replace=False)
    spent = []
    for number in numbers.tolist():
        shown = f"{written.value(number, STEPS - 1):.4g}"
        spent.append(page.evaluate(SWITCH, [written.series[number], shown]))
    p50, p95, worst = (round(float(each), 1) for each in np.percentile(spent[5:], [50, 95, 100]))
    return {"switch_p50_ms": p50, "switch_p95_ms": p95, "switch_max_ms": worst}


class Hour:
    """The page's server, of one series that gets an event a millisecond, as fast as it is listened to."""

    def __init__(self, events: int) -> None:
        self.events, self.sent = events, 0

    def value(self, at: int) -> float:
        """Of an event."""
        return round(100 + 40 * float(np.sin(at / 5000)) + at % 7, 3)

    def forecast(self, at: int) -> dict[str, Any]:
        """Made at an event."""
        times = [START + at + k for k in range(1, HORIZON + 1)]
        values = [self.value(at)] * HORIZON
        bounds = {"lower": [each - 5 for each in values], "upper": [each + 5 for each in values]}
        about = {"ts": START + at, "start": times[0], "model": "pumps/1", "source": "model", "coverage": 0.9}
        return {**about, "times": times, "forecast": values, **bounds}

    def points(self, first: int, last: int) -> dict[str, Any]:
        """Events, and what a message has beside them."""
        at = range(first, last)
        values = {"ts": [START + each for each in at], "value": [self.value(each) for each in at]}
        anomalies = {"ts": [START + first], "score": [1.2]}
        return {"values": values, "anomalies": anomalies, "forecast": self.forecast(last - 1), "alerts": []}

    async def stream(self, _: Request) -> Response:
        """All events, each message once the one before is on its way."""

        async def messages() -> AsyncIterator[str]:
            for first in range(self.sent, self.events, A_MESSAGE):
                self.sent = first + A_MESSAGE
                yield f"event: points\ndata: {json.dumps(self.points(first, self.sent))}\n\n"
                await asyncio.sleep(0.005)
            await asyncio.sleep(3600)

        return StreamingResponse(messages(), media_type="text/event-stream")

    async def answer(self, request: Request) -> Response:
        """The page's other requests."""
        name = request.path_params["name"]
        if name == "overview":
            topics = {"topic": "pumps", "output": "pumps-forecasts", "log": "an hour", "version": "0"}
            state = {"task": "forecasts", "series": 1, "reading": {"caught_up": True}, "log_error": None}
            return JSONResponse({**topics, **state})
        if name == "ahead":
            at = range(max(0, self.sent - 2000), self.sent)
            values = [self.value(each) for each in at]
            ts = [START + each for each in at]
            return JSONResponse(
                {"k": 1, "ts": ts, "made": ts, "forecast": values, "lower": None, "upper": None, "model": []}
            )
        points = self.points(max(0, self.sent - 2000), max(1, self.sent))
        about = {
            "series": "one",
            "target": "value",
            "targets": ["value"],
            "horizon": HORIZON,
            "step": 1,
            "coverage": 0.9,
        }
        rest = {"swaps": [], "scores": {"overall": None, "by_step": [], "by_model": []}, "history": {"from": START}}
        return JSONResponse({**about, **points, **rest})

    @contextmanager
    def served(self) -> Iterator[str]:
        """The server's address."""
        routes = [Route("/api/stream", self.stream), Route("/api/{name}", self.answer)]
        app = Starlette(routes=[*routes, Mount("/", StaticFiles(directory=STATIC, html=True))])
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
        server.should_exit = True
        thread.join(5)


def an_hour(browser: Browser, events: int) -> dict[str, Any]:
    """The heap, elements and listeners of a page along an hour's stream."""
    hour, watched = Hour(events), Watched()
    with hour.served() as address:
        page = watched.over(browser.new_page())
        tools = page.context.new_cdp_session(page)
        tools.send("Performance.enable")
        page.goto(f"{address}?view=series&series=one")
        heaps, nodes, listeners = [], [], []
        for share in SHARES:
            while hour.sent < share * events:
                page.wait_for_timeout(200)
            shown = f"{hour.value(hour.sent - 1):.4g}" if share == 1 else ""
            expect(page.locator(".series-head dd").first).to_contain_text(shown, timeout=PATIENCE_MS)
            tools.send("HeapProfiler.collectGarbage")
            measured = {each["name"]: each["value"] for each in tools.send("Performance.getMetrics")["metrics"]}
            heaps.append(round(measured["JSHeapUsedSize"] / MIB, 1))
            nodes.append(int(measured["Nodes"]))
            listeners.append(int(measured["JSEventListeners"]))
        page.close()
    return {"events": events, "heap_mib": heaps, "nodes": nodes, "listeners": listeners, "hour_said": watched.said}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=SERIES)
    parser.add_argument("--events", type=int, default=EVENTS)
    given = parser.parse_args()
    with chromium() as browser:
        found = many_series(browser, given.series)
        print(found, file=sys.stderr, flush=True)
        found |= an_hour(browser, given.events)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
