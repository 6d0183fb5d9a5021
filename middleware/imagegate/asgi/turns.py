"""Fair turns for requests that come all at once."""

from __future__ import annotations

import asyncio
from collections import deque
from weakref import WeakKeyDictionary

_AT_ONCE = 32


class Turns:
    """Lets at most `at_once` requests begin in one turn of the event loop; those behind them wait in their order.

    Else the loop takes thousands of requests that come together one step further each, again and again: the first has
    to wait for its provider's connection until all have been read, and all are answered as late as the last.
    """

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        self._at_once = at_once
        self._turn_of: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn] = WeakKeyDictionary()

    def begin(self) -> asyncio.Future[None] | None:
        """None where the caller may begin; else what he has to wait for."""
        loop = asyncio.get_running_loop()
        turn = self._turn_of.get(loop)
        if turn is None:
            turn = self._turn_of[loop] = _Turn(self._at_once)
        return turn.begin(loop)


class _Turn:
    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None] | None:
        if self._begun < self._at_once:  # then nobody waits: a turn that lets somebody in is filled up from the queue
            self._begun += 1
            if self._begun == 1:
                loop.call_soon(self._next, loop)
            return None
        waiting = loop.create_future()
        self._waiting.append(waiting)
        return waiting

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._begun = 0
        while self._waiting and self._begun < self._at_once:
            waiting = self._waiting.popleft()
            if not waiting.done():  # its task has been cancelled
                waiting.set_result(None)
                self._begun += 1
        if self._begun:
            loop.call_soon(self._next, loop)
