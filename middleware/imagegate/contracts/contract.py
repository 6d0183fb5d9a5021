"""What a model accepts, as data: `imagegate.contracts.documents` reads it from TOML."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Final, Literal

import msgspec

from imagegate.contracts.body import BodyRule
from imagegate.contracts.parameter import Parameter
from imagegate.contracts.reference_rule import ReferenceRule
from imagegate.contracts.sizes import SizeRule

SIZE_FIELDS: Final = ("size", "aspect_ratio", "resolution", "metadata.resolution")
"""Members that say something about the size; dots lead into nested ones."""
Operation = Literal["generations", "edits", "variations"]


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a request asks for pictures that belong together, beside ``n``."""

    member: str
    """What says how many they may be; dots lead into objects."""
    most: int
    """How many they may be where it does not say."""
    when: Mapping[str, tuple[str | int | bool, ...]] = {}
    """Members, and the values of them that ask for a group."""
    with_references: bool = False
    """Whether `most` counts the request's references too."""

    def size(self, fields: Mapping[str, Any]) -> int:
        """Return how many pictures a request may have for one; 1: it asks for no group."""
        if not self.is_asked(fields):
            return 1
        value = self.asked(fields)
        return value if type(value) is int and 1 <= value <= self.most else self.most

    def is_asked(self, fields: Mapping[str, Any]) -> bool:
        """Return whether a request asks for a group."""
        return all(fields.get(name) in values for name, values in self.when.items())

    def asked(self, fields: Mapping[str, Any]) -> Any:
        """Return what a request says of its size; None: nothing."""
        value: Any = fields
        for name in self.member.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


class Retirement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a provider has switched a model off. Requests go to the successor, which is disclosed."""

    since: str
    """Date, as in ``2026-10-23``."""
    successor: str
    """Another model of the same provider."""
    source: str
    """Where the provider says so."""


class Contract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """What one model of one provider accepts: for generations, and in `edits` and `variations` for those.

    `parameters` is the whole list of members beside ``model`` and the fields of `size` and `references`.
    """

    parameters: Mapping[str, Parameter]
    family: str = ""
    renames: Mapping[str, str] = {}
    """A member that the model does not have -> the one of its own with the same meaning."""
    size: SizeRule | None = None
    """None: the provider says nothing about sizes, so they pass as they are."""
    references: ReferenceRule | None = None
    unknown: Literal["drop", "pass"] = "drop"
    """What becomes of members that no contract names."""
    body: BodyRule | None = None
    """How the adapter writes a request as JSON of the provider's own; None: as it does for all of its models."""
    endpoint: Operation | None = None
    """Where requests go instead of the endpoint of their own operation: edits that are generations with links."""
    group: Group | None = None
    """None: the model makes as many pictures as ``n`` says."""
    wire: Mapping[str, Any] = {}
    """How this model is spoken to where its provider has several ways: words that only the adapter reads."""
    retired: Retirement | None = None
    """``false`` in a configuration: the model still answers there."""
    edits_only: bool = False
    """Whether the model makes nothing without an image to start from."""
    one_image_with: Mapping[str, tuple[str, ...]] = {}
    """Another member and the values of it with which a request is for one image; more are several requests."""
    edits: Contract | None = None
    variations: Contract | None = None

    def __post_init__(self) -> None:
        if "n" in self.renames.values():
            raise ValueError("renames: 'n' has no other names than those that every model understands")

    @cached_property
    def max_images(self) -> int:
        """The most that one request may ask for in ``n``."""
        parameter = self.parameters.get("n")
        return int(parameter.max) if parameter and parameter.max is not None else 1

    def most_images(self, fields: Mapping[str, Any]) -> int:
        """Return the most that a request with these members may ask for in ``n``."""
        if any(fields.get(name) in values for name, values in self.one_image_with.items()):
            return 1
        return self.max_images

    @cached_property
    def members_of_rules(self) -> frozenset[str]:
        """Members that have no parameter of their own, because the rules for sizes and references know them."""
        members = {"model", *SIZE_FIELDS}
        if self.size is not None:
            members |= {path.partition(".")[0] for path in self.size.members} - set(self.parameters)
        if self.references is not None:
            members |= {*self.references.fields, self.references.mask_field or ""}
        return frozenset(members)

    @cached_property
    def legal_sizes(self) -> set[tuple[str, bool]]:
        """Sizes that were seen to be legal as they are, and whether there were references: Fit's memory."""
        return set()

    @cached_property
    def supplied(self) -> tuple[str, ...]:
        """Members that are sent also where the client sends none."""
        return tuple(name for name, each in self.parameters.items() if each.random or each.default is not None)

    @cached_property
    def free_texts(self) -> Mapping[str, int]:
        """Members that take any string up to so many characters."""
        lengths = {name: each.free_length for name, each in self.parameters.items()}
        return {name: length for name, length in lengths.items() if length is not None}

    @cached_property
    def choices(self) -> Mapping[str, tuple[str | int | bool, ...]]:
        """Members with a list of values and no other rule for them."""
        return {name: each.values for name, each in self.parameters.items() if each.is_choice}

    @cached_property
    def streams(self) -> bool:
        """Whether ``stream: true`` is taken."""
        parameter = self.parameters.get("stream")
        return parameter is not None and (not parameter.values or True in parameter.values)

    @cached_property
    def by_operation(self) -> Mapping[Operation, Contract | None]:
        """The contract for each operation; None: the model has none. Variations may be edits with a prompt of ours."""
        return {
            "generations": None if self.edits_only else self,
            "edits": self.edits,
            "variations": self.variations or self.edits,
        }


Contracts = Mapping[str, Contract]


def find_contract(contracts: Contracts, model: str) -> Contract | None:
    """Return the contract of `model`: by its exact name, else by the longest matching pattern (``gemini-*``)."""
    if exact := contracts.get(model):
        return exact
    patterns = [name for name in contracts if "*" in name and fnmatchcase(model, name)]
    return contracts[max(patterns, key=len)] if patterns else None
