"""How much room is secured for a picture before it is paid for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.delivery.usual_sizes import UsualSizes, bytes_expected

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 3 * MIB),
        ({"size": "auto"}, 3 * MIB),
        ({"size": "16:9"}, 3 * MIB),
        ({"size": 7}, 3 * MIB),
        ({"size": "512x512"}, 3 * MIB // 4),
        ({"size": "1536x1024"}, 3 * 1536 * 1024),
        ({"size": "1536x1024", "background": "transparent"}, 4 * 1536 * 1024),
        ({"size": "1536x1024", "output_format": "jpeg"}, 1536 * 1024),
        ({"output_format": "webp"}, MIB),
        ({"size": "2K"}, 12 * MIB),
        ({"aspect_ratio": "16:9", "resolution": "2k"}, 12 * MIB),
        ({"metadata": {"resolution": "2K"}}, 12 * MIB),
        ({"resolution": "4K"}, 48 * MIB),
        ({"size": "99999x99999"}, 64 * MIB),
    ],
)
def test_bytes_expected(fields: dict[str, Any], expected: int) -> None:
    """Three bytes for each pixel of a PNG, one for a pixel of JPEG or WebP; a megapixel where no size is asked for."""
    assert bytes_expected(fields) == expected


_VALUES = st.one_of(st.none(), st.integers(), st.text(max_size=70), st.sampled_from(["4K", "1x1", "auto", "1:99"]))


@given(st.dictionaries(st.sampled_from(["size", "resolution", "aspect_ratio", "output_format", "metadata"]), _VALUES))
def test_whatever_a_request_says_there_is_a_number(fields: dict[str, Any]) -> None:
    assert 0 < bytes_expected(fields) <= 64 * MIB


def test_what_was_seen_counts() -> None:
    """A picture that was larger than expected raises what is secured, in whichever way the next one is delivered."""
    usual = UsualSizes()
    assert usual.needed("a", "url", 100) == 100
    usual.note("a", "url", 250)
    assert usual.needed("a", "url", 100) == usual.needed("a", "b64_json", 100) == 250
    assert usual.needed("b", "url", 100) == 100
    for _ in range(31):
        usual.note("a", "url", 20)
    assert usual.needed("a", "url", 100) == 250
    usual.note("a", "url", 20)
    assert usual.needed("a", "url", 100) == 100


def test_links_that_are_passed_through_need_no_room() -> None:
    """Three exchanges that took no room are enough to believe it, and one that took some is enough to stop."""
    usual = UsualSizes()
    for needed in (100, 100, 100, 0, 0):
        assert usual.needed("a", "url", 100) == needed
        usual.note("a", "url", 0)
    assert usual.needed("a", "b64_json", 100) == 100
    usual.note("a", "url", 7)
    assert usual.needed("a", "url", 100) == 100


def test_kinds_are_bounded() -> None:
    """Clients can name any number of models; the oldest kinds are forgotten."""
    usual = UsualSizes()
    for picture in range(2000):
        usual.note(picture, "url", 500)
    assert (usual.needed(0, "url", 1), usual.needed(1999, "url", 1)) == (1, 500)
