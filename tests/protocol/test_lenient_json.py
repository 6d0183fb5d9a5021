"""JSON with blemishes: what can be said is kept, what cannot becomes null or U+FFFD."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.protocol.parsers.lenient_json import read_value

PICTURE = '"data":[{"b64_json":"iVBORw0KGgo="}]'


@pytest.mark.parametrize(
    ("body", "beside"),
    [
        (b"\xef\xbb\xbf{%b}", None),
        ("{%s}".encode("utf-16"), None),
        (b" \r\n\t{%b}\r\n", None),
        (b'{%b,"x":NaN}', None),
        (b'{%b,"x":[Infinity,-Infinity,1]}', [None, None, 1]),
        (b'{%b,"x":1e999}', None),
        (b'{%b,"x":123456789012345678901234567890}', 123456789012345678901234567890),
        (b'{%b,"x":"a\xe9b"}', "a\ufffdb"),
        (b'{%b,"x":"a \\ud83d"}', "a \ufffd"),
        (b'{%b,"x":"\\ude00\\ud83d"}', "\ufffd\ufffd"),
        (b'{%b,"x":"\\ud83d\\ude00","y":NaN}', "\U0001f600"),
        (b'{%b,"x":"a\nb\x00"}', "a\nb\x00"),
        (b'{%b,"x":"C:\\img \\x \\\\ \\""}', 'C:\\img \\x \\ "'),
        (b"{%b}\x00\x00", None),
        (b"{%b}\n<!-- 12 ms -->", None),
    ],
)
def test_blemishes(body: bytes, beside: Any) -> None:
    body = body.replace("%s".encode("utf-16")[2:], PICTURE.encode("utf-16")[2:])
    document = read_value(body.replace(b"%b", PICTURE.encode()))
    assert isinstance(document, dict)
    assert document["data"] == [{"b64_json": "iVBORw0KGgo="}]
    assert document.get("x") == beside
    msgspec.json.encode(document)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"null",
        b"7",
        b'"text"',
        b"<html>{}</html>",
        b'{"a":',
        b'{"a":1',
        b"{'a':1]",
        b"[" * 5000,
    ],
)
def test_what_is_no_document(body: bytes) -> None:
    assert read_value(body) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
SURROGATES = st.text(alphabet=st.characters(codec=None, min_codepoint=0xD7F0, max_codepoint=0xE010), max_size=6)


@given(st.dictionaries(st.text(max_size=5) | SURROGATES, JSON | SURROGATES, max_size=4))
def test_what_python_prints(document: dict[str, Any]) -> None:
    """Python prints NaN and lone surrogates; both are read, and what comes of them can be said in JSON."""
    read = read_value(json.dumps(document).encode())
    assert isinstance(read, dict)
    assert json.loads(msgspec.json.encode(read)) == read_value(msgspec.json.encode(read))


@given(JSON.filter(lambda value: isinstance(value, (dict, list))))
def test_sound_json_is_untouched(document: Any) -> None:
    try:
        body = json.dumps(document, allow_nan=False).encode()
    except ValueError:
        return
    assert read_value(body) == json.loads(body)


@given(st.binary(max_size=60))
def test_any_bytes(body: bytes) -> None:
    """They are a document or none, and a document can be written."""
    for whole in (body, b'{"a":"' + body + b'"}', b"{" + body + b"}"):
        document = read_value(whole)
        if document is not None:
            msgspec.json.encode(document)
