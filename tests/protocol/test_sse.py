"""Server-sent events against the format's own rules, written down plainly (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from base64 import b64encode
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagegate.delivery.converter import ImageConverter
from imagegate.delivery.response_format import ResponseFormat
from imagegate.http import HTTPClient
from imagegate.http.guarded_fetch import Fetcher
from imagegate.protocol.messages import StreamEvent
from imagegate.protocol.parsers.base64_json import LINK_MEMBERS, OPENAI_MEMBERS
from imagegate.protocol.parsers.sse import EventEnd, EventReader, EventText, SSEError, Token, event
from imagegate.protocol.reply_encoding import event_parts
from imagegate.spool.body_chunks import reply_chunks
from imagegate.spool.budget import default_budget
from imagegate.spool.upload import Upload
from imagegate.stores.memory import MemoryStore
from imagegate.streaming.event_stream import EventIntake
from imagegate.streaming.image_sinks import PictureSink


class Read(NamedTuple):
    """An event as it was read."""

    name: str
    data: bytes
    fields: dict[bytes, bytes]
    """Last ``id`` and ``retry``."""


def reference(stream: bytes) -> list[Read]:
    """What a whole stream holds; an event without an empty line after it is none."""
    events: list[Read] = []
    name, data, fields = b"", [], dict[bytes, bytes]()
    *lines, _ = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))
    for line in lines:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                events.append(Read(name.decode("utf-8", "replace"), b"\n".join(data), fields))
                data, fields = [], {}
            name = b""
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif field in (b"id", b"retry"):
            fields[field] = value
    return events


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """The stream in pieces."""
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(bounds)]


def events_of(tokens: Iterable[Token]) -> tuple[list[Read], bytes]:
    """Whole events, and the data of one that is not."""
    events: list[Read] = []
    data = b""
    for token in tokens:
        if isinstance(token, EventText):
            data += token.data
        else:
            events.append(Read(token.name, data, fields_of(token)))
            data = b""
    return events, data


def fields_of(end: EventEnd) -> dict[bytes, bytes]:
    pairs = [line.partition(b":") for line in end.lines]
    return {name: value.removeprefix(b" ") for name, _, value in pairs}


def read(stream: bytes, places: Iterable[int] = ()) -> list[Read]:
    reader = EventReader()
    events, _ = events_of(token for piece in cut(stream, places) for token in reader.feed(piece))
    return events


line_ends = st.sampled_from([b"\n", b"\r", b"\r\n"])
texts = st.binary(max_size=12).map(lambda text: re.sub(rb"[\r\n]", b"", text))
values = st.one_of(texts, st.sampled_from([b"", b" ", b"  x", b"{}", b'{"b64_json":"AAAA"}', b"[DONE]", b"data:"]))
names = st.sampled_from(
    [b"data", b"data", b"data", b"event", b"id", b"retry", b"", b"dat", b"datas", b"other", b" data"]
)
colons = st.sampled_from([b":", b": ", b":  "])
lines = st.one_of(
    st.just(b""),
    st.builds(lambda name, colon, value: name + colon + value, names, colons, values),
    names,
    texts,
)
streams = st.builds(
    lambda mark, parts: mark + b"".join(line + end for line, end in parts),
    st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xef\xbb"]),
    st.lists(st.tuples(lines, line_ends), max_size=24),
)
cuts = st.lists(st.integers(0, 400), max_size=12)


@given(streams, cuts)
@example(b"data: a\r\ndata: b\r\n\r\n", range(30))
@example(b"\xef\xbb\xbfdata: a\n\n", range(30))
@example(b"data\n\ndata\ndata\n\ndata:\n", range(30))
def test_any_stream_cut_anywhere(stream: bytes, places: Iterable[int]) -> None:
    """However a stream is cut, its events are those of a reader that sees it whole."""
    assert read(stream, places) == reference(stream)


@given(streams, cuts, st.integers(0, 400))
def test_a_stream_that_ends_anywhere(stream: bytes, places: Iterable[int], end: int) -> None:
    """What ended before is there; at most one event follows, which only lacks its empty line."""
    stream = stream[: end % (len(stream) + 1)]
    reader = EventReader()
    before, rest = events_of(token for piece in cut(stream, places) for token in reader.feed(piece))
    assert before == reference(stream)
    try:
        (last, after) = events_of(reader.finish())
    except SSEError:
        assert not rest
        return
    assert not after
    completed = reference(stream + b"\n\n")
    # Data that was handed on before the end belongs to the event that the end completes.
    assert [*before, *(Read(one.name, rest + one.data, one.fields) for one in last)] == completed


@given(st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), st.binary(), cuts)
def test_what_is_written_can_be_read(name: str, data: bytes, places: Iterable[int]) -> None:
    """Names and data of any kind come back; every kind of line end in data is one line end."""
    (found,) = read(event(name, data), places)
    assert found == (name, re.sub(rb"\r\n|\r", b"\n", data), {})


@given(st.binary(max_size=2000), st.sampled_from([(), (b"id: 7",), (b"id:8", b"retry: 10")]))
def test_pictures_are_written_into_events(content: bytes, kept: tuple[bytes, ...]) -> None:
    """An event with a picture in its place is the event with the picture's base64, and nothing else changes."""

    async def written() -> bytes:
        upload = Upload("", "", "", budget=default_budget())
        await upload.write(content)
        await upload.complete()
        made = StreamEvent(name="x", data=b'{"a":"TOKEN-1","b":"TOKEN"}', pictures={"TOKEN-1": upload}, lines=kept)
        pieces = [piece async for piece in reply_chunks(event_parts(made))]
        assert b"" not in pieces
        return b"".join(pieces)

    (found,) = read(asyncio.run(written()))
    assert found.data == b'{"a":"' + b64encode(content) + b'","b":"TOKEN"}'
    assert (found.name, len(found.fields)) == ("x", len(kept))


def test_data_is_handed_on_before_its_line_ends() -> None:
    """The data of a picture is not collected."""
    reader = EventReader()
    pieces = [b"event: a\ndata: {", b"x" * 100_000, b"y" * 100_000]
    seen = [[len(token.data) for token in reader.feed(piece) if isinstance(token, EventText)] for piece in pieces]
    assert seen == [[1], [100_000], [100_000]]


def test_comments_of_any_length() -> None:
    """Comments and unknown fields take no room, whatever they hold."""
    stream = b": " + b"x" * 100_000 + b"\n" + b"y" * 100_000 + b": z\ndata: a\n\n"
    assert read(stream, range(0, 200_000, 1000)) == [("", b"a", {})]


@pytest.mark.parametrize("field", [b"event", b"id", b"retry"])
def test_long_fields(field: bytes) -> None:
    """A field that must be held is refused where it has no end."""
    with pytest.raises(SSEError):
        read(field + b": " + b"x" * 10_000, range(0, 10_000, 100))


def test_many_fields_take_no_room() -> None:
    """Of fields that come again and again only the last one counts, also across empty lines."""
    (found,) = read(b"id: 1\n" * 1000 + b"\n" + b"retry: 3\n\n" + b"id: 2\ndata: a\n\n")
    assert found == ("", b"a", {b"id": b"2", b"retry": b"3"})


def test_an_event_that_had_begun() -> None:
    """A name without data is an event that was to come."""
    for stream in (b"event: a\n", b"event: a", b"dat", b"\n\ni"):
        reader = EventReader()
        assert list(reader.feed(stream)) == []
        with pytest.raises(SSEError):
            list(reader.finish())
    for stream in (b"", b": waiting", b": waiting\n", b"\n", b"id: 1\n", b"data: a\n\n"):
        reader = EventReader()
        list(reader.feed(stream))
        assert list(reader.finish()) == []


# Events with pictures

Emitted = list[tuple[str, bytes]]


def is_no_picture(name: str) -> bool:
    return name not in ("error", "type", "data", *OPENAI_MEMBERS, *LINK_MEMBERS)


documents = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6).filter(is_no_picture), inner, max_size=3)
    ),
    max_leaves=8,
)
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(64))


async def taken(stream: bytes, places: Iterable[int], form: ResponseFormat) -> Emitted:
    """What a client gets of a provider's stream."""
    store = MemoryStore(ttl=60)
    delivery = ImageConverter(store, Fetcher(HTTPClient()))
    sink = PictureSink(partial(delivery.receiver, form, None))
    sent: Emitted = []

    async def emit(came: StreamEvent) -> None:
        made = await delivery.deliver_event(came, form, public_url="http://here", sink=sink, origin="http://there")
        sent.append((came.name, b"".join([piece async for piece in reply_chunks(event_parts(made))])))
        await sink.release(made.pictures.values())

    intake = EventIntake(sink, emit)
    for piece in cut(stream, places):
        await intake.feed(piece)
    await intake.finish()
    await sink.close()
    return sent


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "x.partial_image"]),
            st.dictionaries(st.text(max_size=6).filter(is_no_picture), documents, max_size=4),
        ),
        min_size=1,
        max_size=4,
    ),
    st.binary(max_size=3000),
    st.sampled_from([None, 1]),
    cuts,
    st.sampled_from(["url", "b64_json"]),
)
def test_events_with_pictures(
    made: list[tuple[str, dict[str, Any]]], more: bytes, indent: int | None, places: Iterable[int], form: ResponseFormat
) -> None:
    """Whatever stands around a picture, and however the stream is cut: only the picture changes, or nothing."""
    encoded = b64encode(PICTURE + more).decode()
    written = [event(name, json.dumps({**rest, "b64_json": encoded}, indent=indent).encode()) for name, rest in made]
    sent = asyncio.run(taken(b"".join(written), places, form))
    assert [name for name, _ in sent] == [name for name, _ in made]
    if form == "b64_json":
        assert [raw for _, raw in sent] == written
        return
    for (_, rest), (_, raw) in zip(made, sent, strict=True):
        (found,) = read(raw)
        document = json.loads(found.data)
        assert document.pop("url").startswith("http://here/")
        assert document == rest
