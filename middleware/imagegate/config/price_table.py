"""The price of each upstream's models: the operator's own, else those that the adapters ship."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, NamedTuple

from imagegate.config.model_contracts import adapter_of, base_url_of
from imagegate.config.schema import Config, PricesConfig, UpstreamConfig
from imagegate.protocol.prices import ModelPrice, PriceDocument, ShippedPrice

_NONE: Final = PriceDocument()
_KEPT: Final = 1024
"""Prices that are remembered; names of models come from clients."""


class Price(NamedTuple):
    """A price, and whose it is."""

    price: ModelPrice
    is_shipped: bool
    """Whether it is the adapter's, not the operator's."""
    date: str = ""
    source: str = ""


class PriceTable:
    """Finds the price of a model at an upstream.

    Args:
        prices: of the configuration.
        shipped: upstream -> prices that its adapter ships.
    """

    def __init__(self, prices: PricesConfig, shipped: Mapping[str, PriceDocument]) -> None:
        self.currency = prices.currency
        self._own = prices.models
        self._shipped = shipped
        self.look_up = lru_cache(_KEPT)(self._search)
        """Returns the price with its origin, by upstream and model; None: none is known."""

    def models(self, upstream: str) -> list[str]:
        """Return the models, and patterns of them, whose prices the upstream's adapter ships."""
        return list(self._shipped.get(upstream, _NONE).models)

    def find(self, upstream: str, model: str) -> ModelPrice | None:
        """Return the price of a model as its upstream calls it; None: none is known."""
        found = self.look_up(upstream, model)
        return found.price if found else None

    def _search(self, upstream: str, model: str) -> Price | None:
        if own := self._own.get(f"{upstream}/{model}") or self._own.get(model):
            return Price(own, is_shipped=False)
        document = self._shipped.get(upstream, _NONE)
        price = _find(document.models, model)
        if price is None or document.currency != self.currency:
            return None
        return Price(price, True, price.date or document.date, price.source or document.source)


def price_table(config: Config) -> PriceTable:
    """Return the prices of a configuration. Raises `ConfigError`: a file of prices is wrong."""
    shipped = {upstream.name: _shipped(upstream) for upstream in config.upstreams} if config.prices.shipped else {}
    return PriceTable(config.prices, shipped)


def _shipped(upstream: UpstreamConfig) -> PriceDocument:
    """Return what the adapter ships: the provider's own prices, which are not those of a relay at another address."""
    adapter = adapter_of(upstream)
    return adapter.prices() if adapter.base_url and base_url_of(upstream) == adapter.base_url else _NONE


def _find(models: Mapping[str, ShippedPrice], model: str) -> ShippedPrice | None:
    if exact := models.get(model):
        return exact
    patterns = [name for name in models if "*" in name and fnmatchcase(model, name)]
    return models[max(patterns, key=len)] if patterns else None
