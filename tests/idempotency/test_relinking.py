"""Links of recorded answers begin with the address that their reader used."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from imagegate.idempotency.relinking import Relinking
from imagegate.telemetry.progress import Progress

OLD, NEW = "http://first.example:8000/images", "https://second.example/pictures/images"
JSON = (b"content-type", b"application/json")


def sent(body: list[bytes], *headers: tuple[bytes, bytes], told: str = OLD, base: str = NEW) -> list[dict[str, Any]]:
    """What a client gets of an answer that was recorded in such pieces."""
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def run() -> None:
        progress = Progress("generations", link_base=base)
        relinking = Relinking(send, progress, base)
        progress.link_base = told
        await relinking({"type": "http.response.start", "status": 200, "headers": list(headers)})
        for place, piece in enumerate(body):
            more = place < len(body) - 1
            await relinking({"type": "http.response.body", "body": piece, "more_body": more})

    asyncio.run(run())
    return messages


def body_of(messages: list[dict[str, Any]]) -> bytes:
    assert [message["type"] for message in messages[1:]] == ["http.response.body"] * (len(messages) - 1)
    assert [message.get("more_body", False) for message in messages[1:]] == [True] * (len(messages) - 2) + [False]
    return b"".join(message["body"] for message in messages[1:])


@given(
    st.lists(st.sampled_from([f"{OLD}/a.png?x=1", f"{OLD}s/b", "http://first", "text", OLD, "", '"\\'])),
    st.lists(st.integers(0, 400)),
    st.booleans(),
)
def test_pieces(texts: list[str], cuts: list[int], has_length: bool) -> None:
    """However an answer is cut, each link is found, nothing else changes, and its length is right."""
    body = msgspec.json.encode(texts)
    places = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(places)]
    length = ((b"Content-Length", str(len(body)).encode()),) if has_length else ()
    messages = sent(pieces, JSON, *length)
    expected = msgspec.json.encode([text.replace(f"{OLD}/", f"{NEW}/") for text in texts])
    assert body_of(messages) == expected
    lengths = [value for name, value in messages[0]["headers"] if name.lower() == b"content-length"]
    assert lengths == ([str(len(expected)).encode()] if has_length else [])


def test_an_event_is_not_held_back() -> None:
    """What cannot be the beginning of a link goes on at once, so that an event is whole when it comes."""
    messages = sent([b'data: {"url":"' + OLD.encode() + b'/1"}\n\n', b"data: h", b"t\n\n", b""])
    assert [message["body"] for message in messages[1:3]] == [
        b'data: {"url":"' + NEW.encode() + b'/1"}\n\n',
        b"data: ",
    ]
    assert body_of(messages).endswith(b"data: ht\n\n")


def test_what_stays_as_it_is() -> None:
    """An answer for the same address, one that knows of none, and one that is too large to hold links."""
    body = f'{{"url":"{OLD}/1"}}'.encode()
    for told, base in ((OLD, OLD), ("", NEW), (OLD, "")):
        messages = sent([body[:9], body[9:]], JSON, told=told, base=base)
        assert [message["body"] for message in messages[1:]] == [body[:9], body[9:]]
    large = sent([body, b" " * 9], JSON, (b"content-length", b"1048577"))
    assert [message.get("body") for message in large[1:]] == [body, b" " * 9]
    assert sent([body], JSON, (b"content-length", b"x"))[1]["body"] == body


def test_hosts_that_json_escapes() -> None:
    """Whatever stands in a Host, the document stays JSON."""
    told, base = 'http://a"b\\/images', 'http://"\\c/images'
    body = msgspec.json.encode({"url": f"{told}/1"})
    assert msgspec.json.decode(body_of(sent([body], JSON, told=told, base=base))) == {"url": f"{base}/1"}
