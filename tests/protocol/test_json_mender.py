"""JSON that is passed on while it comes in: sound documents as they are, others mended, however they are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.protocol.parsers import json_mender
from imagegate.protocol.parsers.json_mender import JSONMender


def mended(body: bytes, cuts: list[int] | None = None) -> bytes:
    mender = JSONMender()
    places = [0, *sorted(cuts or []), len(body)]
    return b"".join(mender.feed(body[start:end]) for start, end in pairwise(places)) + mender.finish()


CASES: list[tuple[bytes, bytes]] = [
    (b'\xef\xbb\xbf{"a":1}', b'{"a":1}'),
    (b'{"a":NaN,"b":[-Infinity,Infinity, NaN ]}', b'{"a":null,"b":[null,null, null ]}'),
    (b'{"a":"NaN","Infinity":"-Infinity"}', b'{"a":"NaN","Infinity":"-Infinity"}'),
    (b'{"a":"x \\ud83d"}', b'{"a":"x \\ufffd"}'),
    (b'{"a":"\\ud83d\\ude00 \\\\ud83d"}', b'{"a":"\\ud83d\\ude00 \\\\ud83d"}'),
    (b'{"a":"\\ude00\\ud83d\\u0041"}', b'{"a":"\\ufffd\\ufffd\\u0041"}'),
    (b'{"a":"\xe9t\xe9 \xc3\xa9"}', '{"a":"\ufffdt\ufffd \u00e9"}'.encode()),
    (b'{"a":"\xc3"}', '{"a":"\ufffd"}'.encode()),
    (b'{"a":"a\nb\tc"}', b'{"a":"a b c"}'),
    (b'{"a":"C:\\x"}', b'{"a":"C:\\\\x"}'),
    (b'{"b64_json":"QUI"}', b'{"b64_json":"QUI="}'),
    (b'{"b64_json" : "QQ","x":"QQ"}', b'{"b64_json" : "QQ==","x":"QQ"}'),
    (b'{"b64_json":"\\/\\/8"}', b'{"b64_json":"\\/\\/8="}'),
    (b'{"b64_json":"QUJD"}', b'{"b64_json":"QUJD"}'),
    (b'{"b64_json":"QUI=", "url":"b64_json"}', b'{"b64_json":"QUI=", "url":"b64_json"}'),
    (b'{"b64_json":null,"a":"QQ"}', b'{"b64_json":null,"a":"QQ"}'),
    (b'{"b64_json":"QQ===="}', b'{"b64_json":"QQ=="}'),
    (b'{"b64_json":" Q\\nQ\r\n="}', b'{"b64_json":"QQ=="}'),
    (b'{"b64_json":"data:image/png;base64,QQ"}', b'{"b64_json":"data:image/png;base64,QQ"}'),
    (b'{"a":1} and more "of it" }', b'{"a":1}'),
    (b'INFO it begins {"a":1}{"b":2}', b'{"a":1}'),
    (b'{"a":[1,2,],}', b'{"a":[1,2]}'),
    (b'{,"a":[,1,, 2 , ]}', b'{"a":[1, 2  ]}'),
    (b'{"a":None,"b":True,"c":undefined,"d":False}', b'{"a":null,"b":true,"c":null,"d":false}'),
    (b'{"a":.5,"b":+5,"c":012,"d":1e999,"e":0x1F,"f":-1}', b'{"a":0.5,"b":5.0,"c":12.0,"d":null,"e":null,"f":-1}'),
    (b'{"a":1/* "no" */,// it\'s\n"b":2}', b'{"a":1,"b":2}'),
    (b'{a:1, $b : "c"}', b'{"a":1, "$b": "c"}'),
    (b"{'a':'it\\'s \"b\"','c':'\\\\'}", b'{"a":"it\'s \\"b\\"","c":"\\\\"}'),
    (b'{"seed":' + b"9" * 400 + b"}", b'{"seed":null}'),
]


@pytest.mark.parametrize(("body", "right"), CASES)
def test_cases(body: bytes, right: bytes) -> None:
    for step in (1, 2, 3, 5, 7, len(body)):
        assert mended(body, list(range(step, len(body), step))) == right
    json.loads(right)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["b64_json", "a"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def without_pictures(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: without_pictures(value) for name, value in node.items() if name != "b64_json"}
    return [without_pictures(item) for item in node] if isinstance(node, list) else node


@given(JSON, st.booleans(), st.data())
def test_sound_json_comes_out_as_it_went_in(document: Any, ascii_only: bool, data: st.DataObject) -> None:
    body = json.dumps([without_pictures(document)], ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=5))
    out = mended(body, cuts)
    assert out == mended(body)
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return
    if "\\ud" not in body.decode():
        assert out == body


@given(st.binary(max_size=50), st.data())
def test_any_bytes(body: bytes, data: st.DataObject) -> None:
    """Where they are cut makes no difference, and what is no UTF-8 in a text is never passed on."""
    body = b'{"a":"' + body
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=5))
    assert mended(body, cuts) == mended(body)


@given(
    st.lists(
        st.sampled_from([b"\\ud83d", b"\\ude00", b"\\\\", b"\\u0041", b"x", b"\xc3", b"\xa9", b'\\"']), max_size=12
    ),
    st.data(),
)
def test_texts(pieces: list[bytes], data: st.DataObject) -> None:
    """Whatever a text is made of, what comes out is JSON."""
    body = b'{"a":"' + b"".join(pieces) + b'"}'
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=6))
    text = json.loads(mended(body, cuts))["a"]
    text.encode("utf-8")


@given(
    st.lists(
        st.sampled_from(
            [
                b"{",
                b"}",
                b"[",
                b"]",
                b",",
                b":",
                b'"',
                b"'",
                b" ",
                b"\n",
                b"/",
                b"*",
                b"#",
                b"None",
                b"1",
                b".",
                b"x",
                b"\\",
            ]
        ),
        max_size=25,
    ),
    st.data(),
)
def test_cuts_make_no_difference(pieces: list[bytes], data: st.DataObject) -> None:
    """Whatever comes, what is made of it depends on what it is."""
    body = b'{"a":[' + b"".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    assert mended(body, cuts) == mended(body)


def test_a_document_that_is_all_odd_signs() -> None:
    """It is given up, without work for each sign."""
    body = b"[" + b"None," * 300_000
    assert len(json_mender.mended(body)) >= len(body) - 1_000_000


@pytest.mark.parametrize("unit", [b"//", b"#", b"/*", b"'\\'", b"[ ,", b"x :", b", " + b" " * 50])
def test_the_work_grows_as_the_document_does(unit: bytes) -> None:
    """A megabyte of what is looked at sign by sign; were each sign to look at all that follows, this took minutes."""
    body = b'{"a":[' + unit * (1_000_000 // len(unit))
    assert len(json_mender.mended(body)) <= 2 * len(body)


@given(
    st.lists(
        st.sampled_from([b"QUJD" * 10, b"A", b"=", b"\n", b" ", b"\\", b"\\/", b'"', b'"b64_json":"', b"\xff", b","])
    ),
    st.data(),
)
def test_what_is_passed_on_needs_no_mending(pieces: list[bytes], data: st.DataObject) -> None:
    """A piece that need not be fed would have come out as it went in, and what follows comes out as it would have."""
    body = b'{"data":[{"b64_json":"' + b"".join(pieces) + b'"}]}'
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8))), len(body)]
    fed, passed = JSONMender(), JSONMender()
    for start, end in pairwise(cuts):
        piece = body[start:end]
        right = fed.feed(piece)
        assert right == (piece if passed.pass_on(piece) else passed.feed(piece))
    assert fed.finish() == passed.finish()


def test_most_pieces_of_a_picture_are_passed_on() -> None:
    mender, piece = JSONMender(), b"QUJD" * 1000
    assert not mender.pass_on(piece)
    mender.feed(b'{"b64_json":"' + piece)
    assert mender.pass_on(piece)
    assert not mender.pass_on(piece + b'"')
    assert mender.feed(b'QQ"}') + mender.finish() == b'QQ=="}'
