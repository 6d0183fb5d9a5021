"""An ASGI application under a real server in a thread, for the demo and for tests."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Generator
from typing import Any, Final

import uvicorn

_SECONDS_TO_START: Final = 60.0
_SECONDS_OF_IDLENESS: Final = 60
"""Of a connection before it is closed: a client on a busy machine may be about to use it again."""


@contextlib.contextmanager
def serving(app: Any, *, port: int = 0, http: Any = "auto") -> Generator[int]:
    """Run an ASGI application in a thread of its own and give its port.

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
        config = uvicorn.Config(
            app,
            http=http,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=5,
            timeout_keep_alive=_SECONDS_OF_IDLENESS,
        )
        server = uvicorn.Server(config)
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
            server.should_exit = True
            thread.join(timeout=10)
