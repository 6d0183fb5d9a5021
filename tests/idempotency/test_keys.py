"""What makes two requests the same, where the answer is kept, and which failures are."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.errors import (
    FetchError,
    ImagegateError,
    ModerationBlocked,
    RequestError,
    StorageError,
    UpstreamRefused,
    UpstreamUncertain,
    UpstreamUnreachable,
)
from imagegate.idempotency.keys import fingerprint, goes_inline, is_kept, key_of, slot_of
from imagegate.protocol.messages import FileID, ImageRequest, Link
from imagegate.spool.budget import Budget
from imagegate.spool.upload import Upload

members = st.dictionaries(
    st.text(max_size=10), st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=10), max_size=5
)


def print_of(request: ImageRequest) -> str:
    return asyncio.run(fingerprint(request))


def request(fields: dict[str, Any], **more: Any) -> ImageRequest:
    return ImageRequest(**{"operation": "generations", "fields": fields, **more})


async def upload(content: bytes, filename: str = "a.png") -> Upload:
    made = Upload("image", filename, "image/png", budget=Budget(total=2**30, memory=2**20))
    await made.write(content)
    await made.complete()
    return made


@given(members, members)
def test_members_count_their_order_does_not(first: dict[str, Any], second: dict[str, Any]) -> None:
    """The same members in another order, or in other bytes, are the same request."""
    backwards = dict(reversed(first.items()))
    assert print_of(request(first)) == print_of(request(backwards, body=b"anything"))
    as_json = [msgspec.json.encode(fields, order="sorted") for fields in (first, second)]
    assert (print_of(request(first)) == print_of(request(second))) == (as_json[0] == as_json[1])


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=4), st.lists(st.sampled_from(["a", "b", "c"]), max_size=4))
def test_references_count_in_order(first: list[str], second: list[str]) -> None:
    """Links and ids are not taken for one another."""
    links = [print_of(request({}, images=tuple(map(Link, names)))) for names in (first, second)]
    assert (links[0] == links[1]) == (first == second)
    if first:
        assert print_of(request({}, images=tuple(map(FileID, first)))) != links[0]


def test_files_count_by_their_content() -> None:
    """Not by their names, which SDKs make up."""

    async def prints() -> list[str]:
        same = [await upload(b"content", "a.png"), await upload(b"content", "b.png"), await upload(b"other")]
        return [await fingerprint(request({}, images=(one,))) for one in same]

    first, renamed, other = asyncio.run(prints())
    assert first == renamed != other


def test_a_mask_is_no_image() -> None:
    """What stands in another place means something else."""
    link = Link("https://example.com/a.png")
    prints = {
        print_of(request({}, images=(link,))),
        print_of(request({}, mask=link)),
        print_of(request({}, markup=link)),
    }
    assert len(prints) == 3
    assert print_of(request({}, operation="edits")) != print_of(request({}, operation="variations"))


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=2, max_size=5, unique=True))
def test_slots_never_meet(parts: list[tuple[str, str, str]]) -> None:
    """However key, endpoint and text are cut."""
    assert len({slot_of(*part) for part in parts}) == len(parts)


@given(st.binary(max_size=300))
def test_keys(value: bytes) -> None:
    """1 to 255 printable ASCII characters, without space around them."""
    scope = {"headers": [(b"idempotency-key", value)]}
    good = 0 < len(value) <= 255 and all(0x20 <= byte < 0x7F for byte in value) and value == value.strip()
    if good:
        assert key_of(scope) == value.decode()
    else:
        with pytest.raises(RequestError):
            key_of(scope)


def test_no_key() -> None:
    assert key_of({"headers": [(b"content-type", b"text/plain")]}) is None
    assert key_of({"headers": [(b"idempotency-key", b"a"), (b"idempotency-key", b"a")]}) == "a"


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (UpstreamUncertain("x"), True),
        (StorageError("x"), True),
        (FetchError("x"), True),
        (RuntimeError("x"), True),
        (asyncio.CancelledError(), True),
        (UpstreamRefused("x"), False),
        (ModerationBlocked("x"), False),
        (UpstreamUnreachable("x"), False),
        (RequestError("x"), False),
        (ImagegateError("x"), False),
    ],
)
def test_what_is_kept_of_failures(error: BaseException, kept: bool) -> None:
    """What may have been paid for; before anything was sent, nothing."""
    assert is_kept(error, sent=True) is kept
    assert is_kept(error, sent=False) is False


def test_base64_does_not_stand_beside_keys() -> None:
    """Nor what is no text."""
    assert goes_inline(b'{"data": [{"url": "https://example.com"}]}')
    assert not goes_inline(b'{"data": [{"b64_json": "AA"}]}')
    assert not goes_inline(b"data: image/png;base64,AA")
    assert not goes_inline(b"\xff\xfe")
