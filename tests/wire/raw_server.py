"""Runs a raw TCP server of a test in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator

from tests.waiting import TIMEOUT

Exchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.contextmanager
def raw_server(exchange: Exchange, *, limit: int = 2**16) -> Iterator[int]:
    """Yield the port of a server that calls `exchange` for each request, until the connection is closed.

    Args:
        exchange: reads a request and writes a response.
        limit: bytes that the reader buffers.
    """
    ready: queue.Queue[tuple[int, Callable[[], object]]] = queue.Queue()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while not writer.is_closing():
                await exchange(reader, writer)
        writer.close()
        tasks.discard(task)

    async def main() -> None:
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=limit)
        ready.put((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stopped.set)))
        await stopped.wait()
        server.close()
        unfinished = tuple(tasks)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        await asyncio.sleep(0)  # lets the connections close

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    port, stop = ready.get(timeout=TIMEOUT)
    try:
        yield port
    finally:
        stop()
        thread.join(TIMEOUT)
