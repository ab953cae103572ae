"""A proxy that parses Kafka's frames, so that it can drop exactly the responses to EndTxn, and no other byte."""

import asyncio
import contextlib
import struct
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Self

END_TXN = 26


class LostAnswers:
    """Passes connections on from the keys of `ports` to the ports that are their values.

    After `lose(count)` every other response to EndTxn is lost, `count` in all: the broker has handled the request, and
    the connection breaks before it responds.
    """

    def __init__(self, ports: Mapping[int, int]) -> None:
        self._ports = ports
        self._left = self._seen = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lost-answers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        for outer, inner in self._ports.items():
            started: Future[object] = asyncio.run_coroutine_threadsafe(self._listen(outer, inner), self._loop)
            started.result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def lose(self, count: int) -> None:
        """Lose this many responses from now on."""
        self._left = count

    @property
    def left(self) -> int:
        """How many are still to be lost."""
        return self._left

    async def _listen(self, outer: int, inner: int) -> None:
        async def connected(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                broker, to_broker = await asyncio.open_connection("127.0.0.1", inner)
                asked: set[int] = set()
                await asyncio.wait(
                    [
                        asyncio.create_task(self._requests(client, to_broker, asked)),
                        asyncio.create_task(self._answers(broker, to_client, asked)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                to_broker.transport.abort()
            to_client.transport.abort()

        await asyncio.start_server(connected, "127.0.0.1", outer)

    async def _requests(self, client: asyncio.StreamReader, broker: asyncio.StreamWriter, asked: set[int]) -> None:
        while frame := await _frame(client):
            api, _, correlation = struct.unpack(">hhi", frame[4:12])
            if api == END_TXN:
                asked.add(correlation)
            broker.write(frame)
            await broker.drain()

    async def _answers(self, broker: asyncio.StreamReader, client: asyncio.StreamWriter, asked: set[int]) -> None:
        while frame := await _frame(broker):
            (correlation,) = struct.unpack(">i", frame[4:8])
            if correlation in asked and self._is_lost():
                return
            client.write(frame)
            await client.drain()

    def _is_lost(self) -> bool:
        self._seen += 1
        lost = self._left > 0 and self._seen % 2 == 0
        self._left -= lost
        return lost


async def _frame(stream: asyncio.StreamReader) -> bytes:
    """The next frame with its length before it; empty at the end."""
    try:
        length = await stream.readexactly(4)
        return length + await stream.readexactly(int.from_bytes(length))
    except (asyncio.IncompleteReadError, OSError):
        return b""
