"""Room for what an exchange will have paid for, secured before its request is sent: as much as is usually taken."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Mapping
from functools import cached_property, lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from imagegate.contracts.contract import SIZE_FIELDS
from imagegate.contracts.size_syntax import Pixels, SizeSyntaxError, Tier, parse_size
from imagegate.delivery.response_format import ResponseFormat
from imagegate.errors import ImageStoreUnavailable, NoRoom
from imagegate.protocol.messages import SHAPING, Exchange
from imagegate.spool.budget import Budget, ResultBudget
from imagegate.spool.reservation import Reservation
from imagegate.stores import Store, StoreFull
from imagegate.upstream.dispatch_hooks import Sending

_SIZES: Final = tuple(name.rpartition(".")[2] for name in SIZE_FIELDS)
_USUAL_PIXELS: Final = 1024 * 1024
"""Of an image of unspecified size."""
_BYTES_PER_PIXEL: Final = 3
"""Of a PNG that cannot be compressed; one with transparency has a fourth."""
_BYTES_PER_LOSSY_PIXEL: Final = 1
"""Of JPEG and WebP at their best quality."""
_LARGEST: Final = 64 * 1024 * 1024
_REMEMBERED: Final = 32
"""Last exchanges of a kind."""
_KINDS: Final = 1024
_ENOUGH: Final = 3
"""Exchanges that took no room, after which the next one is taken to need none either."""


def bytes_expected(fields: Mapping[str, Any]) -> int:
    """Return the bytes that one picture of a request may have, going by its size and format."""
    metadata = fields.get("metadata")
    members = {**metadata, **fields} if isinstance(metadata, Mapping) else fields
    sizes = [_area(value) for name in _SIZES if isinstance(value := members.get(name), str)]
    size = fields.get("size")
    exact = _area(size) if isinstance(size, str) else None
    pixels = exact.pixels if exact and exact.is_exact else max([_USUAL_PIXELS, *[each.pixels for each in sizes]])
    if str(fields.get("output_format", "")).lower() in ("jpeg", "jpg", "webp"):
        return min(_LARGEST, pixels * _BYTES_PER_LOSSY_PIXEL)
    is_transparent = fields.get("background") == "transparent"
    return min(_LARGEST, pixels * (_BYTES_PER_PIXEL + is_transparent))


@lru_cache(maxsize=1024)
def bytes_of_shape(shape: tuple[str, ...]) -> int:
    """Return the same for a request with an `ImageRequest.shape`."""
    return bytes_expected(dict(zip(SHAPING, shape, strict=True)))


class _Area(NamedTuple):
    pixels: int
    """0: the text says nothing of it."""
    is_exact: bool
    """Whether width and height are given."""


@lru_cache(maxsize=1024)
def _area(text: str) -> _Area:
    try:
        size = parse_size(text)
    except SizeSyntaxError:
        return _Area(0, is_exact=False)
    if isinstance(size, Pixels):
        return _Area(size.area, is_exact=True)
    return _Area(int(size.edge**2) if isinstance(size, Tier) else 0, is_exact=False)


class Kind(msgspec.Struct, frozen=True):
    """What exchanges have in common whose pictures take about as much room."""

    upstream: str
    model: str
    """As the provider calls it."""
    expected: int
    """Bytes that a picture may have, going by what was asked for."""
    form: ResponseFormat
    streamed: bool
    copies_links: bool


class UsualSizes:
    """Remembers how much room the pictures of each kind of exchange have taken."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Hashable, deque[int]] = OrderedDict()
        self.roomless: set[Kind] = set()
        """Those of which the last pictures went past store and spool, as links that were passed on. Read-only."""

    def needed(self, kind: Kind) -> int:
        """Return the bytes to secure for one picture."""
        if kind in self.roomless:
            return 0
        seen: Iterable[int] = self._seen.get(_picture(kind), ())
        return max(kind.expected, max(seen, default=0))

    def note(self, kind: Kind, largest: int) -> None:
        """Remember the bytes of an exchange's largest picture in store or spool; 0: it went past both."""
        sizes = self._append(kind, largest)
        if largest:
            self.roomless.discard(kind)
            self._append(_picture(kind), largest)
        elif len(sizes) >= _ENOUGH and not any(sizes):
            self.roomless.add(kind)

    def _append(self, key: Hashable, size: int) -> deque[int]:
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = deque(maxlen=_REMEMBERED)
            if len(self._seen) > _KINDS:
                forgotten, _ = self._seen.popitem(last=False)
                if isinstance(forgotten, Kind):
                    self.roomless.discard(forgotten)
        seen.append(size)
        return seen


def _picture(kind: Kind) -> Hashable:
    """Return what the pictures of several kinds have in common, in whichever way they are delivered."""
    return kind.upstream, kind.model, kind.expected


class ResultRoom:
    """Room for the pictures of one exchange, in the store or in the spool. `release` must follow.

    Args:
        store: takes pictures that become links.
        budget: of the spool, which takes the others.
        usual: remembers how large they are.
        form: in which the client gets them.
    """

    def __init__(
        self, store: Store, budget: Budget, usual: UsualSizes, exchange: Exchange, form: ResponseFormat
    ) -> None:
        self._store = store
        self._budget = budget
        self._usual = usual
        self._exchange = exchange
        self._form: ResponseFormat = form
        self._kind: Kind | None = None
        self._secured = 0
        self._in_store: tuple[Reservation, ...] = ()
        self._securing: asyncio.Lock | None = None

    @cached_property
    def files(self) -> ResultBudget:
        """For pictures that go into the spool."""
        return self._budget.results()

    def expect(self, sending: Sending) -> Kind:
        """Note what is about to be sent, without securing anything; return of which kind it is."""
        exchange, fields = self._exchange, self._exchange.request.fields
        expected, streamed = bytes_expected(fields), fields.get("stream") is True
        self._kind = Kind(sending.upstream, sending.model, expected, self._form, streamed, exchange.copies_links)
        return self._kind

    async def secure(self, sending: Sending) -> None:
        """Secure room for all pictures that were asked for; the parts of a split request find it done.

        Raises:
            NoRoom: there is none, so the request must not be sent.
            ImageStoreUnavailable: nor can the store take anything.
        """
        if self._missing(sending) <= 0:
            return
        if self._securing is None:
            self._securing = asyncio.Lock()
        async with self._securing:  # parts are sent at the same time
            if (more := self._missing(sending)) <= 0:
                return
            if self._form == "url":
                await self._secure_in_store(more)
            elif not await self.files.reserve(more):
                raise NoRoom
            self._secured += more

    def _missing(self, sending: Sending) -> int:
        """Return the bytes that are still to be secured, if any."""
        kind, request = self.expect(sending), self._exchange.request
        pictures = request.n
        if kind.streamed and kind.form == "url" and isinstance(partial := request.fields.get("partial_images"), int):
            pictures *= 1 + partial
        return pictures * self._usual.needed(kind) - self._secured

    async def _secure_in_store(self, size: int) -> None:
        try:
            reserved = await self._store.reserve(size)
            self._in_store = (*self._in_store, reserved)
        except OSError as error:
            raise (NoRoom() if isinstance(error, StoreFull) else ImageStoreUnavailable()) from error

    def note(self, largest: int) -> None:
        """Remember the bytes of the largest picture that came, in store or spool."""
        if self._kind is not None:
            self._usual.note(self._kind, largest)

    def release(self) -> None:
        """Give back what was secured."""
        if "files" in self.__dict__:
            self.files.release()
        for reservation in self._in_store:
            reservation.release()
