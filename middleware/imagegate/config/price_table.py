"""The price of each upstream's models: the operator's own, else those that the adapters ship."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from imagegate.config.model_contracts import adapter_of, base_url_of
from imagegate.config.schema import Config, PricesConfig, UpstreamConfig
from imagegate.protocol.prices import ModelPrice, PriceDocument

_NONE: Final = PriceDocument()
_ELSEWHERE: Final = {"*": "the address is not the provider's own, whose prices the adapter has."}
_Entry = TypeVar("_Entry")
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
        self._ships = prices.shipped
        self._own = prices.models
        self._shipped = shipped
        self.look_up = lru_cache(_KEPT)(self._search)
        """Returns the price with its origin, by upstream and model; None: none is known."""
        self.find = lru_cache(_KEPT)(self._price)
        """Returns the price of a model as its upstream calls it; None: none is known."""

    def models(self, upstream: str) -> list[str]:
        """Return the models, and patterns of them, whose prices the upstream's adapter ships."""
        return list(self._shipped.get(upstream, _NONE).models)

    def _price(self, upstream: str, model: str) -> ModelPrice | None:
        found = self.look_up(upstream, model)
        return found.price if found else None

    def reason(self, upstream: str, model: str) -> str:
        """Return why a model has no price, as far as the upstream's adapter says."""
        if not self._ships:
            return "the prices that adapters ship are switched off."
        document = self._shipped.get(upstream, _NONE)
        if document.models and document.currency != self.currency:
            return f"the adapter's are in {document.currency}."
        return find_by_pattern(document.unpriced, model) or ""

    def unpriced(self, upstream: str) -> list[str]:
        """Return the models, and patterns of them, of which the upstream's adapter says why they have no price."""
        return list(self._shipped.get(upstream, _NONE).unpriced)

    def _search(self, upstream: str, model: str) -> Price | None:
        if own := self._own.get(f"{upstream}/{model}") or self._own.get(model):
            return Price(own, is_shipped=False)
        document = self._shipped.get(upstream, _NONE)
        price = find_by_pattern(document.models, model)
        if price is None or document.currency != self.currency:
            return None
        return Price(price, True, price.date or document.date, price.source or document.source)


def price_table(config: Config) -> PriceTable:
    """Return the prices of a configuration. Raises `ConfigError`: a file of prices is wrong."""
    shipped = {upstream.name: _shipped(upstream) for upstream in config.upstreams} if config.prices.shipped else {}
    return PriceTable(config.prices, shipped)


def _shipped(upstream: UpstreamConfig) -> PriceDocument:
    """Return what the adapter ships: the provider's own prices, which are not those of a relay at another address."""
    return adapter_of(upstream).prices() if is_at_provider(upstream) else PriceDocument(unpriced=_ELSEWHERE)


def is_at_provider(upstream: UpstreamConfig) -> bool:
    """Return whether an upstream's address is the provider's own."""
    adapter, base_url = adapter_of(upstream), base_url_of(upstream)
    if adapter.base_url and base_url == adapter.base_url:
        return True
    parts = urlsplit(base_url)
    hosts = (*adapter.task_hosts, *adapter.own_hosts)
    return parts.scheme == "https" and any(fnmatchcase(parts.hostname or "", host) for host in hosts)


def find_by_pattern(entries: Mapping[str, _Entry], model: str) -> _Entry | None:
    """Return the entry of a model: by its exact name, else by the longest pattern."""
    if exact := entries.get(model):
        return exact
    patterns = [name for name in entries if "*" in name and fnmatchcase(model, name)]
    return entries[max(patterns, key=len)] if patterns else None
