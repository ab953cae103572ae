"""Where HTTP servers listen, and who may ask them."""

import socket
from pathlib import Path

import pytest

from deploy.web import Access, listen, parse_address, read_token
from tidecast.errors import AddressInUse, ConfigError, NotPermitted


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9464", ("127.0.0.1", 9464)),
        ("localhost:0", ("localhost", 0)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:9464", ("::1", 9464)),
        ("serve-1.example.org:65535", ("serve-1.example.org", 65535)),
    ],
)
def test_an_address_has_a_host_and_a_port_and_is_the_loopback_one_without_a_host(
    text: str, address: tuple[str, int]
) -> None:
    assert parse_address("http", text) == address


@pytest.mark.parametrize(
    "text",
    ["", "9464", "localhost", "localhost:", ":65536", "::1:9464", "[::z]:1", "[1]:1", "a b:1", "http://a:1", ":²"],
)
def test_what_is_no_address_names_the_option_and_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^http: "):
        parse_address("http", text)


def test_a_port_alone_is_asked_about() -> None:
    with pytest.raises(ConfigError, match="did you mean :9464"):
        parse_address("http", "9464")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "serve", "localhost.example.org"])
def test_a_host_that_others_reach_wants_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match=r"--token-file.*TIDECAST_TOKEN"):
        Access.of(host, "")
    assert Access.of(host, "secret")


def test_on_the_loopback_address_only_names_of_this_machine_are_taken() -> None:
    access = Access.of("127.0.0.1", "", ["Page.example.org"])
    for header in (
        "localhost",
        "LOCALHOST:80",
        "localhost.:80",
        "127.0.0.1:9464",
        "[::1]:9464",
        "page.example.org:443",
    ):
        assert access.allows_host(header), header
    for wrong in (None, "", ":80", "evil.example.org", "localhost.evil.org", "127.0.0.1.evil.org:80", "a@localhost"):
        assert not access.allows_host(wrong), wrong


def test_elsewhere_any_name_is_taken_unless_some_are_named() -> None:
    assert Access.of("0.0.0.0", "secret").allows_host("tasks.serve:9464")
    named = Access.of("0.0.0.0", "secret", ["serve"])
    assert named.allows_host("serve:9464")
    assert named.allows_host("localhost:9464")  # a probe in the same container
    assert not named.allows_host("evil.example.org")


def test_a_token_is_taken_from_a_header_or_a_cookie_and_never_shown() -> None:
    access = Access.of("0.0.0.0", "s3cret")
    assert access.allows_token("Bearer s3cret")
    assert access.allows_token("bearer  s3cret")
    assert access.allows_token(None, "s3cret")
    for wrong in (None, "", "s3cret", "Basic s3cret", "Bearer", "Bearer s3cre", "Bearer s3cret2", "Bearer é"):
        assert not access.allows_token(wrong), wrong
    assert not access.allows_token(None, "s3cre")
    assert not access.allows_token(None, "é")
    assert "s3cret" not in repr(access)
    assert Access.of("localhost", "").allows_token(None)


def test_only_pages_of_this_server_may_ask() -> None:
    access = Access.of("127.0.0.1", "")
    assert access.allows_origin(None, "localhost:1")
    assert access.allows_origin("http://localhost:1", "localhost:1")
    for origin in ("null", "http://localhost:2", "http://evil.example.org", "file://localhost:1", "http://[", ""):
        assert not access.allows_origin(origin, "localhost:1"), origin
    assert not access.allows_origin("http://", None)


def test_a_token_is_in_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDECAST_TOKEN", raising=False)
    assert read_token(None) == ""
    monkeypatch.setenv("TIDECAST_TOKEN", "of-the-variable")
    assert read_token(None) == "of-the-variable"
    file = tmp_path / "token"
    file.write_text("of-the-file\r\n")
    assert read_token(file) == "of-the-file"


@pytest.mark.parametrize("held", [b"", b"\n", b"two words", "schlüssel".encode()])
def test_a_file_that_holds_no_token_is_refused_without_showing_it(tmp_path: Path, held: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(held)
    with pytest.raises(ConfigError, match="token-file") as refused:
        read_token(file)
    assert "words" not in str(refused.value)
    assert "schl" not in str(refused.value)
    with pytest.raises(ConfigError, match="No such file"):
        read_token(tmp_path / "none")


def test_a_port_in_use_ends_with_71() -> None:
    with listen("http", "localhost", 0) as first:
        host, port = first.getsockname()
        with socket.create_connection((host, port), 5):
            pass
        with pytest.raises(AddressInUse, match=f"http: 127.0.0.1:{port} is in use") as refused:
            listen("http", "127.0.0.1", port)
    assert refused.value.exit_code == 71


def test_an_address_of_no_one_here_is_a_setting_that_cannot_be() -> None:
    for host in ("192.0.2.1", "no-such-host.invalid", "a" * 64):
        with pytest.raises(ConfigError, match=f"http: {host}:9464"):
            listen("http", host, 9464)


def test_a_port_may_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", forbid)
    with pytest.raises(NotPermitted, match=r"http: 127\.0\.0\.1:80: Permission denied"):
        listen("http", "127.0.0.1", 80)
