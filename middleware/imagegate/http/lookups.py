"""Lookups of host names, in threads of their own, so that slow name servers block no other lookup or file.

Each lookup has a thread, because the system's resolver can neither be interrupted nor given a timeout. The number
of threads is bounded, in all and for the names of one domain.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

AddressInfo: TypeAlias = tuple[Any, Any, int, str, tuple[Any, ...]]
"""As `socket.getaddrinfo` returns it."""
GetAddressInfo: TypeAlias = Callable[[str, int, int], Sequence[AddressInfo]]
"""Looks up a host, port and family; blocks. Raises `OSError`."""

MOST: Final = 16
"""Lookups at a time."""
MOST_OF_DOMAIN: Final = 4
"""Of them for names that end in the same two labels: their owner can make names by the thousand."""
DEADLINE: Final = 5.0
"""Seconds for a lookup, with the wait for its turn."""
_MOST_WAITING: Final = 256
_MOST_WAITING_OF_DOMAIN: Final = 32


class TooManyLookups(OSError):
    """As many lookups wait for their turn as may."""


class Lookups:
    """Look up host names, a limited number at a time; concurrent requests for one name share a lookup.

    Args:
        most: threads.
        most_of_domain: threads for names with the same last two labels.
        deadline: seconds.
        look_up: replaces the system's resolver.
    """

    def __init__(
        self,
        *,
        most: int = MOST,
        most_of_domain: int = MOST_OF_DOMAIN,
        deadline: float = DEADLINE,
        look_up: GetAddressInfo | None = None,
    ) -> None:
        self._most = most
        self._most_of_domain = most_of_domain
        self._deadline = deadline
        self._look_up = look_up or _getaddrinfo
        self._of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Running] = WeakKeyDictionary()

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host, each once. Raises as `look_up`."""
        return list(dict.fromkeys(str(address[0]) for *_, address in await self.look_up(host, port)))

    async def look_up(self, host: str, port: int, family: int = socket.AF_UNSPEC) -> Sequence[AddressInfo]:
        """Return what is known of a host.

        Raises:
            TooManyLookups: too many others wait.
            TimeoutError: there is no answer before the deadline.
            OSError: there is no such host, or no name server.
        """
        running = self._begun((host, port, family))
        async with asyncio.timeout(self._deadline):
            return await asyncio.shield(running)

    def _begun(self, asked: tuple[str, int, int]) -> asyncio.Task[Sequence[AddressInfo]]:
        loop = asyncio.get_running_loop()
        state = self._of_loop.setdefault(loop, _Running(self._most, self._most_of_domain))
        if (running := state.tasks.get(asked)) is not None:
            return running
        domain = ".".join(asked[0].rsplit(".", 2)[-2:])
        if len(state.tasks) >= _MOST_WAITING or state.of_domain[domain] >= _MOST_WAITING_OF_DOMAIN:
            raise TooManyLookups("too many lookups of host names at a time")
        running = loop.create_task(self._run(state, domain, asked))
        state.begin(asked, domain, running)
        return running

    async def _run(self, state: _Running, domain: str, asked: tuple[str, int, int]) -> Sequence[AddressInfo]:
        async with asyncio.timeout(self._deadline):  # for a turn
            await state.turns_of_domain[domain].acquire()
            try:
                await state.turns.acquire()
            except BaseException:
                state.turns_of_domain[domain].release()
                raise
        try:
            return await self._in_thread(asked)
        finally:
            state.turns.release()
            state.turns_of_domain[domain].release()

    def _in_thread(self, asked: tuple[str, int, int]) -> asyncio.Future[Sequence[AddressInfo]]:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Sequence[AddressInfo]] = loop.create_future()

        def settle(found: Sequence[AddressInfo], failure: Exception | None) -> None:
            if ended.cancelled():
                return
            if failure is None:
                ended.set_result(found)
            else:
                ended.set_exception(failure)

        def work() -> None:
            found: Sequence[AddressInfo] = ()
            failure: Exception | None = None
            try:
                found = self._look_up(*asked)
            except (OSError, UnicodeError) as error:
                failure = error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, found, failure)

        threading.Thread(target=work, name="imagegate-lookup", daemon=True).start()  # not waited for at exit
        return ended


class _Running:
    """The lookups of one event loop."""

    def __init__(self, most: int, most_of_domain: int) -> None:
        self.tasks: dict[tuple[str, int, int], asyncio.Task[Sequence[AddressInfo]]] = {}
        self.of_domain: Counter[str] = Counter()
        self.turns = asyncio.Semaphore(most)
        self.turns_of_domain: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(most_of_domain)
        )

    def begin(self, asked: tuple[str, int, int], domain: str, task: asyncio.Task[Sequence[AddressInfo]]) -> None:
        self.tasks[asked] = task
        self.of_domain[domain] += 1

        def end(ended: asyncio.Task[Sequence[AddressInfo]]) -> None:
            del self.tasks[asked]
            self.of_domain[domain] -= 1
            if not self.of_domain[domain]:
                del self.of_domain[domain]
                del self.turns_of_domain[domain]
            if not ended.cancelled():
                ended.exception()  # the waiter may have been cancelled

        task.add_done_callback(end)


def _getaddrinfo(host: str, port: int, family: int) -> Sequence[AddressInfo]:
    return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
