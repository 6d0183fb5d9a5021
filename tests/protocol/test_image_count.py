"""The most images that a request may ask for, whatever a provider makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.protocol.image_count import COUNT_MEMBERS, most_counted
from imagegate.protocol.messages import ImageRequest, Target

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("value", "count"),
    [(3, 3), ("3", 3), (" +3 ", 3), ("3.0", 3), (3.9, 3), (0, 0), (-3, 0), ("-3", 0), ("many", 0), ([], 0), (None, 0)],
)
def test_it_is_read_leniently(value: Any, count: int) -> None:
    """A limit must hold also where a provider takes texts for numbers."""
    assert most_counted({"num_images": value, "prompt": "7"}) == count


@given(st.dictionaries(st.sampled_from(sorted(COUNT_MEMBERS)), ANYTHING, min_size=1))
def test_it_is_a_number_that_stores_take(fields: dict[str, Any]) -> None:
    assert 0 <= most_counted(fields) <= 10**9


@given(ANYTHING, ANYTHING)
def test_a_target_counts_the_larger_one(n: Any, count: Any) -> None:
    """What is reserved is at least one image, and never less than `n`."""
    request = ImageRequest(operation="generations", fields={"model": "m", "n": n, "num_images": count})
    most = Target(upstream="u", model="m", contract=None).most_images(request)
    assert type(most) is int
    assert most >= max(request.n, most_counted(request.fields))
