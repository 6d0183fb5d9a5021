"""The names that the configuration has, so that metrics have no others: clients cannot make new series."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

from imagegate.config.model_contracts import contracts_of
from imagegate.config.routes import address_of
from imagegate.config.schema import Config
from imagegate.contracts.contract import Contract, Contracts
from imagegate.contracts.size_syntax import Auto, Pixels, Ratio, SizeSyntaxError, Tier, parse_size
from imagegate.contracts.sizes import tier_of_area
from imagegate.protocol.requests import PARAMETERS

OTHER: Final = "other"
"""Label value for every name that is not configured."""
FIELDS: Final = frozenset(PARAMETERS) | {"image", "images", "mask", "markup", "model", "operation", "prompt"}
"""Members that the Images API has, whatever the configuration."""
_PATTERNS_KEPT: Final = 1024
_LONGEST_LABEL: Final = 128
"""Characters of a name."""
_SQUARE_WITHIN: Final = 0.02
"""Of the ratio: 1024x1008 is a square to the eye."""


class Holders:
    """Names of keys, users and groups, which come at run time: the first `most` of them are labels of their own."""

    def __init__(self, most: int = 200) -> None:
        self._most = most
        self._known: set[str] = set()

    def label(self, name: str) -> str:
        """Return the name as a label, or ``other``."""
        if name not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(name)
        return name[:_LONGEST_LABEL]


class Names:
    """Models, upstreams and fields of a configuration.

    Args:
        contracts: upstream -> model -> contract.
        addresses: ``upstream/model`` of all routes.
    """

    def __init__(self, contracts: Mapping[str, Contracts], addresses: frozenset[str] = frozenset()) -> None:
        self.upstreams = tuple(contracts)
        self._models = {
            upstream: frozenset(name for name in models if "*" not in name)
            | {model for address in addresses for name, _, model in [address.partition("/")] if name == upstream}
            for upstream, models in contracts.items()
        }
        self._patterns = {
            upstream: sorted((name for name in models if "*" in name), key=len, reverse=True)
            for upstream, models in contracts.items()
        }
        self._fields = FIELDS.union(*(_members(c) for models in contracts.values() for c in models.values()))
        self._by_pattern = lru_cache(_PATTERNS_KEPT)(self._pattern)

    @classmethod
    def of(cls, config: Config, contracts: Mapping[str, Contracts] | None = None) -> Names:
        """Return those of a configuration, whose contracts are read where they are not given."""
        addresses = frozenset(address_of(entry) for route in config.routes.values() for entry in route)
        return cls(contracts_of(config) if contracts is None else contracts, addresses)

    def model(self, upstream: str, model: str) -> str:
        """Return an upstream's model, the pattern (``gemini-*``) that it goes by, or ``other``; "" for none."""
        if not model or model in self._models.get(upstream, ()):
            return model
        return self._by_pattern(upstream, model)

    def _pattern(self, upstream: str, model: str) -> str:
        return next((name for name in self._patterns.get(upstream, ()) if fnmatchcase(model, name)), OTHER)

    def field(self, name: str) -> str:
        """Return the name of a request's member, or ``other``."""
        return name if name in self._fields else OTHER


def _members(contract: Contract) -> set[str]:
    """Return every member that the model has a word for, in any operation."""
    rule = contract.references
    own = {*contract.parameters, *contract.renames, *contract.renames.values(), *(rule.fields if rule else ())}
    nested = [_members(other) for other in (contract.edits, contract.variations) if other is not None]
    return {name.partition(".")[0] for name in own}.union(*nested)


@lru_cache(1024)
def size_class(text: str) -> str:
    """Return ``landscape_2k`` of pixels, ``landscape`` of a ratio, ``2k`` of a tier, ``auto``, ``none``, or ``other``.

    At most about thirty values, whatever clients write: tiers are 512, 1k, 2k and 4k, others are the nearest of them.
    """
    if not text:
        return "none"
    try:
        size = parse_size(text)
    except SizeSyntaxError:
        return "other"
    if isinstance(size, Auto):
        return "auto"
    if isinstance(size, Pixels):
        return f"{_shape(size.width, size.height)}_{_tier(size.area)}"
    if isinstance(size, Ratio):
        return _shape(size.width, size.height)
    return _tier_word(size)


def _shape(width: float, height: float) -> str:
    if abs(width / height - 1) <= _SQUARE_WITHIN:
        return "square"
    return "landscape" if width > height else "portrait"


def _tier(area: float) -> str:
    return _tier_word(tier_of_area(area))


def _tier_word(tier: Tier) -> str:
    return str(tier_of_area(tier.edge**2)).lower()
