"""Prices as data: how they are read, which one counts, and what is the most that an image can cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagegate.errors import ConfigError
from imagegate.protocol.price_units import Bounds
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
    for other in ({}, {"quality": "high"}, {"quality": "high", "x": "2"}):
        assert a.rates(other).image == 0.04
    assert a.rates({"quality": "high", "x": {"tier": 2}}).image == a.most_per_image() == 0.08
    assert b.cost(3, {"output_tokens": 10**6}, {}) == 0.0  # an undivided output has no price here
    assert b.cost(3, {"output_tokens": 10**6, "output_tokens_details": {"image_tokens": 10**6}}) == 30
    assert (b.most_per_image(), document.currency) == (0.5, "USD")


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
        (HEAD + "[models.a]\nstep = 1", "usual number of steps"),
        (HEAD + "[models.a]\nsteps = -1", "usual number of steps"),
        (HEAD + "[models.a]\nmegapixel = -1", "must not be negative"),
        (HEAD + "[models.a]\nmegapixel_pixels = 0", "must be a number of pixels"),
        (HEAD + "[models.a]\nmegapixels = 0.0", "numbers of megapixels"),
        (HEAD + "[models.a]\nreference_megapixels = -4.0", "numbers of megapixels"),
        (HEAD + "[models.a]\nusage_cost_unit = 0.0", "must be positive"),
        (HEAD + "[models.a]\nvariants = [{ when = {}, step = 1 }]", "usual number of steps"),
        (HEAD + '[models.a]\nimage = 1\n[unpriced]\na = "why"', "a reason for having none"),
        ("[[", "prices"),
    ],
)
def test_what_is_no_such_file(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_prices(text)


@given(prices, fields)
def test_no_image_costs_more_than_the_most(price: ModelPrice, request: dict[str, object]) -> None:
    assert not fault_of(price)
    assert price.cost(2, None, request) == 2 * price.rates(request).image
    most = price.most_per_image()
    assert most is not None
    assert price.rates(request).image <= most


def test_tokens_without_a_bound_have_no_most() -> None:
    assert ModelPrice(image=1, tokens={"output": 1}).most_per_image() is None


BFL = ModelPrice(
    image=0.015,
    megapixel=0.015,
    megapixel_pixels=1048576,
    round_up=True,
    reference_megapixel=0.015,
    reference_image=0.1,
)


@pytest.mark.parametrize(
    ("price", "images", "fields", "sizes", "references", "cost"),
    [
        (ModelPrice(megapixel=0.02), 1, {}, ["1000x500"], (), 0.01),
        (ModelPrice(megapixel=0.02), 2, {}, ["1000x500", "2000x1000"], (), 0.05),
        (ModelPrice(megapixel=0.02), 2, {"size": "1000x1000"}, [], (), 0.04),
        (ModelPrice(megapixel=0.02), 2, {"size": "16:9"}, ["1000x1000"], (), 0.04),  # as the other one
        (ModelPrice(megapixel=0.02), 1, {"width": 1000, "height": 500}, [], (), 0.01),
        (ModelPrice(megapixel=0.02), 1, {"size": "2K"}, [], (), None),
        (ModelPrice(megapixel=0.02, megapixels=1.5), 2, {"size": "2K"}, [], (), 0.06),
        (ModelPrice(megapixel=0.02), 0, {}, [], (), 0),
        (BFL, 1, {}, ["1024x1024"], (), 0.03),
        (BFL, 1, {}, ["64x64"], (), 0.03),
        (BFL, 2, {}, ["1024x1025", "64x64"], (), 0.045 + 0.03),
        (BFL, 1, {}, ["1024x1024"], (1048576, 1), 0.03 + 0.2 + 0.03),
        (BFL, 2, {}, ["1024x1024"] * 2, (0, 9000000), 2 * (0.03 + 0.2 + 0.12)),  # no reference is more than four
        (ModelPrice(step=0.001, steps=28), 2, {}, [], (), 0.056),
        (ModelPrice(step=0.001, steps=28), 1, {"steps": 4}, [], (), 0.004),
        (ModelPrice(step=0.001, steps=28), 1, {"num_inference_steps": 50, "steps": 4}, [], (), 0.05),
        (ModelPrice(step=0.001, steps=28), 1, {"steps": True}, [], (), 0.028),
        (ModelPrice(megapixel_step=0.001, steps=4), 1, {}, ["1000x500"], (), 0.002),
        (ModelPrice(image=1, step=0.5, megapixel=0.25, megapixel_step=2, steps=2), 1, {}, ["2000x1000"], (), 10.5),
        (
            ModelPrice(image=1, variants=(PriceVariant(when={"quality": ("high",)}, megapixel=2),)),
            1,
            {"quality": "high"},
            ["1000x1000"],
            (),
            2,
        ),
    ],
)
def test_megapixels_steps_and_references(
    price: ModelPrice,
    images: int,
    fields: dict[str, object],
    sizes: list[str],
    references: tuple[int, ...],
    cost: float | None,
) -> None:
    assert not fault_of(price)
    found = price.cost(images, None, fields, sizes, references)
    assert found == (None if cost is None else pytest.approx(cost))


@pytest.mark.parametrize(
    ("usage", "cost"),
    [({"cost": 0.034}, 0.017), ({"cost": 0}, 0), ({}, None), (None, None), ({"cost": "1"}, None), ({"cost": -1}, None)],
)
def test_a_reply_names_its_own_cost(usage: dict[str, object] | None, cost: float | None) -> None:
    price = ModelPrice(usage_cost="cost", usage_cost_unit=0.5)
    assert price.cost(1, usage) == cost
    assert price.most_per_image() is None
    other = ModelPrice(usage_cost="cost", usage_cost_unit=0.5, image=2, reserve=3)
    assert other.cost(1, usage) == (2 if cost is None else cost)
    assert other.most_per_image() == 3


@pytest.mark.parametrize(
    ("price", "cost"),
    [
        (ModelPrice(reserve=0.25), None),
        (ModelPrice(reserve=0.25, usage_cost="cost"), None),
        (ModelPrice(reserve=0.25, image=0.04), 0.08),
        (ModelPrice(image=0.0), 0.0),
    ],
)
def test_the_most_that_an_image_costs_is_not_what_it_costs(price: ModelPrice, cost: float | None) -> None:
    """Where nothing else is said, what was reserved counts."""
    assert price.cost(2, {"output_tokens": 5}) == cost


def test_a_cost_in_small_units() -> None:
    """What it is worth is bounded, and not the number of its units."""
    price = ModelPrice(usage_cost="ticks", usage_cost_unit=1e-10)
    assert price.cost(10, {"ticks": 6_000_000_000}) == pytest.approx(0.6)
    for absurd in (10**19, 10**400, float("inf"), float("nan")):
        assert price.cost(1, {"ticks": absurd}) is None


rates: dict[str, Any] = dict.fromkeys(("image", "megapixel", "step", "megapixel_step"), amounts)
unit_prices = st.builds(
    ModelPrice,
    **rates,
    reference_image=amounts,
    reference_megapixel=amounts,
    reference_megapixels=st.floats(0.5, 16),
    megapixel_pixels=st.sampled_from([1_000_000, 1_048_576]),
    round_up=st.booleans(),
    steps=st.integers(1, 50),
    variants=st.lists(st.builds(PriceVariant, when=st.just({"quality": ("high",)}), **rates), max_size=1).map(tuple),
)
edges = st.integers(64, 2048)


@settings(max_examples=60)
@given(
    unit_prices,
    st.lists(st.tuples(edges, edges), min_size=1, max_size=3),
    st.lists(st.integers(0, 4_194_304), max_size=3),
    st.integers(1, 50) | st.none(),
    st.sampled_from(["high", "low"]),
)
def test_no_request_costs_more_than_is_reserved(
    price: ModelPrice, sizes: list[tuple[int, int]], references: list[int], steps: int | None, quality: str
) -> None:
    """Whatever is made within the bounds of the contract: sizes, steps and references."""
    assert not fault_of(price)
    fields = {"quality": quality} if steps is None else {"quality": quality, "steps": steps}
    cost = price.cost(len(sizes), None, fields, [f"{width}x{height}" for width, height in sizes], references)
    most = price.most_per_image(Bounds(2048 * 2048, 50))
    assert cost is not None
    assert most is not None
    reserved = len(sizes) * (most + price.most_of_input(0, len(references)))
    assert cost <= reserved * (1 + 1e-9) + 1e-9
    assert price.most_per_image() is None or not (price.megapixel or price.step or price.megapixel_step)
