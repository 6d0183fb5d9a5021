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
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final

import msgspec

from imagegate.contracts.contract import Contract
from imagegate.errors import ConfigError

_KEYED: Final = ("parameters", "renames")
_MERGED: Final = (*_KEYED, "names", "with_size", "constants")
"""Tables that are merged key by key; the last three are those of `body`."""
_CLEARED: Final = "\0cleared"
"""Marks members that stand on a ``false``: what lies below it is gone."""
_NESTED: Final = ("edits", "variations")
_KEPT: Final = 128
"""Documents, and mergers of them, that are remembered: a gateway reads those of each upstream when its configuration is
checked, when it is built and when it is loaded anew, and several in a process have the same adapters."""


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
    """Parse the text of a contract file; documents are not to be changed. Raises `ConfigError`."""
    return _read(source)


@lru_cache(_KEPT)
def _read(source: str) -> ContractDocument:
    try:
        return msgspec.toml.decode(source, type=ContractDocument)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"This is no contract file: {error}") from error


@cache
def families() -> Mapping[str, Mapping[str, Any]]:
    """Return the model families as their makers document them (``families.toml``)."""
    return read_document(resources.files("imagegate.contracts").joinpath("families.toml").read_text("utf-8")).families


def load_contracts(*documents: ContractDocument) -> dict[str, Contract]:
    """Merge contract files, later ones over earlier ones, into model id -> contract.

    Raises:
        ConfigError: naming the model and the key that is wrong.
    """
    return dict(_merged(msgspec.msgpack.encode(documents)))


@lru_cache(_KEPT)
def _merged(encoded: bytes) -> Mapping[str, Contract]:
    documents = msgspec.msgpack.decode(encoded, type=tuple[ContractDocument, ...])
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
    """Return `over` on top of `base`: parameters, renames, body, edits and variations key by key, others replaced."""
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
    """Return the table of a contract: ``false`` has taken out what it names, edits and variations stand on the rest."""
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
