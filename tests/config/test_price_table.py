"""Which price counts: the operator's own, else the one that the adapter ships, and never another provider's."""

from __future__ import annotations

from typing import Any

import pytest

from imagegate.config.loader import read_config
from imagegate.config.price_table import PriceTable, find_by_pattern, is_at_provider, price_table
from imagegate.config.schema import UpstreamConfig
from imagegate.protocol.prices import read_prices
from imagegate.registry import installed, load_adapter


def table(prices: dict[str, Any], **upstream: Any) -> PriceTable:
    entry = {"name": "main", "adapter": "openai", "api_key": "k", **upstream}
    return price_table(read_config({"upstreams": [entry], "prices": prices}))


def test_shipped_prices_count_where_the_operator_has_none() -> None:
    prices = table({"models": {"gpt-image-1.5": {"image": 7}, "main/gpt-image-1": {"image": 8}}})
    shipped = prices.look_up("main", "gpt-image-2-2026-04-21")
    assert shipped is not None
    assert shipped.is_shipped
    assert shipped.date
    assert shipped.source.startswith("https://")
    for model, image in (("gpt-image-1.5", 7), ("gpt-image-1", 8)):
        own = prices.look_up("main", model)
        assert own is not None
        assert (own.price.image, own.is_shipped) == (image, False)
    assert prices.find("main", "no-such-model") is None
    assert prices.find("other", "gpt-image-2") is None


@pytest.mark.parametrize(
    ("prices", "upstream"),
    [
        ({"shipped": False}, {}),
        ({"currency": "EUR"}, {}),
        ({}, {"base_url": "https://relay.example"}),
    ],
)
def test_another_price_than_the_providers_is_not_ours_to_say(prices: dict[str, Any], upstream: dict[str, Any]) -> None:
    assert table(prices, **upstream).find("main", "gpt-image-2") is None


@pytest.mark.parametrize(
    ("prices", "upstream", "reason"),
    [
        ({"shipped": False}, {}, "switched off"),
        ({"currency": "EUR"}, {}, "are in USD"),
        ({}, {"base_url": "https://relay.example"}, "not the provider's own"),
        ({}, {}, ""),
    ],
)
def test_why_a_model_has_no_price(prices: dict[str, Any], upstream: dict[str, Any], reason: str) -> None:
    found = table(prices, **upstream).reason("main", "no-such-model")
    assert reason in found
    assert bool(reason) == bool(found)


@pytest.mark.parametrize(
    ("adapter", "base_url", "is_own"),
    [
        ("bfl", "https://api.eu.bfl.ai", True),
        ("bfl", "http://api.eu.bfl.ai", False),
        ("bfl", "https://bfl.ai.example", False),
        ("openai", "", True),
        ("openai", "https://eu.api.openai.com.example", False),
    ],
)
def test_regional_addresses_are_the_providers(adapter: str, base_url: str, is_own: bool) -> None:
    assert is_at_provider(UpstreamConfig(name="x", adapter=adapter, api_key="k", base_url=base_url)) is is_own


def test_reasons_are_found_like_prices() -> None:
    entries = {"*": 1, "a-*": 2, "a-b-*": 3, "a-b": 4}
    assert [find_by_pattern(entries, name) for name in ("x", "a-x", "a-b-x", "a-b")] == [1, 2, 3, 4]
    assert find_by_pattern({"a": 1}, "b") is None


def test_names_of_models_do_not_fill_the_memory() -> None:
    prices = table({})
    for number in range(3000):
        prices.find("main", f"gpt-image-2-{number}")
    assert prices.look_up.cache_info().currsize <= 1024


PRICED = [name for name in installed() if load_adapter(name).prices().models]


def test_some_adapters_ship_prices() -> None:
    assert {"openai", "bfl", "fal"} <= {*PRICED}


@pytest.mark.parametrize("name", PRICED)
def test_shipped_files_are_read(name: str) -> None:
    """Each says when and where its prices were found, or the file would not be read."""
    for model, price in load_adapter(name).prices().models.items():
        assert price.amounts, model


def test_the_price_of_a_variant_depends_on_the_request() -> None:
    document = read_prices(
        'date = "2026-11-05"\nsource = "https://a.example"\n[models.a]\nimage = 1\n'
        '[[models.a.variants]]\nwhen = { resolution = ["4K"] }\nimage = 2\n'
    )
    assert document.models["a"].cost(2, None, {"resolution": "4K"}) == 4
