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

    [models."by-size"]
    image = 0.015                                   # each image, and
    megapixel = 0.015                               # each megapixel of it,
    megapixel_pixels = 1048576                      # of so many pixels,
    round_up = true                                 # where a part counts as a whole one
    reference_megapixel = 0.015                     # each megapixel of references and masks, counted likewise

    [models."by-step"]
    step = 0.0005                                   # each step
    steps = 28                                      # where the request names none

    [[models."my-model".variants]]                  # another price of an image; the first that matches counts
    when = { quality = ["high"] }                   # members of the request as it is sent to the provider
    image = 0.08

    [unpriced]                                      # in files only: models without a price, and why
    "*" = "models without a contract have prices of their own."
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from imagegate.errors import ConfigError
from imagegate.protocol.price_units import MOST_STEPS, NO_FIELDS, Bounds, areas_of, counted, steps_of
from imagegate.protocol.usage import TokenKind, tokens_by_kind

_MILLION: Final = 1_000_000
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_SOURCE: Final = re.compile(r"https?://\S+")
_LIMIT: Final = 10**9
UNBOUND: Final = Bounds()
DEFAULT_REFERENCE: Final = 10_000
"""Tokens; more than any provider is known to charge."""
_TEXT: Final[tuple[TokenKind, ...]] = ("input_text", "input")
_IMAGE: Final[tuple[TokenKind, ...]] = ("input_image", "input")


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an image costs; the amounts add up."""

    image: float = 0.0
    """Each image."""
    megapixel: float = 0.0
    """Each megapixel of an image."""
    step: float = 0.0
    """Each step of an image."""
    megapixel_step: float = 0.0
    """Each step of each megapixel of an image."""

    def of_one(self, megapixels: float | None, steps: int | None) -> float | None:
        """Return what an image costs; None: that depends on what is not known."""
        amount = self.image
        if self.megapixel or self.megapixel_step:
            if megapixels is None:
                return None
            amount += megapixels * self.megapixel
        if self.step or self.megapixel_step:
            if not steps:
                return None
            amount += steps * (self.step + self.megapixel_step * (megapixels or 0.0))
        return amount


class PriceVariant(Rates, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an image of certain requests costs."""

    when: Mapping[str, tuple[str | int | bool, ...]]
    """Members of the request as it is sent, each with the values that have this price; dots lead into nested ones."""

    def applies(self, fields: Mapping[str, Any]) -> bool:
        """Return whether a request with these members has this price."""
        return all(_member(fields, name) in values for name, values in self.when.items())


class ModelPrice(Rates, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs."""

    tokens: Mapping[TokenKind, float] = {}
    """A million tokens, by kind."""
    variants: tuple[PriceVariant, ...] = ()
    """Other prices of an image; the first that applies counts in place of the model's own."""
    reserve: float | None = None
    """The most that one image can cost; where its prompt or references have a price, beside these."""
    reference: int = DEFAULT_REFERENCE
    """The most input tokens that one reference, or the mask, is charged with, where they have a price."""
    reference_image: float = 0.0
    """Each reference or mask, for each image."""
    reference_megapixel: float = 0.0
    """Each megapixel of a reference or mask, for each image."""
    reference_megapixels: float = 4.0
    """The most megapixels that one reference is charged with, and those of one whose size is not known."""
    megapixel_pixels: int = 1_000_000
    """How many pixels are a megapixel; some providers say 1048576."""
    round_up: bool = False
    """Whether a part of a megapixel is charged as a whole one."""
    megapixels: float | None = None
    """The most megapixels of an image, where the contract does not bind them."""
    steps: int = 0
    """The model's usual number of steps, where the request names none."""
    usage_cost: str = ""
    """Member of the reply's ``usage`` that names the whole cost, which then counts; empty: none does."""
    usage_cost_unit: float = 1.0
    """What one of it is worth, in the currency of the prices."""

    def rates(self, fields: Mapping[str, Any] = NO_FIELDS) -> Rates:
        """Return what an image costs that a request with these members makes."""
        return next((variant for variant in self.variants if variant.applies(fields)), self)

    def cost(
        self,
        images: int,
        usage: Mapping[str, Any] | None,
        fields: Mapping[str, Any] = NO_FIELDS,
        sizes: Sequence[str] = (),
        references: Sequence[int] = (),
    ) -> float | None:
        """Return what `images` images and the tokens of `usage` cost; None: that depends on what is not known.

        A price that says nothing but the most that an image can cost does not say what it costs.

        Args:
            fields: of the request as it was sent.
            sizes: of the images that were seen, as ``1536x1024``.
            references: pixels of each reference and mask; 0: not known.
        """
        if self.usage_cost:
            named, most = (usage or NO_FIELDS).get(self.usage_cost), _LIMIT / self.usage_cost_unit
            if isinstance(named, (int, float)) and type(named) is not bool and 0 <= named < most:
                return named * self.usage_cost_unit
        if (self.usage_cost or self.reserve is not None) and not any(self._charges):
            return None  # only the most is known
        rates = self.rates(fields) if self.variants else self
        cost = images * rates.image
        if self.tokens:
            cost += sum(count * self.tokens.get(kind, 0.0) for kind, count in tokens_by_kind(usage).items()) / _MILLION
        if rates.megapixel or rates.step or rates.megapixel_step:
            by_unit = self._by_unit(rates, images, fields, sizes)
            if by_unit is None:
                return None
            cost += by_unit
        if references and (self.reference_image or self.reference_megapixel):
            cost += images * sum(map(self._of_reference, references))
        return cost

    def _by_unit(self, rates: Rates, images: int, fields: Mapping[str, Any], sizes: Sequence[str]) -> float | None:
        """Return what images cost beside their number."""
        steps = steps_of(fields, self.steps)
        areas: Sequence[float] | None = ()
        if not (rates.megapixel or rates.megapixel_step):
            areas = [0] * images
        elif (areas := areas_of(images, sizes, fields)) is None:
            if self.megapixels is None:
                return None
            areas = [self.megapixels * self.megapixel_pixels] * images
        costs = [rates.of_one(self._count(area), steps) for area in areas]
        return None if None in costs else sum(cost - rates.image for cost in costs if cost is not None)

    def _count(self, area: float) -> float:
        return counted(area, self.megapixel_pixels, round_up=self.round_up)

    def _of_reference(self, area: int) -> float:
        """Return what one reference costs; 0 pixels: its size is not known."""
        megapixels = min(self._count(area), self.reference_megapixels) if area else self.reference_megapixels
        return self.reference_image + megapixels * self.reference_megapixel

    def most_per_image(self, bounds: Bounds = UNBOUND) -> float | None:
        """Return the most that one image can cost beside its prompt and references; None: that is not known.

        Args:
            bounds: of the model's contract.
        """
        if self.reserve is not None:
            return self.reserve
        if self.tokens or self.usage_cost:
            return None
        area = bounds.area
        if area is None and self.megapixels is not None:
            area = int(self.megapixels * self.megapixel_pixels)
        megapixels = None if area is None else self._count(area)
        steps = None if bounds.steps is None else max(bounds.steps, self.steps)
        costs = [rates.of_one(megapixels, steps) for rates in (self, *self.variants)]
        return None if None in costs else max(cost for cost in costs if cost is not None)

    def most_of_input(self, text: int, references: int) -> float:
        """Return the most that the prompt and the references of one image can cost.

        Args:
            text: tokens at most.
            references: references and masks.
        """
        by_text, by_image = (max(self.tokens.get(kind, 0.0) for kind in kinds) for kinds in (_TEXT, _IMAGE))
        by_token = (text * by_text + references * self.reference * by_image) / _MILLION
        return by_token + references * self._of_reference(0)

    @property
    def amounts(self) -> list[float]:
        """Every amount of money in it."""
        return [*self._charges, *([] if self.reserve is None else [self.reserve])]

    @property
    def _charges(self) -> list[float]:
        """Every amount that is charged for something."""
        rates = [getattr(each, name) for each in (self, *self.variants) for name in Rates.__struct_fields__]
        return [*rates, *self.tokens.values(), self.reference_image, self.reference_megapixel]


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
    unpriced: Mapping[str, str] = {}
    """Models, and patterns of them, that have no price here -> why."""


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
    if both := document.models.keys() & document.unpriced.keys():
        raise ConfigError(f"{name}: {min(both)}: it has a price, and a reason for having none")
    return document


def fault_of(price: ModelPrice) -> str:
    """Return what is wrong with the amounts of a price; empty: nothing."""
    if not 0 <= price.reference <= _MILLION:
        return "reference must be a number of tokens"
    if not 1 <= price.megapixel_pixels <= 100 * _MILLION:
        return "megapixel_pixels must be a number of pixels"
    most = 1.0 if price.megapixels is None else price.megapixels
    if not (0 < most <= _MILLION and 0 < price.reference_megapixels <= _MILLION):
        return "megapixels and reference_megapixels must be numbers of megapixels"
    has_steps = any(rates.step or rates.megapixel_step for rates in (price, *price.variants))
    if not has_steps <= price.steps <= MOST_STEPS:
        return "steps must be the usual number of steps, where a step has a price"
    if not 0 < price.usage_cost_unit < _LIMIT:
        return "usage_cost_unit must be positive"
    return "" if all(0 <= amount < _LIMIT for amount in price.amounts) else "amounts must not be negative"


def _member(fields: Mapping[str, Any], name: str) -> Any:
    value: Any = fields
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, (str, int, bool)) else None
