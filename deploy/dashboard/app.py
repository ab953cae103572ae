"""The HTTP application: the page's files, its API and streams, and who may ask for them."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.dashboard.parameters import BadRequest, NotFound, Query
from deploy.dashboard.stream import VIEWS, Streams, dumps
from deploy.dashboard.views import Views
from deploy.web import Access

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
COOKIE = "tidecast_token"
MOST_QUERY = 4096
"""Most bytes of a request's query."""
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
"""Of every response."""


class Guard:
    """Lets through only what may be asked: GET and HEAD, of our own hosts and origins, with the token if there is one.

    A link with ?token= leaves a cookie instead of the token in the address.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-cache" if _is_static(scope["path"]) else "no-store")
                message["headers"] = headers.raw
            await send(message)

        answer = self._refusal(scope) or self._app
        await answer(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, query = headers.get("host"), scope.get("query_string", b"")
        if not self._access.allows_host(host):
            return failure(403, "the Host header names another host: --allowed-hosts adds one")
        if not self._access.allows_origin(headers.get("origin"), host):
            return failure(403, "a page of another origin may not ask")
        if scope["method"] not in ("GET", "HEAD"):
            return failure(405, "GET and HEAD only", {"allow": "GET, HEAD"})
        if len(query) > MOST_QUERY:
            return failure(400, f"the query has more than {MOST_QUERY} bytes")
        parameters = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=None)
        given = dict(parameters).get("token")
        if given is not None and scope["path"] == "/":
            if not self._access.allows_token(f"Bearer {given}"):
                return failure(401, "the token is another one")
            rest = urlencode([(name, value) for name, value in parameters if name != "token"])
            response = RedirectResponse(f"/?{rest}" if rest else "/", 303)
            secure = scope.get("scheme") == "https"
            response.set_cookie(COOKIE, given, httponly=True, samesite="strict", secure=secure, path="/")
            return response
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        if not self._access.allows_token(headers.get("authorization"), cookie):
            how = "open the page as /?token=..., or send Authorization: Bearer ..."
            return failure(401, f"a token is needed: {how}", {"www-authenticate": "Bearer"})
        return None


def _is_static(path: str) -> bool:
    return not path.startswith("/api/")


def failure(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """An error as one line."""
    return Response(dumps({"error": text}), status, headers, "application/json")


def make_app(views: Views, streams: Streams, access: Access) -> Starlette:
    """The application."""

    def answering(view: Callable[[Query], dict[str, Any]]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            try:
                query = Query(dict(request.query_params))
                body = await run_in_threadpool(lambda: dumps(view(query)))
            except BadRequest as error:
                return failure(400, str(error))
            except NotFound as error:
                return failure(404, str(error))
            return Response(body, media_type="application/json")

        return answer

    async def stream(request: Request) -> Response:
        try:
            query = Query({name: value for name, value in request.query_params.items() if name != "view"})
            view = Query(dict(request.query_params)).one_of("view", VIEWS)
            if view == "series" and not query.text("series"):
                raise BadRequest("series: which one?")
            query.time("since")
        except BadRequest as error:
            return failure(400, str(error))
        if streams.full:
            return failure(503, "too many pages are open")
        return StreamingResponse(
            streams.events(view, query), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
        )

    async def refused(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return failure(status, "not found" if status == 404 else "the server failed; its log says why")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await streams.start()
        yield
        await streams.stop()

    routes = [Route(f"/api/{name}", answering(view), methods=["GET"]) for name, view in views.all.items()]
    routes.append(Route("/api/stream", stream, methods=["GET"]))
    mount = Mount("/", StaticFiles(directory=STATIC, html=True))
    app = Starlette(
        routes=[*routes, mount], lifespan=lifespan, exception_handlers={404: refused, 405: refused, 500: refused}
    )
    app.add_middleware(Guard, access=access)
    return app
