"""Forms that are sent while they come in: as long as announced, whatever the client wrote."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message
from tests.protocol.test_multipart import Part, Style, encoded

from imagegate.ingest.form_reader import FormLimits, FormReading
from imagegate.ingest.streaming_form import NeedsBufferedForm, StreamingForm
from imagegate.protocol.messages import LiveFiles
from imagegate.protocol.parsers.multipart import MultipartReader, PartBegin, PartData, boundary_of
from imagegate.protocol.request_encoding import FormBody, TextPart
from imagegate.spool.body_chunks import form_chunks
from imagegate.spool.budget import Budget

BOUNDARY = b"a-boundary-of-a-client"
PNG = b"\x89PNG\r\n\x1a\n"

styles = st.builds(
    Style,
    header_case=st.sampled_from(["title", "lower"]),
    type_first=st.booleans(),
    more_headers=st.booleans(),
    closing=st.sampled_from([b"", b"\r\n", b"\r\nmore"]),
)
files = st.lists(
    st.builds(
        Part,
        st.sampled_from(["image[]", "mask"]),
        st.sampled_from(["a.png", "\u732b.png", 'say "x".png', ""]),
        st.sampled_from(["image/png", "IMAGE/PNG", "image/jpeg", "image/png; q=1", None]),
        st.builds(PNG.__add__, st.binary(max_size=300)),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda part: part.content,
)


@settings(max_examples=60)
@given(styles, files, st.integers(1, 300))
def test_forms_are_as_long_as_announced(style: Style, images: list[Part], step: int) -> None:
    """Or the whole form is asked for, before its end has been sent."""
    images = [part for at, part in enumerate(images) if part.name != "mask" or at == len(images) - 1]
    body = encoded([Part("prompt", None, None, b"Blue"), *images], BOUNDARY, style) if images else b""
    if images:
        asyncio.run(check(body, images, step))


async def check(body: bytes, images: list[Part], step: int) -> None:
    pieces = [body[start : start + step] for start in range(0, len(body), step)]

    async def receive() -> Message:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    kind = b"multipart/form-data; boundary=" + BOUNDARY
    reading = FormReading(kind, limits=FormLimits(), budget=Budget(total=10**8, memory=10**8))
    task = asyncio.create_task(reading.run(receive))
    while not reading.files and not reading.is_over:
        await reading.progress()
    live: LiveFiles = StreamingForm(reading, len(body))
    sent = bytearray()
    try:
        form = FormBody([TextPart("prompt", "Red and blue")], live)
        async for chunk in form_chunks(form):
            sent += chunk
    except NeedsBufferedForm:
        return
    finally:
        await task
        reading.close()
    assert len(sent) == form.length
    reader = MultipartReader(boundary_of(form.content_type.encode()))
    events = reader.feed(bytes(sent))
    reader.finish()
    assert [event.name for event in events if isinstance(event, PartBegin)][1:] == [part.name for part in images]
    contents = b"".join(event.data for event in events if isinstance(event, PartData))
    assert contents == b"Red and blue" + b"".join(part.content for part in images)


def test_the_usual_form_is_streamed() -> None:
    """What the official SDKs write goes out with its length; nothing asks for the whole form."""
    parts = [Part("image[]", "a.png", "image/png", PNG + bytes(70_000)), Part("mask", "m.png", "image/png", PNG)]
    body = encoded([Part("prompt", None, None, b"Blue"), *parts], BOUNDARY, Style())

    async def work() -> None:
        reading = FormReading(
            b"multipart/form-data; boundary=" + BOUNDARY, limits=FormLimits(), budget=Budget(total=10**8, memory=10**8)
        )

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        task = asyncio.create_task(reading.run(receive))
        while not reading.files:
            await reading.progress()
        live = StreamingForm(reading, len(body))
        assert await live.has_known_length()
        form = FormBody([TextPart("prompt", "Blue")], live)
        assert form.length == len(b"".join([chunk async for chunk in form_chunks(form)])) == len(body)
        await task
        reading.close()

    asyncio.run(work())
