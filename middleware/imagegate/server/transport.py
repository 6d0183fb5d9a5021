"""The transport that the server's protocol sees: it asks the connection before it stops reading or closes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol


class Owner(Protocol):
    """The connection."""

    is_closing: bool
    written: int

    def close(self) -> None:
        """Close in an orderly way."""

    def pause_inner(self, is_paused: bool) -> None:
        """Stop or go on reading."""


class GuardedTransport(asyncio.Transport):
    """Passes everything on but reading and closing, and counts what is written."""

    def __init__(self, owner: Owner, transport: Any) -> None:
        super().__init__()
        self._owner = owner
        self._transport = transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._owner.is_closing:
            self._owner.written += len(data)
            self._transport.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self._owner.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._owner.is_closing or bool(self._transport.is_closing())

    def pause_reading(self) -> None:
        self._owner.pause_inner(True)

    def resume_reading(self) -> None:
        self._owner.pause_inner(False)
