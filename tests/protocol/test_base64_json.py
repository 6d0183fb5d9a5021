"""The scanner of base64 in JSON, held against an ordinary JSON reader and decoder."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagegate.delivery.converter import decode_base64
from imagegate.errors import UpstreamError
from imagegate.protocol.names import BASE64_MEMBERS, EITHER, LINK_MEMBERS, may_hold_result, plain
from imagegate.protocol.parsers.base64_decoder import ScanError
from imagegate.protocol.parsers.base64_json import (
    Base64Scanner,
    PictureData,
    PictureEnd,
    PictureStart,
)

MEMBERS = ("b64_json", "inlineData.data", "predictions[].bytesBase64Encoded")


def pieces(document: bytes, cuts: list[int]) -> list[bytes]:
    """The document, cut at the given places."""
    places = sorted({min(cut, len(document)) for cut in cuts} | {0, len(document)})
    return [document[start:end] for start, end in pairwise(places)]


def scan(document: bytes, cuts: list[int], **options: Any) -> tuple[bytes, dict[str, bytes], dict[str, str]]:
    """The rest, the pictures by token, and where they stood."""
    scanner = Base64Scanner(MEMBERS, **options)
    pictures: dict[str, bytes] = {}
    paths: dict[str, str] = {}
    token, is_open = "", False
    for piece in pieces(document, cuts):
        for event in scanner.feed(piece):
            if isinstance(event, PictureStart):
                assert not is_open
                token, is_open = event.token, True
                pictures[token], paths[token] = b"", event.path
            elif isinstance(event, PictureData):
                assert is_open
                assert event.data
                pictures[token] += event.data
            elif isinstance(event, PictureEnd):
                assert is_open
                is_open = False
    assert not is_open or scanner.pictures
    return scanner.finish(), pictures, paths


def restored(node: Any, pictures: dict[str, bytes]) -> Any:
    """The rest with each token's picture as bytes in its place."""
    if isinstance(node, list):
        return [restored(item, pictures) for item in node]
    if isinstance(node, dict):
        return {name: restored(value, pictures) for name, value in node.items()}
    if isinstance(node, str):
        return pictures.get(node.removeprefix("data:;base64,"), node)
    return node


def compact(text: str) -> str:
    """Without the white space that base64 may hold, and in the usual alphabet."""
    return text.translate({**dict.fromkeys(map(ord, " \t\r\n")), **str.maketrans("-_", "+/")})


USUAL = {*BASE64_MEMBERS, *LINK_MEMBERS, *EITHER, "images", "imageurls", "urls", "outputs", "results"}


def expected(node: Any, path: str = "", keys: tuple[str, ...] = ("",)) -> Any:
    """What an ordinary JSON parser and base64 decoder make of the same document.

    Args:
        keys: of the objects around the node, the innermost last.
    """
    if isinstance(node, list):
        return [expected(item, f"{path}[]", keys) for item in node]
    if isinstance(node, dict):
        return {
            name: expected(value, f"{path}.{name}" if path else name, (*keys, name)) for name, value in node.items()
        }
    if not isinstance(node, str) or not node:
        return node
    stem = path.removesuffix("[]")
    if any(stem == member or stem.endswith(f".{member}") for member in MEMBERS):
        if node.startswith("data:") and "," not in node:
            return node
        text = node.partition(",")[2] if node.startswith("data:") else node
        return decode_base64(compact(text))
    about, comma, text = node.partition(",")
    is_searched = plain(keys[-1]) in USUAL or all(map(may_hold_result, keys))
    if is_searched and about.startswith("data:") and about.endswith(";base64") and comma:
        return decode_base64(compact(text))
    return node


texts = st.text(max_size=20) | st.sampled_from(
    ['b64_json": "', "\\", '"', "data:", "data:image/png;base64,AAAA", "[]{}", "\u2028", "\U0001f600", "imagegate-0"]
)
base64_texts = st.binary(max_size=1200).map(base64.b64encode).map(bytes.decode)
keys = st.sampled_from(["b64_json", "data", "inlineData", "bytesBase64Encoded", "predictions", "url", "x"]) | texts
pictures_ = st.fixed_dictionaries({"b64_json": base64_texts}) | st.builds(
    lambda text: {"url": f"data:image/png;base64,{text}"}, base64_texts
)
gemini = st.builds(lambda text: {"inlineData": {"mimeType": "image/png", "data": text}}, base64_texts)
imagen = st.builds(lambda text: {"predictions": [{"bytesBase64Encoded": text}]}, base64_texts)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
documents = st.recursive(
    leaves | pictures_ | gemini | imagen,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
).map(lambda node: {"data": node})


def written(node: Any, *, escape_slashes: bool, indent: int | None, ascii_only: bool) -> bytes:
    text = json.dumps(node, indent=indent, ensure_ascii=ascii_only)
    return (text.replace("/", "\\/") if escape_slashes else text).encode("utf-8", "surrogatepass")


@given(
    documents,
    st.lists(st.integers(0, 4000), max_size=30),
    st.booleans(),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
    st.booleans(),
)
@example({"data": "data:image/png;base64,AAAA"}, [], False, None, False, False)
@example(
    {"data": {"x": "data:image/png;base64,AAAA", "input": "data:image/png;base64,AAAA"}}, [], False, None, False, False
)
@example({"data": [{"b64_json": "AAAA"}, {"b64_json": "AA=="}]}, list(range(200)), True, None, True, True)
def test_scanner_agrees_with_an_ordinary_reader(
    document: Any, cuts: list[int], escape: bool, indent: int | None, ascii_only: bool, every_byte: bool
) -> None:
    """Whatever the document and wherever it is cut: the same pictures in the same places, and the same rest."""
    body = written(document, escape_slashes=escape, indent=indent, ascii_only=ascii_only)
    try:
        wanted = expected(json.loads(body))
    except UpstreamError:
        with pytest.raises(ScanError):
            scan(body, cuts)
        return
    rest, pictures, _ = scan(body, list(range(len(body))) if every_byte else cuts)
    assert restored(json.loads(rest), pictures) == wanted


@given(
    st.binary(min_size=1, max_size=2000),
    st.lists(st.tuples(st.integers(0, 3000), st.sampled_from(["\n", "\r\n", " ", "\t"])), max_size=8),
    st.lists(st.integers(0, 3000), max_size=20),
    st.booleans(),
)
def test_white_space_and_missing_padding_are_read(
    picture: bytes, spaces: list[tuple[int, str]], cuts: list[int], padded: bool
) -> None:
    """Some providers break lines or leave the padding out."""
    text = base64.b64encode(picture).decode()
    text = text if padded else text.rstrip("=")
    for place, space in spaces:
        text = text[: min(place, len(text))] + space + text[min(place, len(text)) :]
    body = json.dumps({"data": [{"b64_json": text}]}).encode()
    if not text.strip():
        return
    _, pictures, _ = scan(body, cuts)
    assert list(pictures.values()) == [picture]


@given(st.binary(min_size=3, max_size=300), st.integers(0, 400), st.sampled_from("!\u00e9=*"), st.data())
def test_bad_characters_are_refused(picture: bytes, place: int, bad: str, data: st.DataObject) -> None:
    """One character that is no base64 spoils the picture, wherever it stands and wherever the document is cut."""
    text = base64.b64encode(picture).decode()
    place = min(place, len(text))
    text = text[:place] + bad + text[place:]
    body = b'{"b64_json": "' + text.encode() + b'"}'
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=10))
    try:
        wanted = decode_base64(text)
    except UpstreamError:
        wanted = None
    if wanted is None:
        with pytest.raises(ScanError):
            scan(body, cuts)
    else:
        assert list(scan(body, cuts)[1].values()) == [wanted]


@given(documents, st.data())
def test_a_cut_document_is_never_whole(document: Any, data: st.DataObject) -> None:
    """However much is missing at the end, `finish` says so."""
    body = json.dumps(document).encode()
    end = data.draw(st.integers(1, len(body) - 1))
    with pytest.raises(ScanError):
        scan(body[:end], data.draw(st.lists(st.integers(0, end), max_size=8)))


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_any_bytes_are_read_or_refused(body: bytes, cuts: list[int]) -> None:
    """Bytes that are no JSON do no harm: they are refused here, or given back for the reader of the rest."""
    try:
        rest, pictures, _ = scan(body, cuts)
    except ScanError:
        return
    assert pictures or rest == body


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"data": [{"b64_json": "AAAA"}]}, "data[].b64_json"),
        ([{"b64_json": "AAAA"}], "[].b64_json"),
        ({"candidates": [{"content": {"parts": [{"inlineData": {"data": "AAAA"}}]}}]}, None),
        ({"predictions": [{"bytesBase64Encoded": "AAAA"}]}, "predictions[].bytesBase64Encoded"),
        ({"result": {"images": [{"url": ["data:image/png;base64,AAAA"]}]}}, "result.images[].url[]"),
    ],
)
def test_pictures_are_told_with_their_path(document: Any, path: str | None) -> None:
    """An adapter names ends of paths; the whole path comes with each picture."""
    _, pictures, paths = scan(json.dumps(document).encode(), [])
    assert list(pictures.values()) == [b"\0\0\0"]
    assert path is None or list(paths.values()) == [path]


@pytest.mark.parametrize("document", [{"data": "AAAA"}, {"bytesBase64Encoded": "AAAA"}, {"url": "https://e/x.png"}])
def test_members_elsewhere_are_no_pictures(document: Any) -> None:
    """Only the ends of paths that were named count; a link stays a link."""
    body = json.dumps(document).encode()
    assert scan(body, []) == (body, {}, {})


def test_a_member_that_stands_twice_is_taken_as_readers_do() -> None:
    """The last one counts; the first one was a picture too, which nobody will ask for."""
    rest, pictures, _ = scan(b'{"b64_json": "AAAA", "b64_json": "AQID"}', [])
    assert pictures[json.loads(rest)["b64_json"]] == b"\1\2\3"
    assert len(pictures) == 2


@pytest.mark.parametrize("most", [1, 3, 64, 1000])
def test_only_the_head_is_decoded_where_that_is_enough(most: int) -> None:
    """Of a document that is passed on, no more than the heads of its pictures is looked at."""
    content = bytes(range(256)) * 40
    body = json.dumps({"data": [{"b64_json": base64.b64encode(content).decode()}] * 2}).encode()
    for cuts in ([], list(range(0, len(body), 7))):
        _, pictures, _ = scan(body.replace(b"/", b"\\/"), cuts, decode=most)
        assert list(pictures.values()) == [content[:most]] * 2


@pytest.mark.parametrize("width", [61, 64, 76])
@pytest.mark.parametrize("size", [990, 1000, 10_000])
def test_the_head_is_found_between_line_breaks(width: int, size: int) -> None:
    """White space counts for nothing, so what is cut off after the head is never out of step."""
    content = bytes(index * 7 % 251 for index in range(size))
    encoded = base64.b64encode(content).decode()
    lines = "\r\n".join(encoded[start : start + width] for start in range(0, len(encoded), width))
    body = json.dumps({"data": [{"b64_json": lines}] * 2}).encode()
    for cuts in ([], [len(body) - 50], list(range(0, len(body), 97))):
        _, pictures, _ = scan(body, cuts, decode=980)
        assert list(pictures.values()) == [content[:980]] * 2


@pytest.mark.parametrize(
    ("text", "is_canonical"),
    [(b"AA//", True), (b"AA\\/\\/", True), (b"AA\\n//", False), (b"data:image/png;base64,AA//", False)],
)
def test_base64_that_needs_tidying_is_told(text: bytes, is_canonical: bool) -> None:
    scanner = Base64Scanner(decode=0)
    scanner.feed(b'{"note":"a\\nb","url":"https://example.com/\\n","data":[{"b64_json":"' + text + b'"')
    assert scanner.is_canonical is is_canonical


def test_the_rest_is_bounded() -> None:
    """A document that is large beside its pictures is refused, and so is one that is nested without end."""
    with pytest.raises(ScanError, match="too large"):
        scan(json.dumps({"x": "y" * 5000}).encode(), [], max_rest=4096)
    with pytest.raises(ScanError, match="too deeply"):
        scan(b"[" * 5000, [])


def test_a_large_picture_comes_in_pieces() -> None:
    """No piece that comes out is larger than the piece that went in, so nothing piles up."""
    content = bytes(1024) * 4096
    body = json.dumps({"data": [{"b64_json": base64.b64encode(content).decode()}]}).encode()
    scanner = Base64Scanner()
    total = 0
    for start in range(0, len(body), 65536):
        for event in scanner.feed(body[start : start + 65536]):
            if isinstance(event, PictureData):
                assert len(event.data) <= 65536
                total += len(event.data)
    assert total == len(content)
    assert len(scanner.finish()) < 100


@pytest.mark.parametrize(
    ("document", "pictures"),
    [
        ({"payload": {"kunstwerk": "iVBORw0KGgo" + "A" * 100}}, 1),
        ({"payload": {"kunstwerk": "iVBORw0KGgo"}}, 0),
        ({"payload": {"kunstwerk": "A" * 200}}, 0),
        ({"parameters": {"kunstwerk": "iVBORw0KGgo" + "A" * 100}}, 0),
        ({"payload": {"init_images": ["iVBORw0KGgo" + "A" * 100]}}, 0),
        ({"payload": {"preview_b64": "iVBORw0KGgo" + "A" * 100}}, 0),
    ],
)
def test_names_that_nobody_foresaw(document, pictures):
    """What begins as a picture is one under any name but those of requests and previews."""
    scanner = Base64Scanner()
    scanner.feed(json.dumps(document).encode())
    scanner.finish()
    assert scanner.pictures == pictures
