"""``imagegate keys``: keys made at run time, in the database that ``[access] store`` names."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from imagegate.access.principal import Limits
from imagegate.access.stored_key import KeySettings, StoredKey
from imagegate.errors import ConfigError

if TYPE_CHECKING:
    from imagegate.access.key_table import KeyTable
    from imagegate.config.schema import Config

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LISTS: Final = ("models", "sizes", "operations", "groups")
_NONE: Final = ("", "none")


def add_parser(commands: Any, add_config: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the command and what it can do to the program's."""
    keys = commands.add_parser("keys", help="make, list, limit, rotate and revoke keys of clients")
    actions = keys.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, help_: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(name, help=help_)
        add_config(action)
        action.add_argument("--json", action="store_true", help="for programs")
        action.set_defaults(run=run)
        return action

    create = add("create", "make a key, which is shown once", _create)
    create.add_argument("name", help="letters, digits, '.', '_' and '-'")
    create.add_argument("--expires", type=_duration, metavar="TIME", help="after which it ends: 12h, 30d")
    _add_settings(create)
    list_ = add("list", "show all keys, without the keys themselves", _list)
    list_.add_argument("--all", action="store_true", help="also those that were revoked")
    add("revoke", "end a key", _revoke).add_argument("name", help="or id")
    rotate = add("rotate", "give its holder another key", _rotate)
    rotate.add_argument("name", help="or id")
    rotate.add_argument(
        "--keep", type=_duration, default=0, metavar="TIME", help="for which the one before stays valid (default: 0s)"
    )
    limits = add("limits", "show or change what a key may ask for", _limits)
    limits.add_argument("name", help="or id")
    _add_settings(limits)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add options for every member of `KeySettings`; one that is not given leaves the member as it is."""
    for name in _LISTS:
        parser.add_argument(f"--{name}", metavar="A,B", help=f"{name}, by commas; none: any")
    parser.add_argument("--tenant", help="whose store prefix its images have")
    parser.add_argument(
        "--limit", action="append", metavar="NAME=VALUE", help=f"one of {', '.join(Limits.__struct_fields__)}; or none"
    )
    parser.add_argument("--metadata", action="append", metavar="NAME=VALUE", help="for the log")


def _duration(text: str) -> int:
    """Return seconds."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write for example 30m, 12h or 90d")
    return int(found[1]) * _UNITS[found[2]]


def _create(options: argparse.Namespace) -> int:
    if not _NAME.fullmatch(options.name):
        raise ConfigError(f"{options.name!r} is no name: letters, digits, '.', '_' and '-', at most 128")
    with _table(options) as (table, config):
        if options.name in config.access.named_keys():
            raise ConfigError(f"There is a key called {options.name!r} in the configuration; choose another name.")
        settings = msgspec.structs.replace(KeySettings(), **_changes(options, KeySettings(), config))
        expires = None if options.expires is None else int(time.time()) + options.expires
        key, secret = table.create(options.name, settings, expires=expires)
    _show_secret(key, secret, as_json=options.json)
    return 0


def _list(options: argparse.Namespace) -> int:
    with _table(options) as (table, _):
        keys = table.list(revoked=options.all)
    if options.json:
        print(json.dumps([_shown(key) for key in keys], indent=2))
        return 0
    rows = [("NAME", "ID", "KEY", "CREATED", "LAST USED", "STATE")]
    rows += [
        (key.name, key.id, f"{key.prefix}...", _date(key.created), _date(key.last_used), _state(key)) for key in keys
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _revoke(options: argparse.Namespace) -> int:
    with _table(options) as (table, config):
        key = table.revoke(options.name)
    if options.json:
        print(json.dumps(_shown(key), indent=2))
    else:
        print(f"{key.name} ({key.id}) is revoked; running gateways refuse it within {config.access.cache:g} s.")
    return 0


def _rotate(options: argparse.Namespace) -> int:
    with _table(options) as (table, _):
        key, secret = table.rotate(options.name, keep=options.keep)
    _show_secret(key, secret, as_json=options.json)
    return 0


def _limits(options: argparse.Namespace) -> int:
    with _table(options) as (table, config):
        key = table.get(options.name)
        if changes := _changes(options, key.settings, config):
            key = table.set(key.id, changes)
    shown = _shown(key)
    if options.json:
        print(json.dumps(shown, indent=2))
        return 0
    print(f"{key.name} ({key.id})")
    for name in KeySettings.__struct_fields__:
        print(f"  {name:<11} {_words(shown[name])}")
    return 0


@contextmanager
def _table(options: argparse.Namespace) -> Generator[tuple[KeyTable, Config]]:
    """Open the database. Raises `ConfigError` where there is none, or it cannot be used."""
    from imagegate.standalone import CONFIG_VARIABLE, find_config

    if options.config is not None:
        os.environ[CONFIG_VARIABLE] = str(options.config.absolute())
    config = find_config()
    if not config.access.store:
        raise ConfigError('The configuration names no database for keys: [access] store = "sqlite:///keys.db".')
    from sqlalchemy.exc import SQLAlchemyError

    from imagegate.access.key_table import KeyTable

    table = KeyTable.at(config.access.store)
    try:
        yield table, config
    except (SQLAlchemyError, OSError) as error:
        reason = getattr(error, "orig", None) or error
        raise ConfigError(f"access.store: cannot be used: {str(reason).strip()}") from None
    finally:
        table.close()


def _changes(options: argparse.Namespace, before: KeySettings, config: Config) -> dict[str, Any]:
    """Return the members of `KeySettings` that the options name. Raises `ConfigError`."""
    changes: dict[str, Any] = {}
    for name in _LISTS:
        if (value := getattr(options, name)) is not None:
            changes[name] = () if value in _NONE else tuple(part.strip() for part in value.split(",") if part.strip())
    if options.tenant is not None:
        changes["tenant"] = options.tenant
    if options.limit is not None:
        limits = {} if options.limit == ["none"] else msgspec.structs.asdict(before.limits)
        changes["limits"] = {**limits, **dict(_limit(text) for text in options.limit if text != "none")}
    if options.metadata is not None:
        changes["metadata"] = dict(_pair(text) for text in options.metadata if text != "none")
    for group in changes.get("groups", ()):
        if group not in config.access.groups:
            known = ", ".join(config.access.groups) or "none"
            raise ConfigError(f"--groups {group}: access.groups of the configuration has: {known}")
    try:
        converted = msgspec.convert(changes, KeySettings)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error).replace("`$.", "`")) from None
    return {name: getattr(converted, name) for name in changes}


def _limit(text: str) -> tuple[str, Any]:
    name, value = _pair(text)
    if name not in Limits.__struct_fields__:
        raise ConfigError(f"--limit {text}: must be one of: {', '.join(Limits.__struct_fields__)}")
    if value in _NONE:
        return name, None
    try:
        return name, json.loads(value)
    except ValueError:
        raise ConfigError(f"--limit {text}: {value!r} is no number") from None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError(f"{text!r}: write it as NAME=VALUE")
    return name, value


def _show_secret(key: StoredKey, secret: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**_shown(key), "key": secret}, indent=2))
        return
    print(secret)
    print(f"{key.name} ({key.id}): this is the only time that the key is shown.", file=sys.stderr)


def _shown(key: StoredKey) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(key)
    del shown["settings"]
    settings = {name: getattr(key.settings, name) for name in KeySettings.__struct_fields__}
    limits = {name: value for name, value in msgspec.structs.asdict(key.settings.limits).items() if value is not None}
    return {**shown, "state": _state(key), **msgspec.to_builtins(settings), "limits": limits}


def _state(key: StoredKey) -> str:
    if key.revoked is not None:
        return "revoked"
    if key.expires is None:
        return "valid"
    return f"until {_date(key.expires)}" if key.expires > time.time() else "expired"


def _date(moment: int | None) -> str:
    return "never" if moment is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={part}" for name, part in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "any"
    return str(value) or "any"
