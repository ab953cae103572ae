"""`serve --http`: /health, /ready and /metrics, from a thread that never holds up what it tells of.

It takes a few requests at a time, each within seconds and of a limited size, and looks at the service without a lock.
"""

import io
import logging
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from deploy.serving.monitoring.exposition import CONTENT_TYPE
from deploy.serving.monitoring.report import Report
from deploy.web import Listener, listen

logger = logging.getLogger(__name__)

AT_ONCE = 16
"""Requests that are answered at a time; a further one is closed."""
WITHIN_S = 5.0
"""How long a request may take to arrive, and its answer to be taken."""
MAX_HEAD = 16 << 10
PLAIN = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """A response."""

    status: HTTPStatus
    body: bytes
    type: str = PLAIN


class HttpServer:
    """Answers with what a report has."""

    def __init__(self, listener: Listener, report: Report) -> None:
        """Begin. Raises AddressInUse, NotPermitted, ConfigError."""
        self._access, self._report = listener.access, report
        self._server = _Server(listen("http", listener.host, listener.port), self._answer)
        host, port = map(str, self._server.server_address[:2])
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        threading.Thread(target=self._server.serve_forever, name="http", daemon=True).start()
        logger.info(f"{self.url}/metrics, /ready and /health{' (a token is needed)' * bool(self._access.token)}")

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str, headers: Any) -> Answer:
        if not self._access.allows_host(headers.get("Host")):
            return _line(HTTPStatus.FORBIDDEN, "this server has another name: see Host")
        match path.partition("?")[0]:
            case "/health":
                return _line_unless(self._report.hanging(), "alive")
            case "/ready":
                return _line_unless(self._report.missing(), "ready")
            case "/metrics":
                if not self._access.allows_token(headers.get("Authorization")):
                    return _line(HTTPStatus.UNAUTHORIZED, "the header `Authorization: Bearer TOKEN` is needed")
                return Answer(HTTPStatus.OK, self._report.metrics(), CONTENT_TYPE)
        return _line(HTTPStatus.NOT_FOUND, "there are /metrics, /ready and /health")


def _line(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, f"{text}\n".encode())


def _line_unless(wrong: str, right: str) -> Answer:
    return _line(HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK, wrong or right)


class _Server(ThreadingHTTPServer):
    """Threads of a limited number, and no word of what goes wrong with a request."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, answer: Callable[[str, Any], Answer]) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.server_address = listening, listening.getsockname()
        self.answer = answer
        self._free = threading.BoundedSemaphore(AT_ONCE)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug(f"a request of {client_address} failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(io.BytesIO(self._head()))
        self.request.settimeout(WITHIN_S)

    def _head(self) -> bytes:
        """The request's first line and headers; empty where they don't come in time, or are too long."""
        head, deadline = b"", time.monotonic() + WITHIN_S
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            left = deadline - time.monotonic()
            if left <= 0 or len(head) > MAX_HEAD:
                return b""
            self.request.settimeout(left)
            try:
                received = self.request.recv(4096)
            except OSError:
                return b""
            if not received:
                return b""
            head += received
        return head

    def do_GET(self) -> None:
        """Answer with the body."""
        self._send(self.server.answer(self.path, self.headers))

    def do_HEAD(self) -> None:
        """Answer without it."""
        self._send(self.server.answer(self.path, self.headers)._replace(body=b""))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(answer.body)

    def version_string(self) -> str:
        return "tidecast"

    def log_message(self, *_: object) -> None:
        """Nothing: whoever asks asks every few seconds."""
