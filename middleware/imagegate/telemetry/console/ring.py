"""The last exchanges, bounded in number and bytes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, cast

from imagegate.telemetry.capture import Capture, documents_of, pictures_in
from imagegate.telemetry.console.thumbnails import Thumbnail
from imagegate.telemetry.record import ExchangeRecord

MOST_BYTES: Final = 32 * 1024**2
"""Of pictures that are held."""


class Picture:
    """An image of a response: as received until it is viewed, then a thumbnail."""

    __slots__ = ("base64", "link", "small")

    def __init__(self, *, link: str = "", base64: str = "") -> None:
        self.link = link
        self.base64 = base64
        self.small: Thumbnail | None = None

    @property
    def size(self) -> int:
        return len(self.base64) + (len(self.small.content) if self.small else 0)


class Entry:
    """One exchange, in its recorded form until it is viewed."""

    def __init__(self, number: int, record: ExchangeRecord) -> None:
        capture = cast("Capture", record.capture)
        self.number = number
        self.principal_id = record.principal_id
        self._record = record
        self._ended = time.time()
        self._answer = capture.answered()

    @cached_property
    def pictures(self) -> list[Picture]:
        """Those of the answer."""
        return self._read[0]

    @cached_property
    def shown(self) -> dict[str, Any]:
        """What the page gets."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[list[Picture], dict[str, Any]]:
        documents = documents_of(self._answer)
        self._answer = b""
        record = self._record
        pictures = [_picture(item) for item in pictures_in(documents)] if record.status < 400 else []
        return pictures, _shown(self.number, self._ended, record, documents, pictures)

    @property
    def size(self) -> int:
        """Bytes that are held of the answer."""
        return sum(picture.size for picture in self.pictures) if "_read" in vars(self) else len(self._answer)


class Ring:
    """Keeps entries; the oldest go first.

    Args:
        entries: most of them.
        most_bytes: of all pictures together; beyond that the oldest lose theirs.
    """

    def __init__(self, entries: int, *, most_bytes: int = MOST_BYTES) -> None:
        self._most = entries
        self._most_bytes = most_bytes
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._last = 0
        self._held_at_most = 0

    def add(self, record: ExchangeRecord) -> None:
        self._last += 1
        entry = self._entries[self._last] = Entry(self._last, record)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)
        self._held_at_most += entry.size
        if self._held_at_most > self._most_bytes:
            self.trim()

    def trim(self) -> None:
        """Hold the bound on bytes, after pictures have come in."""
        held = 0
        for entry in reversed(self._entries.values()):
            if held + entry.size <= self._most_bytes:
                held += entry.size
                continue
            for picture in entry.pictures:
                held += picture.size
                if held > self._most_bytes:
                    held -= picture.size
                    picture.base64, picture.small = "", None
        self._held_at_most = held

    def after(self, number: int) -> Iterator[Entry]:
        """Entries later than `number`, in order."""
        return (entry for entry in self._entries.values() if entry.number > number)

    def get(self, number: int) -> Entry | None:
        return self._entries.get(number)


def _picture(item: Any) -> Picture:
    url, base64 = item.get("url"), item.get("b64_json")
    return Picture(link=url) if isinstance(url, str) else Picture(base64=base64)


def _shown(
    number: int,
    ended: float,
    record: ExchangeRecord,
    documents: Sequence[Mapping[str, Any]],
    pictures: Sequence[Picture],
) -> dict[str, Any]:
    capture = cast("Capture", record.capture)
    error = next((found for document in documents if isinstance(found := document.get("error"), dict)), None)
    return {
        "number": number,
        "ended": ended,
        "request_id": record.request_id,
        "operation": record.endpoint,
        "status": record.status,
        "outcome": record.outcome_class,
        "key": record.key_name or record.user,
        "model": record.model[:128],
        "upstream": record.upstream,
        "upstream_model": record.upstream_model[:128],
        "prompt": capture.prompt,
        "asked": capture.asked,
        "sent": capture.sent,
        "changes": record.changes,
        "error": None if error is None else {name: error.get(name) for name in ("message", "code", "param")},
        "form": record.form,
        "pictures": [{"link": picture.link, "base64": bool(picture.base64)} for picture in pictures],
        "images": {"asked": record.images_asked, "made": record.images_made, "delivered": record.images_delivered},
        "sizes": record.sizes_made,
        "cost": None if record.cost is None else f"{record.cost:.4g} {record.currency}",
        "seconds": {
            "total": record.seconds,
            "first_byte": record.first_byte_seconds,
            "queue": record.queue_seconds,
            "upstream": record.upstream_seconds,
            "delivery": record.delivery_seconds,
        },
        "counts": {
            "attempts": record.attempts,
            "retries": record.retries,
            "fallbacks": record.fallbacks,
            "polls": record.polls,
        },
        "idempotent": record.idempotent,
        "contract": record.contract,
        "bytes": {"in": record.bytes_in, "out": record.bytes_out},
    }
