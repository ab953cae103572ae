"""Alerts to an HTTP server: posted by a thread of their own, so that serving never waits for it."""

import base64
import logging
import threading
from collections import deque
from collections.abc import Iterable
from http.client import HTTPException
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tidecast.errors import ConfigError

logger = logging.getLogger(__name__)

QUEUED = 1_000
"""Most alerts that wait; with more the oldest are left out."""
TIMEOUT_S = 10.0
RETRIED_AFTER_S = (0.5, 2.0, 8.0)
CLOSED_WITHIN_S = 5.0
"""How long those that wait are still posted when a service stops."""
TRANSIENT = {408, 425, 429}
"""With those from 500 on, the answers after which it is tried again."""


class Target(NamedTuple):
    """A URL in parts, as only one of them may be logged."""

    url: str
    """Without the user's name and password."""
    headers: dict[str, str]
    server: str
    """https://host:port: a path or a query may be a secret too."""


def parse_target(url: str) -> Target:
    """Raises ConfigError, in which nothing of the URL is, for one that is not of http or https."""
    plain = url.isascii() and url.isprintable() and " " not in url
    try:
        parts = urlsplit(url)
        usable = plain and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half of an IPv6 address
        usable = False
    if not usable:
        raise ConfigError("alert-webhook: it takes a URL such as https://host/path, of http or https, in ASCII")
    user, _, host = parts.netloc.rpartition("@")
    headers = {"Content-Type": "application/json", "User-Agent": "tidecast"}
    if user:
        headers["Authorization"] = f"Basic {base64.b64encode(unquote_to_bytes(user)).decode()}"
    return Target(parts._replace(netloc=host, fragment="").geturl(), headers, f"{parts.scheme}://{host}")


class _NoRedirects(HTTPRedirectHandler):
    """A redirected POST would become a GET, or go to a server that nobody named."""

    def redirect_request(self, *_: object) -> None:
        """None: the redirect is an error."""


class Webhook:
    """Posts alerts as they are on OUTPUT-alerts, in order, each in a request of its own."""

    def __init__(self, url: str, topic: str) -> None:
        """Begin; `topic` has all alerts. Raises ConfigError."""
        self._topic = topic
        self._target, self._opener = parse_target(url), build_opener(_NoRedirects)
        self._waiting = deque[bytes]()
        self._changed = threading.Condition()
        self._closing = self._failing = False
        self.counts = {"posted": 0, "failed": 0, "not_sent": 0}
        """Alerts that the server took; that it refused or did not answer, however often it was tried; and that were not
        even sent, as too many waited or the service stopped.
        """
        self._thread = threading.Thread(target=self._run, name="alert-webhook", daemon=True)
        self._thread.start()

    def post(self, alerts: Iterable[bytes]) -> None:
        """Post these when it is their turn."""
        with self._changed:
            self._waiting.extend(alerts)
            if (more := len(self._waiting) - QUEUED) > 0:
                if not self.counts["not_sent"]:
                    logger.warning(
                        f"{self._target.server}: more than {QUEUED:,} alerts wait to be posted: the oldest are left "
                        f"out, and counted; {self._topic} has them"
                    )
                self._drop(more)
            self._changed.notify()

    def close(self) -> None:
        """Post those that wait, once each and for a few seconds at most; then leave it."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSED_WITHIN_S)
        with self._changed:
            self._drop(len(self._waiting))
            self.counts["failed"] += self._thread.is_alive()
        posted, *others = self.counts.values()
        if left := sum(others):
            said = f"{left:,} {'alert was' if left == 1 else 'alerts were'} not posted ({posted:,} were)"
            logger.warning(f"{self._target.server}: {said}: {self._topic} has them")
        else:
            logger.info(f"{self._target.server}: {posted:,} alert{'s' * (posted != 1)} posted")

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()
        self.counts["not_sent"] += count

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                alert = self._waiting.popleft()
            self._deliver(alert)

    def _deliver(self, alert: bytes) -> None:
        for pause in (*RETRIED_AFTER_S, None):
            reason, again = self._attempt(alert)
            if not reason:
                self.counts["posted"] += 1
                break
            if pause is None or not again or self._closes_within(pause):
                self.counts["failed"] += 1
                break
        if reason and not self._failing:
            logger.warning(f"{self._target.server} did not take an alert: {reason}; others are counted, not logged")
        elif self._failing and not reason:
            logger.info(f"{self._target.server} takes alerts again")
        self._failing = bool(reason)

    def _closes_within(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._closing, seconds)

    def _attempt(self, alert: bytes) -> tuple[str, bool]:
        """Why the server did not take an alert, empty if it did; and whether to try again."""
        request = Request(self._target.url, alert, self._target.headers)  # noqa: S310  of http or https
        try:
            with self._opener.open(request, timeout=TIMEOUT_S):
                return "", False
        except HTTPError as error:
            error.close()
            return f"HTTP {error.code}", error.code >= 500 or error.code in TRANSIENT
        except (OSError, HTTPException, ValueError) as error:  # the last for a host that can be none
            cause = error.reason if isinstance(error, URLError) else error
            return (getattr(cause, "strerror", None) or type(cause).__name__), True  # a message might hold the URL
