"""How large pictures usually are: what must be secured before they are paid for. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from imagegate.contracts.contract import SIZE_FIELDS
from imagegate.contracts.size_syntax import Pixels, SizeSyntaxError, Tier, parse_size

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


class UsualSizes:
    """Remembers how much room the pictures of each kind of exchange have taken."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Hashable, deque[int]] = OrderedDict()

    def needed(self, picture: Hashable, way: Hashable, expected: int) -> int:
        """Return the bytes to secure for one picture: 0 where the last exchanges of this kind have taken none.

        Args:
            picture: what exchanges whose pictures are alike have in common.
            way: how they are delivered.
            expected: bytes that such a picture may have.
        """
        by_way = self._seen.get((picture, way), ())
        if len(by_way) >= _ENOUGH and not any(by_way):
            return 0
        seen: Iterable[int] = self._seen.get((picture, None), ())
        return max(expected, max(seen, default=0))

    def note(self, picture: Hashable, way: Hashable, largest: int) -> None:
        """Remember the bytes of an exchange's largest picture in store or spool; 0: it went past both."""
        self._append((picture, way), largest)
        if largest:
            self._append((picture, None), largest)

    def _append(self, key: Hashable, size: int) -> None:
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = deque(maxlen=_REMEMBERED)
            if len(self._seen) > _KINDS:
                self._seen.popitem(last=False)
        seen.append(size)
