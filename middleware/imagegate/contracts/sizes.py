"""The rules by which models take sizes, and the nearest size that a rule allows.

Everything here is pure arithmetic. A model takes sizes by one of five rules, the classes below.

Distances are taken between logarithms of ratios, so that a size and its portrait twin are treated alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import exp, inf, log, sqrt
from typing import ClassVar, Final, NamedTuple

import msgspec

from imagegate.contracts.size_syntax import (
    Auto,
    Pixels,
    Ratio,
    Size,
    Tier,
    in_whole_numbers,
    parse_size,
)

PUBLISHED_RATIO_ERROR: Final = 0.03
"""How far the providers' own pixel sizes stray from the ratio that they are listed under."""
_TIER_CUT_OFFS: Final = ((524_288, 512.0), (2_228_224, 1024.0), (5_767_168, 2048.0), (inf, 4096.0))


def tier_of_area(area: float) -> Tier:
    """Return the tier of a picture of `area` pixels, by the cut-offs that sort every published size right."""
    return Tier(next(edge for limit, edge in _TIER_CUT_OFFS if area <= limit))


def log_ratio(width: float, height: float) -> float:
    """Positive for landscape, negative for portrait; swapping the arguments only flips the sign."""
    return log(width) - log(height)


class Wanted(NamedTuple):
    """What a request asks of a size, gathered from all the fields that may say so."""

    ratio: Ratio | None = None
    tier: Tier | None = None
    pixels: Pixels | None = None
    """Set only where the pixels are all that was said; `ratio` is then theirs."""
    auto: bool = False

    @property
    def log_ratio(self) -> float:
        return log_ratio(*self.ratio) if self.ratio else 0.0

    @property
    def area(self) -> float:
        """Pixels: as asked, else the tier's nominal square, else that of 1K."""
        if self.pixels:
            return self.pixels.area
        return self.tier.edge**2 if self.tier else 1024.0**2

    @property
    def nominal_tier(self) -> Tier | None:
        return self.tier or (tier_of_area(self.pixels.area) if self.pixels else None)


class Fitted(NamedTuple):
    """The nearest thing that a rule allows."""

    fields: Mapping[str, str]
    """Provider's field name (dots for nested members) -> value. Empty: leave the size out."""
    off: float = 0.0
    """How far the ratio is from the asked one: 0.5 is half as wide again. `inf`: nothing of that orientation."""
    exact: bool = True
    """The same size under the provider's name for it."""


def _off(asked: float, got: float) -> float:
    """Return the relative error between two log ratios, symmetric in both."""
    return exp(abs(asked - got)) - 1


def _same_orientation(asked: float, candidates: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    kept = [item for item in candidates if item[0] * asked >= 0]
    if asked == 0 and (squares := [item for item in kept if item[0] == 0]):
        return squares
    return kept


class ListRule(msgspec.Struct, frozen=True, kw_only=True, tag="list", tag_field="rule", forbid_unknown_fields=True):
    """The model makes a few sizes and refuses all others (dall-e-2, dall-e-3, gpt-image-1)."""

    values: tuple[str, ...]
    field: str = "size"
    ratios: tuple[str, ...] = ()
    """Words for requests that name a ratio instead of pixels (Ideogram, Recraft)."""
    ratio_field: str = "aspect_ratio"
    """Where they go; it may be `field`."""

    def __post_init__(self) -> None:
        _check_words("values", self.values, Pixels, Auto)
        _check_words("ratios", self.ratios, Ratio)

    @property
    def members(self) -> tuple[str, ...]:
        return (self.field, self.ratio_field) if self.ratios else (self.field,)

    def fit(self, wanted: Wanted, *, with_references: bool = False) -> Fitted:
        if wanted.auto:
            return Fitted({self.field: "auto"} if "auto" in self.values else {})
        if wanted.ratio is None:
            return Fitted({}, exact=False)  # a tier alone never becomes a shape
        asked = wanted.log_ratio
        if self.ratios and wanted.pixels is None:
            word, off = nearest_ratio(asked, self.ratios)
            fields = {self.ratio_field: word} if word else {}
            return Fitted(fields, off, exact=off <= PUBLISHED_RATIO_ERROR and wanted.tier is None)
        sizes = [(size, value) for value in self.values if isinstance(size := parse_size(value), Pixels)]
        candidates = _same_orientation(asked, [(log_ratio(*size), value) for size, value in sizes])
        if not candidates:
            return Fitted({}, inf, exact=False)
        areas = {value: size.area for size, value in sizes}
        got, value = min(
            candidates,
            key=lambda item: (abs(asked - item[0]), abs(log(areas[item[1]]) - log(wanted.area))),
        )
        return Fitted({self.field: value}, _off(asked, got), exact=str(wanted.pixels) == value)

    def describe(self) -> str:
        return f"Supported values are: {', '.join(repr(value) for value in (*self.values, *self.ratios))}."


class FlexibleRule(
    msgspec.Struct, frozen=True, kw_only=True, tag="flexible", tag_field="rule", forbid_unknown_fields=True
):
    """Any size within limits (gpt-image-2, FLUX): edges and areas are in pixels."""

    multiple: int = 1
    min_edge: int = 1
    max_edge: int = 16_384
    min_pixels: int = 1
    max_pixels: int = 268_435_456
    max_ratio: float = 100.0
    """Long edge over short edge."""
    auto: bool = True
    values: tuple[str, ...] = ()
    """What the field also takes as it is: words, such as Seedream's ``2K``, and sizes outside of the limits."""
    tiers: Mapping[str, Mapping[str, str]] = {}
    """Tier -> ratio -> size, for requests that name a ratio or a tier instead of pixels."""
    field: str = "size"

    def __post_init__(self) -> None:
        if min(self.multiple, self.min_edge, self.max_edge, self.min_pixels, self.max_pixels) < 1 or self.max_ratio < 1:
            raise ValueError("limits of a size must be at least 1")
        _check_words("values", self.values, Tier, Pixels, Auto)
        _check_words("tiers", self.tiers, Tier)
        for ratios in self.tiers.values():
            _check_words("tiers", ratios, Ratio)
            _check_words("tiers", ratios.values(), Pixels)

    @property
    def members(self) -> tuple[str, ...]:
        return (self.field,)

    def allows(self, size: Pixels) -> bool:
        return (
            size.width % self.multiple == 0
            and size.height % self.multiple == 0
            and min(size) >= self.min_edge
            and max(size) <= self.max_edge
            and self.min_pixels <= size.area <= self.max_pixels
            and max(size) <= self.max_ratio * min(size)
        )

    def fit(self, wanted: Wanted, *, with_references: bool = False) -> Fitted:
        if wanted.auto:
            return Fitted({self.field: "auto"} if self.auto else {})
        if wanted.ratio is None and wanted.tier and (word := nearest_tier(wanted.tier, self.values)):
            return Fitted({self.field: word}, exact=parse_size(word) == wanted.tier)
        if wanted.pixels and (self.allows(wanted.pixels) or str(wanted.pixels) in self.values):
            return Fitted({self.field: str(wanted.pixels)})
        size = self._listed(wanted) if wanted.pixels is None else None
        listed = size is not None
        if size is None:
            size = self._nearest(wanted)
        if size is None:
            return Fitted({}, inf, exact=False)
        off = _off(wanted.log_ratio, log_ratio(*size))
        return Fitted({self.field: str(size)}, off, exact=listed and off <= PUBLISHED_RATIO_ERROR)

    def _listed(self, wanted: Wanted) -> Pixels | None:
        """Return the provider's own size for a ratio and tier, where it publishes one."""
        if not self.tiers:
            return None
        tier = nearest_tier(wanted.tier or Tier(1024), self.tiers)
        ratios = self.tiers[tier] if tier else {}
        ratio, off = nearest_ratio(wanted.log_ratio, ratios)
        if ratio is None or off > PUBLISHED_RATIO_ERROR:
            return None
        size = parse_size(ratios[ratio])
        return size if isinstance(size, Pixels) else None

    def _nearest(self, wanted: Wanted) -> Pixels | None:
        """Return the corner of the grid cell around the asked size that is legal and nearest in ratio, then in area."""
        asked = abs(wanted.log_ratio)
        ratio = min(exp(asked), self.max_ratio)
        area = min(max(wanted.area, self.min_pixels), self.max_pixels)
        long, short = sqrt(area * ratio), sqrt(area / ratio)
        if wanted.pixels and wanted.pixels.area == area and ratio < self.max_ratio:
            long, short = (
                float(max(wanted.pixels)),
                float(min(wanted.pixels)),
            )  # no rounding through the roots
        scale = min(1.0, self.max_edge / long)
        long, short = long * scale, short * scale
        if short < self.min_edge:  # a larger size of the same ratio, as far as there is one
            long, short = long * self.min_edge / short, float(self.min_edge)
        long = min(long, self.max_edge, max(self.max_pixels / short, short))
        for margin in range(8):
            legal = [
                size
                for width in self._steps(long, margin)
                for height in self._steps(short, margin)
                if height and width >= height and self.allows(size := Pixels(width, height))
            ]
            if legal:
                best = min(
                    legal,
                    key=lambda size: (abs(log_ratio(*size) - asked), abs(log(size.area) - log(area)), size),
                )
                return best if wanted.log_ratio >= 0 else Pixels(best.height, best.width)
        return None

    def _steps(self, edge: float, margin: int) -> range:
        """Return the multiples on both sides of `edge`, and `margin` more each way."""
        below = int(edge // self.multiple)
        above = below if edge == below * self.multiple else below + 1
        return range(max(below - margin, 0) * self.multiple, (above + margin) * self.multiple + 1, self.multiple)

    def describe(self) -> str:
        limits = [
            f"both edges divisible by {self.multiple}" if self.multiple > 1 else "",
            f"the short edge at least {self.min_edge}" if self.min_edge > 1 else "",
            f"the long edge at most {self.max_edge}",
            f"the ratio at most {self.max_ratio:g}:1" if self.max_ratio < 100 else "",
            f"between {self.min_pixels:,} and {self.max_pixels:,} pixels in all",
        ]
        return f"Supported is WIDTHxHEIGHT with {', '.join(limit for limit in limits if limit)}" + (
            ", or 'auto'." if self.auto else "."
        )


class RatioRule(msgspec.Struct, frozen=True, kw_only=True, tag="ratio", tag_field="rule", forbid_unknown_fields=True):
    """A ratio from a vocabulary, and no choice of resolution (gemini-2.5-flash-image)."""

    ratios: tuple[str, ...]
    field: str = "aspect_ratio"
    auto: bool = False
    """Whether the vocabulary has the word ``auto``."""
    any_ratio: bool = False
    """Whether a ratio of whole numbers outside the vocabulary is taken when the client wrote it as one."""
    max_ratio: float = 100.0
    """Long side over short side of such a ratio."""

    def __post_init__(self) -> None:
        _check_words("ratios", self.ratios, Ratio)

    @property
    def members(self) -> tuple[str, ...]:
        """The request's members that say the size."""
        return (self.field,)

    def fit(self, wanted: Wanted, *, with_references: bool = False) -> Fitted:
        fields, off = self._fit_ratio(wanted)
        asked_tier = wanted.tier is not None
        return Fitted(fields, off, exact=off <= PUBLISHED_RATIO_ERROR and not asked_tier)

    def _fit_ratio(self, wanted: Wanted) -> tuple[dict[str, str], float]:
        if wanted.auto:
            return ({self.field: "auto"} if self.auto else {}), 0.0
        if wanted.ratio is None:
            return {}, 0.0
        if self.any_ratio and wanted.pixels is None and (own := in_whole_numbers(wanted.ratio, self.max_ratio)):
            return {self.field: own}, 0.0
        ratio, off = nearest_ratio(wanted.log_ratio, self.ratios)
        return ({self.field: ratio} if ratio else {}), off

    def describe(self) -> str:
        words = [*self.ratios, "auto"] if self.auto else self.ratios
        return f"Supported ratios are: {', '.join(repr(word) for word in words)}."


class RatioTierRule(
    RatioRule, frozen=True, kw_only=True, tag="ratio_tier", tag_field="rule", forbid_unknown_fields=True
):
    """A ratio and a resolution tier, in two fields (Gemini 3, Grok Imagine, everything at ToAPIs)."""

    tiers: tuple[str, ...]
    """In the provider's own spelling."""
    tier_field: str = "resolution"
    pairs: Mapping[str, tuple[str, ...]] = {}
    """Tier -> the ratios that exist in it; a tier that is not named has them all."""
    default_tier: str | None = None
    """What the provider takes where none is sent; named only where not every ratio exists in it."""
    default_ratio: str | None = None
    """What the provider takes where no ratio is sent; named only where it does not exist in every tier."""
    tier_with_references: bool = True
    """False: the provider refuses a tier beside reference images."""
    pixels_field: str | None = None
    """The field for pixels, for providers that take those too, where neither ratio nor tier is named."""

    def __post_init__(self) -> None:
        _check_words("ratios", self.ratios, Ratio)
        _check_words("tiers", self.tiers, Tier)
        _check_words("pairs", self.pairs, Tier)
        _check_words("default_tier", [self.default_tier] if self.default_tier else [], Tier)
        _check_words("default_ratio", [self.default_ratio] if self.default_ratio else [], Ratio)

    @property
    def members(self) -> tuple[str, ...]:
        return (self.field, self.tier_field)

    def fit(self, wanted: Wanted, *, with_references: bool = False) -> Fitted:
        if self.pixels_field is not None and wanted.pixels is not None:
            return Fitted({self.pixels_field: str(wanted.pixels)})
        fields, off = self._fit_ratio(wanted)
        exact = off <= PUBLISHED_RATIO_ERROR
        asked = wanted.nominal_tier
        if with_references and not self.tier_with_references:
            return Fitted(fields, off, exact=exact and asked is None)
        ratio = fields.get(self.field)
        available = [tier for tier in self.tiers if self._exists(tier, ratio or self.default_ratio)]
        if asked:
            if tier := nearest_tier(asked, available):
                fields[self.tier_field] = tier
                exact = exact and parse_size(tier) == asked
        elif self.default_tier and ratio and self.default_tier not in available:
            default = parse_size(self.default_tier)
            if isinstance(default, Tier) and (tier := nearest_tier(default, available)):
                fields[self.tier_field] = tier
        return Fitted(fields, off, exact=exact)

    def _exists(self, tier: str, ratio: str | None) -> bool:
        """Not every ratio has every tier; what `auto` may become has those that all have, and the default."""
        ratios = self.pairs.get(tier)
        if ratios is None or ratio is None:
            return True
        return tier == self.default_tier if ratio == "auto" else ratio in ratios

    def describe(self) -> str:
        return f"{super().describe()} Supported tiers are: {', '.join(repr(tier) for tier in self.tiers)}."


class NoSizeRule(msgspec.Struct, frozen=True, kw_only=True, tag="none", tag_field="rule", forbid_unknown_fields=True):
    """The model takes no size at all (gemini-2.0-flash-preview-image-generation)."""

    members: ClassVar[tuple[str, ...]] = ()

    def fit(self, wanted: Wanted, *, with_references: bool = False) -> Fitted:
        return Fitted({}, exact=wanted.auto)

    def describe(self) -> str:
        return "This model takes no size."


SizeRule = ListRule | FlexibleRule | RatioRule | RatioTierRule | NoSizeRule


def _check_words(key: str, words: Iterable[str], *kinds: type[Size]) -> None:
    """Raise `ValueError` for a rule that no request could be fitted to."""
    for word in words:
        if not isinstance(parse_size(word), kinds):
            raise ValueError(f"{key}: {word!r} does not belong there")


def nearest_ratio(asked: float, vocabulary: Iterable[str]) -> tuple[str | None, float]:
    """Return the word of `vocabulary` nearest to a log ratio, of the same orientation, and how far off it is."""
    candidates = _same_orientation(
        asked,
        [(log_ratio(*ratio), word) for word in vocabulary if isinstance(ratio := parse_size(word), Ratio)],
    )
    if not candidates:
        return None, inf
    got, word = min(candidates, key=lambda item: (abs(asked - item[0]), abs(item[0])))
    return word, _off(asked, got)


def nearest_tier(asked: Tier, words: Iterable[str]) -> str | None:
    """Return the tier nearest to the asked one; the lower of two that are equally far."""
    tiers = [(tier.edge, word) for word in words if isinstance(tier := parse_size(word), Tier)]
    if not tiers:
        return None
    # Half and double are equally far, whatever the logarithms' last digit says.
    return min(tiers, key=lambda item: (round(abs(log(item[0]) - log(asked.edge)), 9), item[0]))[1]
