"""What providers charge, as data. Pure.

Adapters ship a file ``NAME.prices.toml`` beside their contracts, with its date and source; operators write the same
tables under ``[prices.models]``::

    date = "2026-11-05"
    source = "https://provider.example/pricing"

    [models."my-model"]
    image = 0.04                                    # each image
    tokens = { input_text = 5, output_image = 30 }  # a million of them
    reserve = 0.25                                  # the most that one image can cost, where the above does not say
    reference = 1536                                # the most tokens of one reference, or of the mask

    [[models."my-model".variants]]                  # another price of an image; the first that matches counts
    when = { quality = ["high"] }                   # members of the request as it is sent to the provider
    image = 0.08
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from imagegate.errors import ConfigError
from imagegate.protocol.usage import TokenKind, tokens_by_kind

_MILLION: Final = 1_000_000
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_SOURCE: Final = re.compile(r"https?://\S+")
_LIMIT: Final = 10**9
NO_FIELDS: Final[Mapping[str, Any]] = {}
DEFAULT_REFERENCE: Final = 10_000
"""Tokens; more than any provider is known to charge."""
_TEXT: Final[tuple[TokenKind, ...]] = ("input_text", "input")
_IMAGE: Final[tuple[TokenKind, ...]] = ("input_image", "input")


class PriceVariant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The price of an image of certain requests."""

    when: Mapping[str, tuple[str | int | bool, ...]]
    """Members of the request as it is sent, each with the values that have this price; dots lead into nested ones."""
    image: float
    """Each image."""

    def applies(self, fields: Mapping[str, Any]) -> bool:
        """Return whether a request with these members has this price."""
        return all(_member(fields, name) in values for name, values in self.when.items())


class ModelPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs."""

    image: float = 0.0
    """Each image."""
    tokens: Mapping[TokenKind, float] = {}
    """A million tokens, by kind."""
    variants: tuple[PriceVariant, ...] = ()
    """Other prices of an image; the first that applies counts, `image` where none does."""
    reserve: float | None = None
    """The most that one image can cost; where input tokens have a price, beside its prompt and references."""
    reference: int = DEFAULT_REFERENCE
    """The most input tokens that one reference, or the mask, is charged with, where they have a price."""

    def of_image(self, fields: Mapping[str, Any] = NO_FIELDS) -> float:
        """Return the price of an image that a request with these members makes."""
        return next((variant.image for variant in self.variants if variant.applies(fields)), self.image)

    def cost(self, images: int, usage: Mapping[str, Any] | None, fields: Mapping[str, Any] = NO_FIELDS) -> float:
        """Return what `images` images and the tokens of `usage` cost."""
        tokens = tokens_by_kind(usage) if self.tokens else {}
        by_token = sum(count * self.tokens.get(kind, 0.0) for kind, count in tokens.items())
        return images * self.of_image(fields) + by_token / _MILLION

    @property
    def most_per_image(self) -> float | None:
        """The most that one image can cost, whatever the request; None: that is not known."""
        if self.reserve is not None:
            return self.reserve
        return None if self.tokens else max([self.image, *(variant.image for variant in self.variants)])

    def most_of_input(self, text: int, references: int) -> float:
        """Return the most that the input of one image can cost, as far as it is charged by token.

        Args:
            text: tokens at most.
            references: references and masks.
        """
        by_text, by_image = (max(self.tokens.get(kind, 0.0) for kind in kinds) for kinds in (_TEXT, _IMAGE))
        return (text * by_text + references * self.reference * by_image) / _MILLION

    @property
    def amounts(self) -> list[float]:
        """Every amount of money in it."""
        reserve = [] if self.reserve is None else [self.reserve]
        return [self.image, *self.tokens.values(), *(variant.image for variant in self.variants), *reserve]


class ShippedPrice(ModelPrice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs, from an adapter's file."""

    date: str = ""
    """When it was looked up, where that is not when the others were."""
    source: str = ""
    """The source, where it is not the file's."""


class PriceDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prices of one provider, from a file."""

    date: str = ""
    """When they were looked up, such as ``2026-11-05``."""
    source: str = ""
    """Where they stand: a link."""
    currency: str = "USD"
    models: Mapping[str, ShippedPrice] = {}


def read_prices(text: str, *, name: str = "prices") -> PriceDocument:
    """Read a file of prices, which must say when and where each was found.

    Raises:
        ConfigError: it is no such file; the message names it.
    """
    try:
        document = msgspec.toml.decode(text, type=PriceDocument)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{name}: {error}") from error
    for model, price in document.models.items():
        if not _DATE.fullmatch(price.date or document.date):
            raise ConfigError(f"{name}: {model}: its date must be written as 2026-11-05")
        if not _SOURCE.fullmatch(price.source or document.source):
            raise ConfigError(f"{name}: {model}: its source must be a link")
        if fault := fault_of(price):
            raise ConfigError(f"{name}: {model}: {fault}")
    return document


def fault_of(price: ModelPrice) -> str:
    """Return what is wrong with the amounts of a price; empty: nothing."""
    if not 0 <= price.reference <= _MILLION:
        return "reference must be a number of tokens"
    return "" if all(0 <= amount < _LIMIT for amount in price.amounts) else "amounts must not be negative"


def _member(fields: Mapping[str, Any], name: str) -> Any:
    value: Any = fields
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, (str, int, bool)) else None
