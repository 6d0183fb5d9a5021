"""Room for what an exchange will have paid for, secured before its request is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from functools import cached_property

from imagegate.delivery.response_format import ResponseFormat
from imagegate.delivery.usual_sizes import UsualSizes, bytes_expected
from imagegate.errors import ImageStoreUnavailable, NoRoom
from imagegate.protocol.messages import Exchange
from imagegate.spool.budget import Budget, ResultBudget
from imagegate.spool.reservation import Reservation
from imagegate.stores import Store, StoreFull
from imagegate.upstream.dispatch_hooks import Sending


class ResultRoom:
    """Room for the pictures of one exchange, in the store or in the spool. `release` must follow.

    Args:
        store: takes pictures that become links.
        budget: of the spool, which takes the others.
        usual: remembers how large they are.
        form: in which the client gets them.
    """

    def __init__(
        self, store: Store, budget: Budget, usual: UsualSizes, exchange: Exchange, *, form: ResponseFormat
    ) -> None:
        self._store = store
        self._budget = budget
        self._usual = usual
        self._exchange = exchange
        self._form = form
        self._picture: Hashable = None
        self._way: Hashable = None
        self._secured = 0
        self._in_store: list[Reservation] = []
        self._securing = asyncio.Lock()

    @cached_property
    def files(self) -> ResultBudget:
        """For pictures that go into the spool."""
        return self._budget.results()

    async def secure(self, sending: Sending) -> None:
        """Secure room for all pictures that were asked for; the parts of a split request find it done.

        Raises:
            NoRoom: there is none, so the request must not be sent.
            ImageStoreUnavailable: nor can the store take anything.
        """
        async with self._securing:  # parts are sent at the same time
            await self._secure(sending)

    async def _secure(self, sending: Sending) -> None:
        fields, exchange = self._exchange.request.fields, self._exchange
        expected, streamed = bytes_expected(fields), fields.get("stream") is True
        self._picture = (sending.upstream, sending.model, expected)
        self._way = (self._form, streamed, exchange.copies_links)
        pictures = exchange.request.n
        if streamed and self._form == "url" and isinstance(partial := fields.get("partial_images"), int):
            pictures *= 1 + partial
        more = pictures * self._usual.needed(self._picture, self._way, expected) - self._secured
        if more <= 0:
            return
        if self._form == "url":
            await self._secure_in_store(more)
        elif not await self.files.reserve(more):
            raise NoRoom
        self._secured += more

    async def _secure_in_store(self, size: int) -> None:
        try:
            self._in_store.append(await self._store.reserve(size))
        except OSError as error:
            raise (NoRoom() if isinstance(error, StoreFull) else ImageStoreUnavailable()) from error

    def note(self, largest: int) -> None:
        """Remember the bytes of the largest picture that came, in store or spool."""
        if self._picture is not None:
            self._usual.note(self._picture, self._way, largest)

    def release(self) -> None:
        """Give back what was secured."""
        if "files" in self.__dict__:
            self.files.release()
        for reservation in self._in_store:
            reservation.release()
