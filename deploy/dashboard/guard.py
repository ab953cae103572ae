"""Who may ask for the page, for what, and the headers of every answer."""

from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.web import Access

COOKIE = "tidecast_token"
MOST_QUERY = 4096
"""Most bytes of a request's query."""
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
API = "/api/"


def dumps(body: Any) -> bytes:
    """JSON; numbers that are not finite are null."""
    return orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)


def failure(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """An error as one line."""
    return Response(dumps({"error": text}), status, headers, "application/json")


class Guard:
    """Lets through only what may be asked: GET and HEAD, of our own hosts and origins, with the token if there is one.

    A link with ?token= leaves a cookie instead of the token in the address.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store" if scope["path"].startswith(API) else "no-cache")
                message["headers"] = headers.raw
            await send(message)

        await (self._answer(scope) or self._app)(scope, receive, send_guarded)

    def _answer(self, scope: Scope) -> Response | None:
        """What is answered at once; None: it may go on."""
        headers, query = Headers(scope=scope), scope["query_string"]
        host = headers.get("host")
        if not self._access.allows_host(host):
            return failure(403, "the request is for another host: --allowed-hosts NAME lets a name through")
        if not self._access.allows_origin(headers.get("origin"), host):
            return failure(403, "the request comes from a page of another origin")
        if scope["method"] not in ("GET", "HEAD"):
            return failure(405, "GET and HEAD only", {"allow": "GET, HEAD"})
        if len(query) > MOST_QUERY:
            return failure(400, f"the query has more than {MOST_QUERY} bytes")
        given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        if scope["path"] == "/" and any(name == "token" for name, _ in given):
            return self._enter(given, secure=scope["scheme"] == "https")
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        if not self._access.allows_token(headers.get("authorization"), cookie):
            how = "open the page once as /?token=..., or send Authorization: Bearer ..."
            return failure(401, f"a token is needed: {how}", {"www-authenticate": "Bearer"})
        return None

    def _enter(self, given: list[tuple[str, str]], *, secure: bool) -> Response:
        """From an address with a token to the same one without, with the token as a cookie."""
        token = next(value for name, value in given if name == "token")
        if not self._access.allows_token(f"Bearer {token}"):
            return failure(401, "the token is another one")
        rest = urlencode([(name, value) for name, value in given if name != "token"])
        response = RedirectResponse(f"/?{rest}" if rest else "/", 303)
        if self._access.token:
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return response
