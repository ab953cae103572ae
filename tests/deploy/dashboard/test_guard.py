"""Who may ask the page for what."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dashboards import Page, StartPage, Writer

PATHS = ("/", "/api/overview", "/api/none", "/none.js", "/api/stream?view=none")


@pytest.fixture
def page(start_page: StartPage, address: str) -> Page:
    return start_page("--bootstrap", address, "--topic", "tides")


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_the_headers_that_keep_scripts_of_others_out(shown: Page, path: str) -> None:
    headers = shown.ask(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/api/overview"])
def test_nothing_can_be_changed(shown: Page, path: str, method: str) -> None:
    answer = shown.ask(path, method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert shown.ask(path, method="HEAD").status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8765"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8765"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
    ],
)
def test_pages_of_others_get_nothing(shown: Page, headers: dict[str, str], status: int) -> None:
    for path in ("/", "/api/overview"):
        assert shown.ask(path, headers=headers).status == status


def test_a_name_can_be_let_through(start_page: StartPage, writer: Writer, address: str) -> None:
    page = start_page("--bootstrap", address, "--topic", "tides", "--allowed-hosts", "tides.example")
    assert page.ask("/api/overview", headers={"Host": "tides.example"}).status == 200
    assert page.ask("/api/overview", headers={"Host": "evil.example"}).status == 403


def test_with_a_token_only_who_has_it_may_look(
    start_page: StartPage, writer: Writer, address: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    page = start_page(*("--bootstrap", address, "--topic", "tides", "--host", "0.0.0.0"), "--token-file", "token")
    for path in ("/", "/api/overview", "/api/stream", "/?token=other"):
        assert page.ask(path).status == 401
    assert page.ask("/api/overview?token=s3cret").status == 401  # it would stay in the address
    assert page.ask("/api/overview", headers={"Authorization": "Bearer s3cret"}).status == 200
    entered = page.ask("/?view=series&series=a%26b&token=s3cret")
    assert (entered.status, entered.headers["location"]) == (303, "/?view=series&series=a%26b")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert page.ask("/", headers={"Cookie": cookie.partition(";")[0]}).status == 200
    page.process.terminate()
    page.process.wait()
    assert "s3cret" not in (tmp_path / "err.log").read_text()


def test_elsewhere_than_on_this_machine_a_token_is_needed(tidecast: Callable[..., Any], address: str) -> None:
    ended = tidecast("dashboard", "--bootstrap", address, "--host", "0.0.0.0", "--port", "0")
    assert ended.returncode == os.EX_CONFIG
    assert "--token-file" in ended.stderr


def test_a_port_in_use_is_said(tidecast: Callable[..., Any], address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = tidecast("dashboard", "--bootstrap", address, "--port", taken.getsockname()[1])
    assert ended.returncode == os.EX_OSERR
    assert len(ended.stderr.splitlines()) == 1


def test_without_the_extra_the_way_out_is_said(start_tidecast: Callable[..., Any], address: str) -> None:
    process = start_tidecast("dashboard", "--bootstrap", address, without=("uvicorn",))
    _, err = process.communicate()
    assert process.returncode == os.EX_UNAVAILABLE
    assert "its extra [dashboard]" in err


def test_it_runs_where_only_serving_does(start_tidecast: Callable[..., Any], writer: Writer, address: str) -> None:
    absent = ("torch", "polars", "matplotlib", "scipy", "sklearn")
    process = start_tidecast("dashboard", "--bootstrap", address, "--port", 0, without=absent)
    page = Page(process.stdout.readline().strip(), process)
    assert page.get("overview")["topic"] == "tides"
