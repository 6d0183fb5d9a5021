"""The bounds of a request's head, and that nothing in it moves."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.errors import ImagegateError, RequestError
from imagegate.server.request_head import check_head, read_head

LINE = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\n"
names = st.sampled_from([b"Upgrade", b"upgrade", b"UPGRADE", b"Content-Length", b"X"])
values = st.binary(max_size=20).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b""))
coded = st.lists(st.just((b"Transfer-Encoding", b"Chunked")), max_size=1)
fields = st.tuples(coded, st.lists(st.tuples(names, values), max_size=8)).map(lambda parts: parts[0] + parts[1])


def head_of(pairs: list[tuple[bytes, bytes]]) -> bytes:
    return LINE + b"".join(b"%b: %b\r\n" % pair for pair in pairs) + b"\r\n"


@given(fields)
def test_nothing_moves_and_no_upgrade_is_left(pairs: list[tuple[bytes, bytes]]) -> None:
    """A request for another protocol is hidden from the parser, and every other byte stays."""
    raw = head_of(pairs)
    found, _ = read_head(raw)
    expected = [(b"ignored" if name.lower() == b"upgrade" else name, value) for name, value in pairs]
    assert found == head_of(expected)


@given(fields)
def test_a_length_is_one_that_a_parser_takes(pairs: list[tuple[bytes, bytes]]) -> None:
    """A length is told only where there is no transfer coding, and is one of the fields' values."""
    _, length = read_head(head_of(pairs))
    lower = {name.lower() for name, _ in pairs}
    lengths = [value.strip(b" \t") for name, value in pairs if name.lower() == b"content-length"]
    if length is not None:
        assert b"transfer-encoding" not in lower
        assert any(re.fullmatch(rb"[0-9]{1,18}", value) and int(value) == length for value in lengths)
    elif len(lengths) == 1 and b"transfer-encoding" not in lower:
        assert not re.fullmatch(rb"[0-9]{1,18}", lengths[0])


@given(fields, st.integers(20, 400), st.integers(1, 10))
def test_bounds(pairs: list[tuple[bytes, bytes]], limit: int, most: int) -> None:
    """A head is refused exactly where it is over one of its limits."""
    raw = head_of(pairs)
    if len(raw) <= limit and len(pairs) + 1 <= most:
        check_head(raw, limit=limit, fields=most)
        return
    with pytest.raises(ImagegateError) as caught:
        check_head(raw, limit=limit, fields=most)
    assert (caught.value.status, caught.value.code) == (431, "headers_too_large")


@given(fields, st.integers(1, 10), st.data())
def test_a_part_is_refused_no_sooner_than_the_whole(
    pairs: list[tuple[bytes, bytes]], most: int, data: st.DataObject
) -> None:
    """What arrives in pieces has the same limits."""
    raw = head_of(pairs)
    part = raw[: data.draw(st.integers(1, len(raw)))]
    if len(pairs) + 1 <= most and not part.endswith(b"\r"):
        check_head(part, limit=len(raw), fields=most)


@pytest.mark.parametrize(
    "raw", [b"GET / HTTP/1.1\nHost: x\n\n", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", b" GET"]
)
def test_what_is_no_http(raw: bytes) -> None:
    """A line that ends as HTTP's do not, and bytes that begin no request."""
    with pytest.raises(RequestError) as caught:
        check_head(raw, limit=1000, fields=10)
    assert (caught.value.status, caught.value.code) == (400, "invalid_http")


def test_no_tunnel() -> None:
    """CONNECT would make all that follows another protocol's."""
    with pytest.raises(ImagegateError) as caught:
        read_head(b"CONNECT example.com:80 HTTP/1.1\r\n\r\n")
    assert (caught.value.status, caught.value.code) == (501, "method_not_supported")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\ntransfer-encoding: gzip\r\n\r\n", 400),
    ],
)
def test_one_host_and_one_coding(head: bytes, status: int) -> None:
    with pytest.raises(ImagegateError) as caught:
        read_head(head)
    assert caught.value.status == status


def test_heads_that_are_as_good() -> None:
    for head in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHOST:\r\n\r\n"):
        assert read_head(head) == (head, None)
