"""Input that is nothing but signs: it is read in steps of bounded work, and refused where no reply needs so much."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.errors import RequestError
from imagegate.protocol.parsers.base64_decoder import ScanError
from imagegate.protocol.parsers.base64_json import Base64Scanner, PictureStart
from imagegate.protocol.parsers.lenient_json import read_value
from imagegate.protocol.parsers.sse import EventEnd, EventReader, EventText, Pause, SSEError
from imagegate.protocol.references import references_of
from imagegate.protocol.requests import parse_object

PIECE = 256 * 1024


def filled(unit: bytes, size: int = PIECE) -> bytes:
    return unit * (size // len(unit))


@pytest.mark.parametrize("unit", [b"0,", b" ", b":", b"true,", b"1.5e3 ,"], ids=repr)
def test_what_is_no_text_and_no_container_is_one_step(unit: bytes) -> None:
    scanner = Base64Scanner()
    assert len(list(scanner.steps(b"[" + filled(unit)))) == 1


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'"",', b'"a":', b'{"a":1},'], ids=repr)
def test_texts_and_containers_are_counted_in_steps_and_have_a_bound(unit: bytes) -> None:
    signs = sum(map(unit.count, (b"[", b"]", b"{", b"}"))) + unit.count(b'"') // 2
    scanner = Base64Scanner()
    units = PIECE // len(unit)
    steps = len(list(scanner.steps(b"[" + filled(unit))))
    assert steps >= units * signs // 4096
    with pytest.raises(ScanError, match="more members"):
        scanner.feed(filled(unit, 4 * PIECE))


def test_a_document_has_no_thousands_of_pictures() -> None:
    picture = b'{"b64_json":"iVBORw0K"},'
    scanner = Base64Scanner()
    with pytest.raises(ScanError, match="more pictures"):
        scanner.feed(b"[" + picture * 300)
    assert scanner.pictures == 256


_TEXTS = st.text(alphabet='ab \\"{}[],:é', max_size=6)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["b64_json", "a", '"', "}:"]), inner, max_size=4)
    ),
    max_leaves=20,
)


def paths_of_pictures(node: object, path: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from paths_of_pictures(value, f"{path}.{name}" if path else name)
    elif isinstance(node, list):
        for item in node:
            yield from paths_of_pictures(item, f"{path}[]")
    elif isinstance(node, str) and node and f".{path}".removesuffix("[]").endswith(".b64_json"):
        yield path


@given(_VALUES, st.sampled_from([None, 1]), st.integers(1, 9))
def test_names_and_values_are_told_apart_however_they_are_cut(document: object, indent: int | None, step: int) -> None:
    """Pictures are found where the document has them, whatever signs stand in its texts."""
    body = json.dumps(document, indent=indent, ensure_ascii=False).encode()
    scanner = Base64Scanner(decode=0, usual=False)
    found: list[str] = []
    for start in range(0, len(body), step):
        found += [event.path for event in scanner.feed(body[start : start + step]) if isinstance(event, PictureStart)]
    assert found == list(paths_of_pictures(document))
    rest = json.loads(scanner.finish())
    assert found or rest == document


@pytest.mark.parametrize("unit", [b"\n", b"\r\n", b"\r", b":\n", b": comment\r\n", b":a\n\n"], ids=repr)
def test_comments_and_empty_lines_between_events_are_one_step(unit: bytes) -> None:
    reader = EventReader()
    tokens = list(reader.feed(b"data: 1\n\n" + filled(unit) + b"data: 2\n\n"))
    assert tokens == [EventText(b"1"), EventEnd(""), EventText(b"2"), EventEnd("")]


@pytest.mark.parametrize("unit", [b"a\n", b"id: 1\n", b"event: x\n", b"retry\r\n"], ids=repr)
def test_other_lines_come_with_pauses(unit: bytes) -> None:
    tokens = list(EventReader().feed(filled(unit)))
    assert len(tokens) >= PIECE // len(unit) // 2048 - 1
    assert all(isinstance(token, Pause) for token in tokens)


def test_an_event_has_no_thousands_of_lines() -> None:
    reader = EventReader()
    with pytest.raises(SSEError, match="too many lines"):
        list(reader.feed(filled(b"data:\n")))


_LINES = st.lists(
    st.sampled_from([b"", b":", b": c", b"data: a", b"data", b"event: e", b"id: 1", b"x", b"data:", b":data: x"]),
    max_size=12,
)


@given(_LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 60), max_size=4), st.integers(0, 5))
def test_what_is_skipped_makes_no_difference(lines: list[bytes], end: bytes, cuts: list[int], more: int) -> None:
    """A stream says the same with comments and empty lines before it, wherever it is cut."""

    def told(stream: bytes, places: list[int]) -> list[object]:
        reader, tokens = EventReader(), []
        bounds = [0, *sorted(place for place in places if place < len(stream)), len(stream)]
        for begin, stop in pairwise(bounds):
            tokens += list(reader.feed(stream[begin:stop]))
        data, events = b"", []
        for token in tokens:
            if isinstance(token, EventText):
                data += token.data
            elif isinstance(token, EventEnd):
                events.append((token.name, data, token.lines))
                data = b""
        return events

    stream = b"".join(line + end for line in lines)
    before = (end + b": c" + end) * more + (end if more else b"")
    assert told(before + stream, cuts) == told(stream, [])


@pytest.mark.parametrize("unit", [b"[],", b'{"a":1},', b"1,"], ids=repr)
def test_a_small_reply_of_nothing_but_members_is_not_gone_through(unit: bytes) -> None:
    assert read_value(b'{"data":[' + filled(unit, 1_000_000) + b"1]}") is None
    assert read_value(b'{"data":[' + filled(unit, 20_000) + b"1]}") is not None


@pytest.mark.parametrize("value", ["1", '"text"', "[]"], ids=repr)
@pytest.mark.parametrize("members", [2001, 5000])
def test_a_request_has_no_thousands_of_members(value: str, members: int) -> None:
    """Whether it is read the short way or with care."""
    body = "{" + ",".join(f'"a{number}":{value}' for number in range(members)) + "}"
    with pytest.raises(RequestError, match="more members"):
        parse_object(body.encode())
    body = "{" + ",".join(f'"a{number}":{value}' for number in range(2000)) + "}"
    assert len(parse_object(body.encode())) == 2000


def test_a_request_has_no_hundreds_of_references() -> None:
    links = ["https://example.com/a.png"] * 257
    for name in ("images", "image_urls"):
        with pytest.raises(RequestError) as caught:
            references_of({name: links})
        assert (caught.value.param, caught.value.code) == (name, "array_above_max_length")
        assert len(references_of({name: links[1:]})[1]) == 256
