"""Lookups of providers' host names for aiohttp: apart from all others, and with the last good answer in reserve."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from imagegate.http.lookups import AddressInfo, GetAddressInfo, Lookups

_LOOKUP_TIMEOUT: Final = 0.5
"""Seconds for a lookup, after which the last good answer is used, while the lookup goes on."""
_KEPT_FOR: Final = 86400.0
"""Seconds that an answer is kept (RFC 8767 proposes one to three days)."""
_MOST_KEPT: Final = 256
_DEADLINE: Final = 30.0
"""Seconds for a lookup; the connection has a timeout of its own."""


class ProviderResolver(AbstractResolver):
    """Looks up the hosts of the configuration, in threads that links of clients have no part in.

    An answer is kept, and used when a later lookup fails or takes long. Whether the host at that address is still the
    right one, TLS finds out.

    Args:
        look_up: replaces the system's resolver.
    """

    def __init__(self, look_up: GetAddressInfo | None = None) -> None:
        self._lookups = Lookups(most=8, most_of_domain=8, deadline=_DEADLINE, look_up=look_up)
        self._kept: dict[tuple[str, int, int], tuple[float, Sequence[AddressInfo]]] = {}
        self._refreshing: set[asyncio.Task[Sequence[AddressInfo]]] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises `OSError`."""
        return [_result(host, info) for info in await self._infos(host, port, family)]

    async def _infos(self, host: str, port: int, family: int) -> Sequence[AddressInfo]:
        refresh = asyncio.create_task(self._refreshed(host, port, family))
        kept = self._kept_for(host, port, family)
        if kept is None:
            return await refresh
        self._refreshing.add(refresh)
        refresh.add_done_callback(self._note_refreshed)
        await asyncio.wait({refresh}, timeout=_LOOKUP_TIMEOUT)
        if refresh.done() and not refresh.cancelled() and refresh.exception() is None:
            return refresh.result()
        return kept

    def _note_refreshed(self, refresh: asyncio.Task[Sequence[AddressInfo]]) -> None:
        self._refreshing.discard(refresh)
        if not refresh.cancelled():
            refresh.exception()  # the kept answer was used

    async def _refreshed(self, host: str, port: int, family: int) -> Sequence[AddressInfo]:
        infos = await self._lookups.look_up(host, port, family)
        self._kept.pop((host, port, family), None)
        self._kept[host, port, family] = time.monotonic(), infos
        if len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return infos

    def _kept_for(self, host: str, port: int, family: int) -> Sequence[AddressInfo] | None:
        at, infos = self._kept.get((host, port, family), (0.0, ()))
        return infos if infos and time.monotonic() - at < _KEPT_FOR else None

    async def close(self) -> None:
        """Do nothing: lookups end by themselves."""


def _result(host: str, info: AddressInfo) -> ResolveResult:
    family, _, proto, _, address = info
    number, port = str(address[0]), int(address[1])
    if family == socket.AF_INET6 and len(address) > 3 and address[3] and "%" not in number:
        number = f"{number}%{address[3]}"  # of a link-local address, which is unique only with its zone
    return ResolveResult(
        hostname=host,
        host=number,
        port=port,
        family=family,
        proto=proto,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
