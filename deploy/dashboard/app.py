"""The HTTP application: the page's files, its API and its streams."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from deploy.dashboard.guard import API, Guard, dumps, failure
from deploy.dashboard.stream import VIEWS, Streams
from deploy.dashboard.views.parameters import BadRequest, NotFound, Query
from deploy.dashboard.views.whole import Views
from deploy.web import Access

STREAM = "text/event-stream"
STATIC = Path(__file__).parent / "static"


def make_app(views: Views, streams: Streams, access: Access) -> Guard:
    """The application; it starts and ends the streams."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await streams.start()
        yield
        await streams.stop()

    api = [Route(f"{API}{name}", _answering(view)) for name, view in views.all.items()]
    app = Starlette(
        routes=[*api, Route(f"{API}stream", _streaming(streams)), Mount("/", StaticFiles(directory=STATIC, html=True))],
        exception_handlers={HTTPException: _refused, Exception: _failed},
        lifespan=lifespan,
    )
    return Guard(app, access)


def _answering(view: Callable[[Query], dict[str, Any]]) -> Callable[[Request], Any]:
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


def _streaming(streams: Streams) -> Callable[[Request], Any]:
    async def stream(request: Request) -> Response:
        given = dict(request.query_params)
        try:
            view = Query({"view": given.pop("view", "")}).one_of("view", VIEWS)
            events = streams.events(view, Query(given))
        except BadRequest as error:
            return failure(400, str(error))
        if request.method == "HEAD":
            return Response(media_type=STREAM)
        if streams.full:
            return failure(503, "too many pages are open")
        return StreamingResponse(events, media_type=STREAM, headers={"x-accel-buffering": "no"})

    return stream


async def _refused(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return failure(status, "there is no such address" if status == 404 else "this can't be asked")


async def _failed(_: Request, __: Exception) -> Response:
    return failure(500, "the server failed; what it logged says why")
