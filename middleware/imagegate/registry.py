"""Adapters by name: installed packages announce them as entry points in the group ``imagegate.adapters``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from imagegate.adapter import Adapter, TextFile
from imagegate.errors import ConfigError
from imagegate.protocol.names import did_you_mean

GROUP: Final = "imagegate.adapters"


@cache
def installed() -> Mapping[str, EntryPoint]:
    """Return every announced adapter, sorted by name; scanned once, nothing is imported.

    Raises:
        ConfigError: two packages announce the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ConfigError(f"Two packages announce the adapter '{entry.name}': {other.value} and {entry.value}.")
    return dict(sorted(found.items()))


def load_adapter(name: str, options: Mapping[str, Any] | None = None) -> Adapter:
    """Import and make the adapter called `name`.

    Args:
        options: as the configuration has them; files that they name are read.

    Raises:
        ConfigError: there is no such adapter (the message lists those that exist), or the options are wrong.
    """
    kind = _class_of(name)
    if not options:
        return kind()
    try:
        return kind(msgspec.convert(options, kind.options_type, dec_hook=_read_option))
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        raise ConfigError(f"options{f'.{place[:-1]}' if place else ''}: {message}") from error


def has_address(name: str) -> bool:
    """Return whether an adapter's provider has an address of its own; servers of one's own are wherever they are."""
    kind: type[Adapter] = installed()[name].load()
    return bool(kind.base_url)


def file_options(name: str) -> frozenset[str]:
    """Return the options of an adapter that name files; none where there is no such adapter."""
    if name not in installed():
        return frozenset()
    fields = msgspec.structs.fields(_class_of(name).options_type)
    return frozenset(field.encode_name for field in fields if TextFile in (field.type, *get_args(field.type)))


def _class_of(name: str) -> type[Adapter]:
    entry = installed().get(name)
    if entry is None:
        hint = did_you_mean(name, installed())
        raise ConfigError(f"There is no adapter '{name}'.{hint} Installed: {', '.join(installed()) or 'none'}.")
    kind: type[Adapter] = entry.load()
    return kind


def _read_option(kind: type, value: Any) -> Any:
    if kind is not TextFile:
        raise NotImplementedError(kind)
    if not isinstance(value, str):
        raise ValueError("Expected the name of a file")
    try:
        return TextFile(value, Path(value).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{value} cannot be read") from error
