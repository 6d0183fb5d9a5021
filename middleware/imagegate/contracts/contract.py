"""What a model accepts, as data.

Contracts are TOML tables, shipped by adapters and written by users in the same schema::

    [models."my-model"]
    family = "gpt-image-2"                 # start from a family (families.toml), then override
    size = { rule = "list", values = ["1024x1024"] }

    [models."my-model".parameters]
    quality = { values = ["low", "high"], translate = { standard = "low" } }
    style = false                          # taken out of what the family has
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache, cached_property
from importlib import resources
from typing import Any, Final, Literal

import msgspec

from imagegate.contracts.body import BodyRule
from imagegate.contracts.sizes import SizeRule
from imagegate.errors import ConfigError, RequestError, choice_error, type_error

SIZE_FIELDS: Final = ("size", "aspect_ratio", "resolution", "metadata.resolution")
"""Members that say something about the size; dots lead into nested ones."""
Operation = Literal["generations", "edits", "variations"]
ReferenceForm = Literal["files", "objects", "links", "inline", "uploads"]
JSONType = Literal["string", "integer", "number", "boolean", "array", "object", "any"]

_KEYED: Final = ("parameters", "renames")
_MERGED: Final = (*_KEYED, "names", "with_size", "constants")
"""Tables that are merged key by key; the last three are those of `body`."""
_CLEARED: Final = "\0cleared"
"""Marks members that stand on a ``false``: what lies below it is gone."""
_NESTED: Final = ("edits", "variations")
_NAMES: Final[Mapping[str, str]] = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "a boolean",
    "array": "an array",
    "object": "an object",
}
_CLASSES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "any": (object,),
}


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One JSON member that a model takes."""

    type: JSONType = "string"
    values: tuple[str | int | bool, ...] = ()
    """The only values; empty: any of the type."""
    min: float | None = None
    max: float | None = None
    max_length: int | None = None
    """Characters."""
    translate: Mapping[str, str] = {}
    """Another vocabulary's word for the same thing: ``hd`` is ``high``."""
    nearest: Mapping[str, str] = {}
    """The next best value. Refused where the policy is ``strict``."""
    omit: tuple[str, ...] = ()
    """Values that ask for what the provider does when the member is left out."""
    only_with: Mapping[str, tuple[str | bool, ...]] = {}
    """Another member and the values of it that this one needs; without them it is dropped."""
    not_with: Mapping[str, tuple[str | bool, ...]] = {}
    """Another member and the values of it with which this one is dropped."""
    neutral: int | None = None
    """The one value that needs no company."""
    forbidden: tuple[str, ...] = ()
    """Texts that a string must not contain, because the server would obey them."""
    replace: Mapping[str, str] = {}
    """Texts that the server would take for something else -> what is sent instead. Refused where the policy is
    ``strict``."""
    default: str | int | float | bool | None = None
    """What is sent where the client sends none, because what the provider does then is not what clients expect."""
    random: bool = False
    """Whether a random integer from `min` to `max` is sent where the client sends none."""

    def check_type(self, field: str, value: Any) -> None:
        """Raises `RequestError` where `value` has not this parameter's JSON type."""
        wrong_bool = isinstance(value, bool) and self.type in ("integer", "number")
        if wrong_bool or not isinstance(value, _CLASSES[self.type]):
            raise type_error(field, _NAMES[self.type], value)

    def check(self, field: str, value: Any) -> None:
        """Raises `RequestError` naming `field` and what is allowed."""
        if self.type != "string" or not isinstance(value, str):
            self.check_type(field, value)
        if self.values and value not in self.values:
            raise choice_error(field, str(value), self.values)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self._check_range(field, value)
        if found := next((text for text in self.forbidden if isinstance(value, str) and text in value), None):
            raise RequestError(f"Invalid '{field}': it must not contain '{found}'.", param=field)
        if self.max_length is not None and isinstance(value, str) and len(value) > self.max_length:
            raise RequestError(
                f"Invalid '{field}': string too long. Expected a string with maximum length {self.max_length}, "
                f"but got a string with length {len(value)} instead.",
                param=field,
                code="string_above_max_length",
            )

    def _check_range(self, field: str, value: float) -> None:
        kind = "integer" if self.type == "integer" else "decimal"
        if self.min is not None and value < self.min:
            raise RequestError(
                f"Invalid '{field}': {kind} below minimum value. Expected a value >= {self.min:g}, "
                f"but got {value} instead.",
                param=field,
                code=f"{kind}_below_min_value",
            )
        if self.max is not None and value > self.max:
            raise RequestError(
                f"Invalid '{field}': {kind} above maximum value. Expected a value <= {self.max:g}, "
                f"but got {value} instead.",
                param=field,
                code=f"{kind}_above_max_value",
            )


class ReferenceRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model takes the images that a request starts from. Sizes are in bytes."""

    forms: tuple[ReferenceForm, ...] = ("links",)
    """``files``: parts of a form, ``image`` or several ``image[]``; ``objects``: ``images: [{image_url}]`` in JSON;
    ``links``: URLs in the members of `fields`; ``inline``: base64 in JSON, where the adapter puts it (together with
    ``objects``, links stay links); ``uploads``: ids that the provider's upload API gave, likewise."""
    fields: tuple[str, ...] = ()
    """For ``links``: the members that hold URLs; the first is the one that others are renamed to."""
    max: int = 16
    """Images in all."""
    mask: bool = False
    """Whether all forms but ``links`` may come with a mask, called ``mask``."""
    mask_not_with: Mapping[str, tuple[str, ...]] = {}
    """Another member and the values of it with which a mask is refused."""
    markup: bool = False
    """Whether ``files`` may come with a ``markup``, a transparent overlay, in place of a mask."""
    mask_polarity: Literal["alpha", "white", "black"] = "alpha"
    """What marks the pixels to change: transparency, as at OpenAI, white on black, or black on white."""
    mask_two_valued: bool = False
    """Whether such a mask may have no grey: what is more than half transparent is to be changed."""
    mask_without: tuple[str, ...] = ()
    """Members that go where there is a mask: the provider's endpoint for masks has none of them."""
    mask_field: str | None = None
    """For ``links``: the member that holds the mask's URL."""
    operation: str | None = None
    """Value of the ``operation`` member that must accompany references."""
    file_ids: bool = False
    """Whether ``objects`` may name files that the provider already has."""
    live: bool = True
    """Whether files may go on while they come in; False: the adapter's path or its names depend on them."""
    upload: bool = False
    """Whether the provider has an upload API that turns files into links."""
    kinds: tuple[str, ...] = ("image/png", "image/jpeg", "image/webp")
    """Media types."""
    max_bytes: int = 50_000_000
    max_mask_bytes: int = 4_000_000
    square: bool = False
    alpha: bool = False
    """Whether images need an alpha channel; masks always do."""
    same_size: bool = False
    """Whether ``size`` must be the image's own."""
    image_size: bool = False
    """Whether ``size`` is that of the first image where the client names none, because the provider's own is not."""

    @property
    def takes_mask(self) -> bool:
        return self.mask or self.mask_field is not None


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a request asks for pictures that belong together, beside ``n``."""

    member: str
    """What says how many they may be; dots lead into objects."""
    most: int
    """How many they may be where it does not say."""
    when: Mapping[str, tuple[str | int | bool, ...]] = {}
    """Members, and the values of them that ask for a group."""

    def size(self, fields: Mapping[str, Any]) -> int:
        """Return how many pictures a request may have for one; 1: it asks for no group."""
        if any(fields.get(name) not in values for name, values in self.when.items()):
            return 1
        value: Any = fields
        for name in self.member.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value if type(value) is int and 1 <= value <= self.most else self.most


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


class ProviderFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What there is to say about a provider beside its models, for people."""

    title: str
    docs: str = ""
    """Where the provider documents its API."""
    key: str = ""
    """What kind of key it takes, and how it is sent."""
    sources: tuple[str, ...] = ()
    """Of what the contracts say, with dates or versions."""
    notes: tuple[str, ...] = ()
    """What is translated, dropped or refused outside the contracts, and what is not verified."""
    no_prices: str = ""
    """Why the adapter ships no prices, where it ships none."""


class ContractDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TOML file of contracts."""

    provider: ProviderFacts | None = None
    models: Mapping[str, Mapping[str, Any]] = {}
    families: Mapping[str, Mapping[str, Any]] = {}


Contracts = Mapping[str, Contract]


def find_contract(contracts: Contracts, model: str) -> Contract | None:
    """Return the contract of `model`: by its exact name, else by the longest matching pattern (``gemini-*``)."""
    if exact := contracts.get(model):
        return exact
    patterns = [name for name in contracts if "*" in name and fnmatchcase(model, name)]
    return contracts[max(patterns, key=len)] if patterns else None


class ContractError(ConfigError):
    """A table that is no contract.

    Args:
        model: whose it is.
        reason: msgspec's message, with the path of the key.
        table: as it was read, with what its family says.
    """

    def __init__(self, model: str, reason: str, table: Mapping[str, Any]) -> None:
        super().__init__(f"models.{model}: {reason}")
        self.model = model
        self.reason = reason
        self.table = table


def read_document(source: str) -> ContractDocument:
    """Parses the text of a contract file. Raises `ConfigError`."""
    try:
        return msgspec.toml.decode(source, type=ContractDocument)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"This is no contract file: {error}") from error


@cache
def families() -> Mapping[str, Mapping[str, Any]]:
    """The model families as their makers document them (``families.toml``)."""
    return read_document(resources.files("imagegate.contracts").joinpath("families.toml").read_text("utf-8")).families


def load_contracts(*documents: ContractDocument) -> dict[str, Contract]:
    """Merges contract files, later ones over earlier ones, into model id -> contract.

    Raises:
        ConfigError: naming the model and the key that is wrong.
    """
    known: dict[str, Mapping[str, Any]] = dict(families())
    models: dict[str, Mapping[str, Any]] = {}
    for document in documents:
        for name, table in document.families.items():
            known[name] = _merge(known.get(name, {}), table)
        for name, table in document.models.items():
            models[name] = _merge(models.get(name, {}), table)
    return {name: _contract(name, _with_family(name, table, known)) for name, table in models.items()}


def _with_family(name: str, table: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    chain: list[str] = []
    while family := table.get("family"):
        if not isinstance(family, str):
            raise ConfigError(f"models.{name}.family: must be the name of a family")
        if family in chain:
            raise ConfigError(f"models.{name}: the family {family!r} leads back to itself.")
        if family not in known:
            raise ConfigError(
                f"models.{name}.family: there is no family {family!r}. Known: {', '.join(sorted(known))}."
            )
        chain.append(family)
        parent = known[family]
        table = {**_merge(parent, table), "family": parent.get("family", "")}
    return _complete({**table, "family": chain[0] if chain else ""})


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`: parameters, renames, body, edits and variations key by key, others replaced."""
    merged = dict(base)
    for key, value in over.items():
        before = merged.get(key)
        if before is False and key in _KEYED and isinstance(value, Mapping):
            merged[key] = {_CLEARED: True, **value}
        elif not isinstance(value, Mapping) or not isinstance(before, Mapping) or value.get(_CLEARED):
            merged[key] = value
        elif key in _MERGED:
            merged[key] = {**before, **value}
        elif key in _NESTED or key == "body":
            merged[key] = _merge(before, value)
        else:
            merged[key] = value
    return merged


def _complete(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a contract: ``false`` has taken out what it names, edits and variations stand on the rest."""
    own = {key: value for key, value in table.items() if key not in _NESTED}
    complete = {key: value for key, value in own.items() if value is not False}
    for key in _KEYED:
        if isinstance(members := complete.get(key), Mapping):
            complete[key] = {name: value for name, value in members.items() if value is not False and name != _CLEARED}
    if isinstance(body := complete.get("body"), Mapping):
        complete["body"] = {name: value for name, value in body.items() if value is not False}
    for key in _NESTED:
        if isinstance(nested := table.get(key), Mapping):
            complete[key] = {
                "parameters": {},
                **_complete(_merge({**own, "retired": False, "edits_only": False}, nested)),
            }
    return complete


def _contract(name: str, table: Mapping[str, Any]) -> Contract:
    try:
        return msgspec.convert({"parameters": {}, **table}, Contract)
    except msgspec.ValidationError as error:
        raise ContractError(name, str(error), table) from error
