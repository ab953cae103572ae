"""Server-sent events: what changed, computed once for all who look at the same, and sent as fast as each one takes it.

A connection that is slow holds up no other: of each event only the newest waits for it.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from deploy.dashboard.guard import dumps
from deploy.dashboard.topics.reader import Reader
from deploy.dashboard.views.parameters import BadRequest, NotFound, Query
from deploy.dashboard.views.whole import Views

logger = logging.getLogger(__name__)

TICK_S = 0.5
SLOW = 4
"""Views of the whole are computed again every so many ticks."""
ALIVE_S = 15.0
MOST = 200
"""Most connections."""
RETRY_MS = 2000
WHOLE = ("models", "service", "texts")
VIEWS = ("overview", "fleet", "series", *WHOLE)

Made = tuple[bytes, int | None]
"""An event's data, and of a series the newest time in them."""


class Connection:
    """One who looks at a view."""

    def __init__(self, view: str, query: Query) -> None:
        """Raises BadRequest."""
        self.view, self.query = view, query
        self.cursor = query.time("since")
        """Of a series: the newest time whose value was sent."""
        self._waiting: dict[str, Made] = {}
        self._sent: dict[str, bytes] = {}
        self.wake = asyncio.Event()
        if view == "series" and not query.text("series"):
            raise BadRequest("series: which one?")

    def has(self, event: str) -> bool:
        """Whether an event of this name was sent before, or waits."""
        return event in self._sent or event in self._waiting

    def offer(self, event: str, made: Made) -> None:
        """Let an event wait, in place of one of the same name, unless the same was sent last."""
        if self._sent.get(event) != made[0]:
            self._waiting[event] = made
            self.wake.set()

    def take(self) -> list[tuple[str, bytes]]:
        """What waits."""
        taken = list(self._waiting.items())
        self._waiting.clear()
        self.wake.clear()
        for event, (data, newest) in taken:
            self._sent[event] = data
            self.cursor = self.cursor if newest is None else newest
        return [(event, data) for event, (data, _) in taken]


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

    def events(self, view: str, query: Query) -> AsyncIterator[bytes]:
        """The text of a stream, endless. Raises BadRequest."""
        return self._events(Connection(view, query))

    async def _events(self, connection: Connection) -> AsyncIterator[bytes]:
        self._connections.add(connection)
        self._reader.watched = True
        number = 0
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            await self._offer(0, (connection,))
            while not self._closed:
                try:
                    await asyncio.wait_for(connection.wake.wait(), ALIVE_S)
                except TimeoutError:
                    yield b": alive\n\n"
                    continue
                for event, data in connection.take():
                    number += 1
                    yield b"id: %d\nevent: %b\ndata: %b\n\n" % (number, event.encode(), data)
        finally:
            self._connections.discard(connection)
            self._reader.watched = bool(self._connections)

    async def _run(self) -> None:
        tick = 0
        while True:
            await asyncio.sleep(TICK_S)
            tick += 1
            if self._connections:
                await self._offer(tick, tuple(self._connections))

    async def _offer(self, tick: int, connections: tuple[Connection, ...]) -> None:
        """Compute what these look at, each once, and let them have it."""
        made: dict[tuple[object, ...], Made | None] = {}
        try:
            overview, status = await asyncio.to_thread(self._shared)
            for connection in connections:
                view, query = connection.view, connection.query
                connection.offer("overview", overview)
                connection.offer("status", status)
                if view == "overview" or (view in WHOLE and tick % SLOW and connection.has(view)):
                    continue
                place = view, query.key, connection.cursor
                if place not in made:
                    made[place] = await asyncio.to_thread(self._make, view, query, connection.cursor)
                if (found := made[place]) is not None:
                    connection.offer("points" if view == "series" else view, found)
        except Exception:  # a bug in one view must not end all streams
            logger.exception("a view failed")

    def _shared(self) -> tuple[Made, Made]:
        return (dumps(self._views.overview()), None), (dumps(self._views.status()), None)

    def _make(self, view: str, query: Query, cursor: int | None) -> Made | None:
        """A view's event; None if there is nothing of it."""
        try:
            if view == "series":
                points, newest = self._views.points(query, cursor)
                return dumps(points), newest
            return dumps(self._views.all[view](query)), None
        except (NotFound, BadRequest):
            return None
