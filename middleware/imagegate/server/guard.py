"""What uvicorn makes its connections with: its own protocol, each behind a bounded connection."""

from __future__ import annotations

import asyncio
from typing import Any

from imagegate.config.schema import LimitsConfig
from imagegate.server.connection import Connection
from imagegate.server.connections import Connections
from imagegate.server.uvicorn_protocol import NotifyingProtocol


class Guard:
    """Takes the place of a protocol class: ``uvicorn.Config(http=Guard(limits))``. Can be pickled for worker processes.

    Args:
        limits: those of ``[limits]`` that are about connections.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._connections: Connections | None = None

    def __reduce__(self) -> Any:
        return Guard, (self._limits,)

    def __call__(self, **options: Any) -> asyncio.BaseProtocol:
        """Return the protocol of a new connection. `options` are those that uvicorn gives to its own."""
        if self._connections is None:
            self._connections = Connections(self._limits)
        connection = Connection(self._connections, asyncio.get_running_loop())
        connection.wrap(NotifyingProtocol(connection, **options))
        return connection
