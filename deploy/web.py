"""What all HTTP servers of a command have in common: where they listen, and who may ask them."""

import errno
import hmac
import os
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tidecast.errors import AddressInUse, ConfigError, NotPermitted, unusable

LOOPBACK = "127.0.0.1"
TOKEN_VARIABLE = "TIDECAST_TOKEN"  # noqa: S105  its name
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?::([0-9]{1,5}))?")
"""HOST or HOST:PORT; an IPv6 address is in brackets."""


def parse_address(option: str, text: str) -> tuple[str, int]:
    """An option's HOST:PORT; without a host it is the loopback address. Port 0 is a free one. Raises ConfigError."""
    match = _AUTHORITY.fullmatch(text)
    host, port = match.groups() if match else ("", None)
    if port is None or int(port) > 65_535:
        meant = f"; did you mean :{text}?" if text.isdecimal() else ""
        raise ConfigError(f"{option}: {text!r} is not HOST:PORT, such as :9464 or 0.0.0.0:9464{meant}")
    name = host.strip("[]")
    if "[" in host:
        _address(option, name)
    return name or LOOPBACK, int(port)


def _address(option: str, text: str) -> None:
    try:
        ip_address(text)
    except ValueError:
        raise ConfigError(f"{option}: [{text}] is no IPv6 address") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine is reached by this name or address."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host.lower().removesuffix(".") == "localhost"


def read_token(file: Path | None) -> str:
    """The token that requests must have: the file's, else the variable TIDECAST_TOKEN's; empty if there is none.

    Raises ConfigError, in which nothing of the token is.
    """
    if file is None:
        where, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE, "")
    else:
        where, token = f"token-file: {file}", _read(file)
    if file is not None and not token:
        raise ConfigError(f"{where}: the file is empty")
    if not re.fullmatch(r"[!-~]*", token):
        raise ConfigError(f"{where}: a token is one word in ASCII, as `openssl rand -hex 32` makes")
    return token


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii", "replace").strip()
    except OSError as error:
        raise unusable(f"token-file: {file}", error, ConfigError) from None


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask a server: whoever has the token, or anybody on this machine if there is none.

    The Host header is checked, as a page of another site could else have a browser ask us under its own name.
    """

    loopback: bool
    """Whether it can be reached from this machine only."""
    token: str = field(default="", repr=False)
    hosts: frozenset[str] = frozenset()
    """Names that it may be asked by, besides those of this machine; empty: those of this machine, or any if it listens
    elsewhere."""

    @classmethod
    def of(cls, host: str, token: str, allowed_hosts: Iterable[str] = ()) -> "Access":
        """Access to a server that listens at `host`. Raises ConfigError for one that needs a token and has none."""
        if not token and not is_loopback(host):
            raise ConfigError(
                f"{host} can be reached from other machines, so a token is needed: --token-file FILE, or the variable "
                f"{TOKEN_VARIABLE}"
            )
        return cls(is_loopback(host), token, frozenset(each.lower() for each in allowed_hosts))

    def allows_host(self, host_header: str | None) -> bool:
        """Whether a request with this Host header, HOST or HOST:PORT, is meant for this server."""
        if not self.loopback and not self.hosts:
            return True
        match = _AUTHORITY.fullmatch(host_header or "")
        name = match[1].strip("[]").lower().removesuffix(".") if match else ""
        return bool(name) and (name in self.hosts or is_loopback(name))

    def allows_token(self, authorization: str | None, cookie_token: str | None = None) -> bool:
        """Whether an Authorization header, or a cookie's value, has the token."""
        if not self.token:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        found = (given.strip() if scheme.lower() == "bearer" else "", cookie_token or "")
        return any(hmac.compare_digest(each.encode(), self.token.encode()) for each in found)

    def allows_origin(self, origin: str | None, host_header: str | None) -> bool:
        """Whether a request comes from a page of this server, or from no page at all."""
        if origin is None:
            return True
        with suppress(ValueError):
            parts = urlsplit(origin)
            return parts.scheme in ("http", "https") and parts.netloc.lower() == (host_header or "?").lower()
        return False


class Listener(NamedTuple):
    """Where a server listens, and who may ask it."""

    host: str
    port: int
    access: Access

    @classmethod
    def parse(cls, option: str, text: str, token_file: Path | None) -> "Listener":
        """From an option's HOST:PORT, and a token from a file or the variable. Raises ConfigError."""
        host, port = parse_address(option, text)
        try:
            return cls(host, port, Access.of(host, read_token(token_file)))
        except ConfigError as error:
            raise ConfigError(f"{option}: {error}") from None


def listen(option: str, host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises AddressInUse, NotPermitted, or ConfigError for an address of no one here."""
    where = f"{option}: {f'[{host}]' if ':' in host else host}:{port}"
    try:
        family, kind, protocol, _, address = _resolved(host, port)
    except (OSError, UnicodeError):
        raise ConfigError(f"{where}: there is no address of this name") from None
    server = socket.socket(family, kind, protocol)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a restart waits for a minute
        server.bind(address)
        server.listen(128)
    except OSError as error:
        server.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"{where} is in use by another process: choose another port, or end that one") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise NotPermitted(f"{where}: {error.strerror}: choose a port from 1024 on") from None
        raise ConfigError(f"{where}: {error.strerror}") from None
    return server


def _resolved(host: str, port: int) -> tuple[int, int, int, str, tuple[object, ...]]:
    name = LOOPBACK if host.lower() == "localhost" else host  # by both of its addresses it is found at this one
    return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
