"""An ASGI application under a real server in a thread, for the demo and for tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Generator
from typing import Any, Final

import uvicorn

_SECONDS_TO_START: Final = 20.0
_SECONDS_TO_END: Final = 5


class _Server(uvicorn.Server):
    """Ends at once when it is told to: uvicorn looks ten times a second, and waits as long for what is over already."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()

    def end(self) -> None:
        """From any thread: finish what is being answered, within `_SECONDS_TO_END`, and return from `run`."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._told.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # which also writes the time for the Date of the replies
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS_TO_END):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - uvicorn has no event
                    await asyncio.sleep(0.002)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@contextlib.contextmanager
def serving(app: Any, *, port: int = 0, http: Any = "auto") -> Generator[int]:
    """Runs an ASGI application in a thread of its own and gives its port.

    Args:
        port: to listen on; 0, or one that is taken: any that is free.
        http: uvicorn's protocol.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        server = _Server(uvicorn.Config(app, http=http, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + _SECONDS_TO_START
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("a local server did not start")
            time.sleep(0.005)
        try:
            yield listener.getsockname()[1]
        finally:
            server.end()
            thread.join(timeout=10)
