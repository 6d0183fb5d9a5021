"""Room for the images of one exchange, and how much is secured before they are paid for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message
from tests.smallest_png import ONE_PIXEL

from imagegate.delivery.converter import ImageConverter
from imagegate.delivery.response_format import ResponseFormat
from imagegate.delivery.result_room import Kind, ResultRoom, UsualSizes, bytes_expected, bytes_of_shape
from imagegate.delivery.session import DeliverySession
from imagegate.http import HTTPClient
from imagegate.http.guarded_fetch import Fetcher
from imagegate.protocol.messages import REPLY, Exchange, ImageReply, ImageRequest, ReplyImage
from imagegate.spool.budget import default_budget
from imagegate.spool.reservation import Reservation
from imagegate.stores.file import FileStore
from imagegate.stores.memory import MemoryStore
from imagegate.telemetry.progress import Progress
from imagegate.upstream.dispatch_hooks import Sending

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 3 * MIB),
        ({"size": "auto"}, 3 * MIB),
        ({"size": "16:9"}, 3 * MIB),
        ({"size": 7}, 3 * MIB),
        ({"size": "512x512"}, 3 * MIB // 4),
        ({"size": "1536x1024"}, 3 * 1536 * 1024),
        ({"size": "1536x1024", "background": "transparent"}, 4 * 1536 * 1024),
        ({"size": "1536x1024", "output_format": "jpeg"}, 1536 * 1024),
        ({"output_format": "webp"}, MIB),
        ({"size": "2K"}, 12 * MIB),
        ({"aspect_ratio": "16:9", "resolution": "2k"}, 12 * MIB),
        ({"metadata": {"resolution": "2K"}}, 12 * MIB),
        ({"resolution": "4K"}, 48 * MIB),
        ({"size": "99999x99999"}, 64 * MIB),
    ],
)
def test_bytes_expected(fields: dict[str, Any], expected: int) -> None:
    """Three bytes for each pixel of a PNG, one for a pixel of JPEG or WebP; a megapixel where no size is asked for."""
    assert bytes_expected(fields) == expected


_VALUES = st.one_of(st.none(), st.integers(), st.text(max_size=70), st.sampled_from(["4K", "1x1", "auto", "1:99"]))


@given(st.dictionaries(st.sampled_from(["size", "resolution", "aspect_ratio", "output_format", "metadata"]), _VALUES))
def test_whatever_a_request_says_there_is_a_number(fields: dict[str, Any]) -> None:
    assert 0 < bytes_expected(fields) <= 64 * MIB


def kind(form: ResponseFormat = "url", *, model: str = "m", expected: int = 100) -> Kind:
    return Kind("u", model, expected, form, streamed=False, copies_links=False)


def test_what_was_seen_counts() -> None:
    """A picture that was larger than expected raises what is secured, in whichever way the next one is delivered."""
    usual = UsualSizes()
    assert usual.needed(kind()) == 100
    usual.note(kind(), 250)
    assert usual.needed(kind()) == usual.needed(kind("b64_json")) == 250
    assert usual.needed(kind(expected=99)) == 99
    assert usual.needed(kind(model="other")) == 100
    for _ in range(31):
        usual.note(kind(), 20)
    assert usual.needed(kind()) == 250
    usual.note(kind(), 20)
    assert usual.needed(kind()) == 100


def test_links_that_are_passed_through_need_no_room() -> None:
    """Three exchanges that took no room are enough to believe it, and one that took some is enough to stop."""
    usual = UsualSizes()
    for needed in (100, 100, 100, 0, 0):
        assert usual.needed(kind()) == needed
        usual.note(kind(), 0)
    assert usual.roomless == {kind()}
    assert usual.needed(kind("b64_json")) == 100
    usual.note(kind(), 7)
    for _ in range(32):
        assert usual.needed(kind()) == 100
        usual.note(kind(), 0)
    assert usual.needed(kind()) == 0


def test_kinds_are_bounded() -> None:
    """Clients can name any number of models; the oldest kinds are forgotten."""
    usual = UsualSizes()
    kinds = [kind(model=f"model {number}") for number in range(2000)]
    for each in kinds:
        for size in (500, 0, 0, 0):
            usual.note(each, size)
    assert (usual.needed(kinds[0]), usual.needed(kinds[-1])) == (100, 500)
    for each in kinds:
        for _ in range(32):
            usual.note(each, 0)
    assert len(usual.roomless) <= 1024
    assert kinds[-1] in usual.roomless
    assert kinds[0] not in usual.roomless


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
    room = ResultRoom(store, default_budget(), UsualSizes(), exchange, "url")

    async def part() -> int:
        await room.secure(Sending("u", False, "m"))
        return len(secured)

    async def parts() -> list[int]:
        return await asyncio.gather(*[part() for _ in range(4)])

    assert asyncio.run(parts()) == [1, 1, 1, 1]
    room.release()


async def delivered(converter: ImageConverter, image: ReplyImage, **fields: Any) -> int:
    """Deliver an image as a link; return how many rooms were made before it was paid for."""
    request = ImageRequest(operation="generations", fields={"model": "m", "prompt": "a kite", **fields})
    exchange = Exchange(request=request, public_model="m", operation="generations")
    made: list[ResultRoom] = []
    make = converter.room

    def noted(*args: Any) -> ResultRoom:
        made.append(make(*args))
        return made[-1]

    async def client(message: Message) -> None:
        pass

    async def below() -> None:
        await session.secure(Sending("u", False, "m"))
        secured.append(len(made))
        await session({"type": REPLY, "reply": ImageReply(images=(image,), created=1)})

    secured: list[int] = []
    converter.room = noted  # type: ignore[assignment]
    session = DeliverySession(
        converter,
        client,
        exchange,
        form="url",
        progress=Progress("generations"),
        public_url=lambda: "https://gateway.example",
        heartbeat=None,
    )
    try:
        await session.run(below)
    finally:
        converter.room = make
    return secured[0]


def test_room_is_made_again_once_a_picture_has_come_where_links_were_usual() -> None:
    """For every request whose pictures may be as large, however it says so; others are of another kind."""
    converter = ImageConverter(MemoryStore(ttl=60), Fetcher(HTTPClient()))
    link, picture = ReplyImage(url="https://cdn.example/1.png"), ReplyImage(b64_json=ONE_PIXEL)

    async def exchanges() -> list[int]:
        rooms = [await delivered(converter, link, size="1024x1024") for _ in range(3)]
        rooms.append(await delivered(converter, link, size="1024x1024"))
        rooms.append(await delivered(converter, link, size="auto", background="opaque"))
        rooms.append(await delivered(converter, link, size="1536x1024"))
        rooms.append(await delivered(converter, link, metadata={"resolution": "2K"}))
        rooms.append(await delivered(converter, picture, size="1024x1024"))
        rooms.append(await delivered(converter, link, size="1024x1024"))
        rooms.append(await delivered(converter, link))
        return rooms

    assert asyncio.run(exchanges()) == [1, 1, 1, 0, 0, 1, 1, 0, 1, 1]


@given(st.dictionaries(st.sampled_from(["size", "resolution", "output_format", "metadata", "background"]), _VALUES))
def test_shapes_are_short_and_say_as_much_as_the_request(fields: dict[str, Any]) -> None:
    """Whatever a client has written."""
    request = ImageRequest(operation="generations", fields={"model": "m", **fields})
    if request.shape is None:
        assert any(not isinstance(value, str) or len(value) > 64 for value in fields.values())
    else:
        assert sum(map(len, request.shape)) <= 6 * 64
        assert bytes_of_shape(request.shape) == bytes_expected(fields)
