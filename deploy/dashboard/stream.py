"""Server-sent events: what changed, computed once for all who look at the same, and sent as fast as each one takes it.

A connection that is slow holds up no other: of each event it has only the newest waiting.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import orjson

from deploy.dashboard.parameters import BadRequest, NotFound, Query
from deploy.dashboard.reader import Reader
from deploy.dashboard.views import Views

logger = logging.getLogger(__name__)

TICK_S = 0.5
SLOW_TICKS = 4
"""Every how many ticks views of the whole are computed again."""
ALIVE_S = 15.0
MOST = 200
"""Most connections."""
RETRY_MS = 2000
WHOLE = ("models", "service", "texts")
VIEWS = ("overview", "fleet", "series", *WHOLE)


class Connection:
    """One who listens."""

    def __init__(self, view: str, query: Query) -> None:
        self.view, self.query = view, query
        self.cursor = query.time("since") if view == "series" else None
        """The newest time whose value was sent."""
        self.waiting: dict[str, tuple[bytes, int | None]] = {}
        self.seen: dict[str, bytes] = {}
        self.wake = asyncio.Event()

    def offer(self, event: str, body: bytes, cursor: int | None = None) -> None:
        """Let it have an event, in place of one of the same name that waits."""
        if self.seen.get(event) != body:
            self.waiting[event] = body, cursor
            self.wake.set()

    def take(self) -> list[tuple[str, bytes]]:
        """What waits."""
        taken = list(self.waiting.items())
        self.waiting.clear()
        self.wake.clear()
        for event, (body, cursor) in taken:
            self.seen[event] = body
            if event == "points" and cursor is not None:
                self.cursor = cursor
        return [(event, body) for event, (body, _) in taken]


class Streams:
    """All connections."""

    def __init__(self, views: Views, reader: Reader) -> None:
        self._views, self._reader = views, reader
        self._connections: set[Connection] = set()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether there can be no further connection."""
        return len(self._connections) >= MOST

    async def start(self) -> None:
        """Begin to compute."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End all connections."""
        self._closed = True
        for connection in self._connections:
            connection.wake.set()
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def events(self, view: str, query: Query) -> AsyncIterator[bytes]:
        """The text of a stream, endlessly."""
        connection, number = Connection(view, query), 0
        self._connections.add(connection)
        self._reader.watched = True
        try:
            yield b"retry: %d\n: tidecast\n\n" % RETRY_MS
            while not self._closed:
                try:
                    await asyncio.wait_for(connection.wake.wait(), ALIVE_S)
                except TimeoutError:
                    yield b": alive\n\n"
                    continue
                for event, body in connection.take():
                    number += 1
                    yield b"id: %d\nevent: %s\ndata: %s\n\n" % (number, event.encode(), body)
                await asyncio.sleep(TICK_S / 2)
        finally:
            self._connections.discard(connection)
            self._reader.watched = bool(self._connections)

    async def _run(self) -> None:
        tick, seen = 0, -1
        while True:
            await asyncio.sleep(TICK_S)
            tick += 1
            if not self._connections:
                continue
            try:
                await self._offer(tick)
            except Exception:  # a bug in a view must not end all streams
                logger.exception("a view failed")
            seen = self._views.version
            del seen

    async def _offer(self, tick: int) -> None:
        """Compute what is looked at, each once, and offer it."""
        made: dict[tuple[object, ...], tuple[bytes, int | None] | None] = {}
        overview = orjson.dumps(await asyncio.to_thread(self._views.overview))
        status = orjson.dumps(self._views.status())
        for connection in tuple(self._connections):
            connection.offer("overview", overview)
            connection.offer("status", status)
            view = connection.view
            if view == "overview" or (view in WHOLE and tick % SLOW_TICKS and view in connection.seen):
                continue
            place = (view, connection.query.key, connection.cursor)
            if place not in made:
                made[place] = await asyncio.to_thread(self._compute, connection)
            if (found := made[place]) is not None:
                connection.offer("points" if view == "series" else view, *found)

    def _compute(self, connection: Connection) -> tuple[bytes, int | None] | None:
        try:
            if connection.view == "series":
                found, cursor = self._views.points(connection.query, connection.cursor)
                return dumps(found), cursor
            return dumps(self._views.all[connection.view](connection.query)), None
        except (NotFound, BadRequest):  # not there yet
            return None


def dumps(body: Any) -> bytes:
    """JSON; numbers that are not finite are null."""
    return orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
