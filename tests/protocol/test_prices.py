"""Prices as data: how they are read, which one counts, and what is the most that an image can cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.errors import ConfigError
from imagegate.protocol.prices import ModelPrice, PriceVariant, fault_of, read_prices

HEAD = 'date = "2026-11-05"\nsource = "https://provider.example/pricing"\n'
amounts = st.floats(0, 1000)
prices = st.builds(
    ModelPrice,
    image=amounts,
    variants=st.lists(
        st.builds(
            PriceVariant,
            when=st.dictionaries(st.sampled_from(["quality", "size"]), st.tuples(st.sampled_from(["high", "low"]))),
            image=amounts,
        ),
        max_size=3,
    ).map(tuple),
)
fields = st.dictionaries(st.sampled_from(["quality", "size"]), st.sampled_from(["high", "low", "other", 1, None]))


def test_a_file_is_read() -> None:
    document = read_prices(
        HEAD
        + """
[models.a]
image = 0.04
variants = [{ when = { quality = ["high"], "x.tier" = [2] }, image = 0.08 }]

[models.b]
date = "2026-01-02"
source = "https://b.example"
tokens = { output_image = 30 }
reserve = 0.5
"""
    )
    a, b = document.models["a"], document.models["b"]
    assert a.of_image() == a.of_image({"quality": "high"}) == a.of_image({"quality": "high", "x": "2"}) == 0.04
    assert a.of_image({"quality": "high", "x": {"tier": 2}}) == a.most_per_image == 0.08
    assert b.cost(3, {"output_tokens": 10**6}, {}) == 0.0  # an undivided output has no price here
    assert b.cost(3, {"output_tokens": 10**6, "output_tokens_details": {"image_tokens": 10**6}}) == 30
    assert (b.most_per_image, document.currency) == (0.5, "USD")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[models.a]\nimage = 1", "its date must"),
        ('date = "2026-11-05"\n[models.a]\nimage = 1', "its source must be a link"),
        (HEAD + "[models.a]\nimage = -1", "must not be negative"),
        (HEAD + "[models.a]\nimage = nan", "must not be negative"),
        (HEAD + "[models.a]\nreserve = -0.1", "must not be negative"),
        (HEAD + "[models.a]\ntokens = { pictures = 1 }", "pictures"),
        (HEAD + "[models.a]\nimages = 1", "images"),
        ("[[", "prices"),
    ],
)
def test_what_is_no_such_file(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_prices(text)


@given(prices, fields)
def test_no_image_costs_more_than_the_most(price: ModelPrice, request: dict[str, object]) -> None:
    assert not fault_of(price)
    assert price.most_per_image is not None
    assert price.of_image(request) <= price.most_per_image
    assert price.cost(2, None, request) == 2 * price.of_image(request)


def test_tokens_without_a_bound_have_no_most() -> None:
    assert ModelPrice(image=1, tokens={"output": 1}).most_per_image is None
