"""Room for the images of one exchange."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from imagegate.delivery.result_room import ResultRoom
from imagegate.delivery.usual_sizes import UsualSizes
from imagegate.protocol.messages import Exchange, ImageRequest
from imagegate.spool.budget import default_budget
from imagegate.spool.reservation import Reservation
from imagegate.stores.file import FileStore
from imagegate.upstream.dispatch_hooks import Sending


def test_parts_that_are_sent_at_the_same_time_share_what_is_secured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one secures room for all images, and the others wait until it has."""
    store, secured = FileStore(tmp_path, ttl=60), list[int]()
    reserve = store.reserve

    async def noted(size: int) -> Reservation:
        found = await reserve(size)
        secured.append(size)
        return found

    monkeypatch.setattr(store, "reserve", noted)
    request = ImageRequest(operation="generations", fields={"model": "m", "prompt": "a kite", "n": 4})
    exchange = Exchange(request=request, public_model="m", operation="generations")
    room = ResultRoom(store, default_budget(), UsualSizes(), exchange, form="url")

    async def part() -> int:
        await room.secure(Sending("u", False, "m"))
        return len(secured)

    async def parts() -> list[int]:
        return await asyncio.gather(*[part() for _ in range(4)])

    assert asyncio.run(parts()) == [1, 1, 1, 1]
    room.release()
