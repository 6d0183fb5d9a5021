"""Documents with files in them, as bytes and files."""

from __future__ import annotations

import asyncio
import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.adapter import FileID, ImageRequest, InlineFile, Link, TextPart, form_texts, inline, native_form, pixels
from imagegate.contracts.body import BodyRule
from imagegate.protocol.messages import ImageReply, ReplyImage
from imagegate.protocol.reply_encoding import length_of, reply_parts
from imagegate.protocol.request_encoding import document_parts
from imagegate.spool.body_chunks import reply_chunks
from imagegate.testing import MemoryFile, png


def whole(parts) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in reply_chunks(parts)])

    return asyncio.run(collect())


@given(st.lists(st.binary(max_size=70), max_size=120), st.booleans())
def test_each_file_stands_in_its_own_place(contents, is_data_url):
    """However many there are, in whatever place, and the length is known before."""
    files = [InlineFile(MemoryFile(content), is_data_url=is_data_url) for content in contents]
    parts = document_parts({"prompt": "imagegate-0-1", "files": files, "more": [{"nested": file} for file in files]})
    body = whole(parts)
    assert len(body) == length_of(parts)
    document = json.loads(body)
    expected = [file.head + base64.b64encode(file.upload.content).decode() for file in files]
    assert all(file.head == (f"data:{file.upload.media_type};base64," if is_data_url else "") for file in files)
    assert document["files"] == [item["nested"] for item in document["more"]] == expected


def test_a_reply_with_many_images_has_each_of_them():
    """The eleventh is not the second."""
    files = [MemoryFile(png(shade=place)) for place in range(24)]
    reply = ImageReply(images=tuple(ReplyImage(picture=file) for file in files), created=1)
    document = json.loads(whole(reply_parts(reply)))
    assert [base64.b64decode(item["b64_json"]) for item in document["data"]] == [file.content for file in files]


def test_what_is_no_file():
    """Neither a link nor an id is one, nor what JSON has no form for."""
    for reference in (Link("https://a.example/1.png"), FileID("file-1")):
        with pytest.raises(TypeError):
            inline(reference)
    with pytest.raises(TypeError, match="object has no place in JSON"):
        document_parts({"x": object()})


@pytest.mark.parametrize(
    ("size", "members"),
    [("1024x768", {"width": 1024, "height": 768}), ("auto", {}), (None, {}), ("1024x", {}), ("x1", {}), (5, {})],
)
def test_pixels(size, members):
    """`width` and `height` for what is a size in pixels."""
    assert pixels(size) == members


def test_several_files_may_share_one_name():
    """For providers whose forms know no brackets."""
    images = tuple(MemoryFile(png(), filename=f"{place}.png") for place in range(2))
    request = ImageRequest(operation="edits", fields={"prompt": "A hat", "n": 2}, images=images)
    assert [part.name for part in native_form(request)] == ["prompt", "n", "image", "image"]
    named = msgspec.structs.replace(request, mask=images[0], body_rule=BodyRule(images=("a", "b"), mask="m"))
    assert [part.name for part in native_form(named)] == ["prompt", "n", "a", "b", "m"]
    assert form_texts({"n": 2, "flag": True}) == (TextPart("n", "2"), TextPart("flag", "true"))
