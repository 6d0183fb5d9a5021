"""Reading a configuration: TOML, a mapping, objects or the environment, all checked alike before anything starts."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from imagegate.access.stored_key import SQLITE
from imagegate.config.checks import check, check_delivery
from imagegate.config.mistakes import KeyedError, keyed, shown
from imagegate.config.routes import Choice
from imagegate.config.schema import Config, DeliveryConfig, Duration, UpstreamConfig
from imagegate.config.toml_lines import line_of
from imagegate.errors import ConfigError
from imagegate.registry import file_options, has_address, installed

_FILES: Final = ("contracts", "ca_file", "client_cert")
_FILE_STORE: Final = "file://"
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def read_config(config: Config | Mapping[str, Any] | str | os.PathLike[str] | None) -> Config:
    """Return a checked configuration, however it is given: `ImageGateway` and everything else comes through here.

    Args:
        config: objects; a mapping such as a parsed TOML file; the path of one; None: the environment.

    Raises:
        ConfigError: it cannot be used.
    """
    if config is None:
        return default_config()
    if isinstance(config, Config):
        return _checked(_plain(config))
    return _checked(_expanded(_plain(config))) if isinstance(config, Mapping) else load_config(Path(config))


def read_delivery(delivery: DeliveryConfig) -> DeliveryConfig:
    """Return the configuration of a store that is used alone, checked like that of a gateway. Raises `ConfigError`."""
    document = {"delivery": _plain(delivery)}
    _refuse_nul(document, ())
    checked = _converted(document).delivery
    check_delivery(checked)
    return checked


def load_config(path: str | Path, *, environment: Mapping[str, str] | None = None) -> Config:
    """Read and check a TOML file.

    Raises:
        ConfigError: naming the file, the line and the key.
    """
    path = Path(path)
    try:
        source = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
    except ValueError as error:  # there is a NUL in it
        raise ConfigError(f"{str(path)!r} is no path") from error
    try:
        return parse_config(source, environment=environment, directory=path.parent)
    except KeyedError as error:
        line = line_of(source, error.path)
        raise ConfigError(f"{path}{f':{line}' if line else ''}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_config(source: str, *, environment: Mapping[str, str] | None = None, directory: Path | None = None) -> Config:
    """Check the text of a file; relative paths are taken from `directory`. Raises `ConfigError`."""
    try:
        document = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(error)) from error
    return _checked(_expanded(document, environment), directory)


def _expanded(document: Any, environment: Mapping[str, str] | None = None) -> Any:
    return _expand(document, os.environ if environment is None else environment, ())


def _checked(document: Any, directory: Path | None = None) -> Config:
    """Return a document of plain values as a configuration. Raises `ConfigError`."""
    _refuse_nul(document, ())
    _check_routes(document.get("routes"))
    _check_models(document.get("upstreams"))
    config = _with_directory(_converted(document), directory)
    check(config)
    return config


def _converted(document: Any) -> Config:
    try:
        return msgspec.convert(document, Config, dec_hook=_decode_duration)
    except msgspec.ValidationError as error:
        raise keyed(str(error), document, Config, decode=_decode_duration) from error


def _plain(value: Any) -> Any:
    """Return Python objects as the values that a file could have; other objects are kept, and refused later."""
    if isinstance(value, msgspec.Struct):
        return {name: _plain(item) for name, item in msgspec.structs.asdict(value).items()}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return float(value) if isinstance(value, Duration) else value


def _refuse_nul(value: Any, path: tuple[str | int, ...]) -> None:
    """Raise `KeyedError` for a text with a NUL, which no path, address or header field can have."""
    if isinstance(value, str) and "\0" in value:
        raise KeyedError(f"{shown(path)}: has a NUL character", path)
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_nul(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_nul(item, (*path, index))


def _check_routes(routes: Any) -> None:
    """Keys of a table are no part of the messages of the general check, so routes are looked at here."""
    if not isinstance(routes, dict):
        return
    for model, addresses in routes.items():
        if isinstance(addresses, str):
            routes[model] = addresses = [addresses]
        if not isinstance(addresses, list):
            found = type(addresses).__name__
            raise KeyedError(f"routes.{model}: Expected `array`, got `{found}`", ("routes", model))
        for place, entry in enumerate(addresses):
            here = ("routes", model, place)
            if isinstance(entry, dict):
                try:
                    choice = msgspec.convert(entry, Choice)
                except msgspec.ValidationError as error:
                    raise keyed(str(error), entry, Choice, above=here) from error
                if not 0 < choice.weight < 10**9:
                    raise KeyedError(f"{shown(here)}.weight: must be more than 0", here)
            elif not isinstance(entry, str):
                raise KeyedError(f"{shown(here)}: Expected `str`, got `{type(entry).__name__}`", here)


def _check_models(upstreams: Any) -> None:
    """Check the models that are written into an upstream."""
    for index, upstream in enumerate(upstreams if isinstance(upstreams, list) else []):
        models = upstream.get("models") if isinstance(upstream, dict) else None
        for name, table in (models if isinstance(models, dict) else {}).items():
            if not isinstance(table, dict):
                path = ("upstreams", index, "models", name)
                raise KeyedError(f"{shown(path)}: Expected `object`, got `{type(table).__name__}`", path)


def default_config(environment: Mapping[str, str] | None = None) -> Config:
    """Return every installed adapter with an address of its own whose ``<NAME>_API_KEY`` is set.

    Raises:
        ConfigError: there is none.
    """
    environment = os.environ if environment is None else environment
    upstreams = tuple(
        UpstreamConfig(name=name, api_key=key)
        for name in installed()
        if (key := environment.get(key_variable(name), "").strip()) and has_address(name)
    )
    if not upstreams:
        variables = ", ".join(key_variable(name) for name in installed() if has_address(name))
        raise ConfigError(
            "There is no configuration file, and no key of a provider is set. Begin with `imagegate demo`, which needs "
            "no key; set a key, for example OPENAI_API_KEY; or name a file with --config or IMAGEGATE_CONFIG. "
            f"Keys are read from: {variables}."
        )
    try:
        return _checked(_plain(Config(upstreams=upstreams)))
    except KeyedError as error:
        if error.path[:1] != ("upstreams",) or error.path[-1] != "api_key":
            raise
        name = upstreams[int(error.path[1])].name
        raise ConfigError(f"{key_variable(name)}: {str(error).partition(': ')[2]}") from error


def key_variable(name: str) -> str:
    """Return the environment variable that has the key of an adapter."""
    return f"{re.sub('[^A-Za-z0-9]', '_', name).upper()}_API_KEY"


def _expand(value: Any, environment: Mapping[str, str], path: tuple[str | int, ...]) -> Any:
    """Return every ``${NAME}`` replaced by the environment's value."""
    if isinstance(value, str):

        def replacement(found: re.Match[str]) -> str:
            if found[1] not in environment:
                raise KeyedError(f"{shown(path)}: the environment variable {found[1]} is not set", path)
            return environment[found[1]].strip()

        return _VARIABLE.sub(replacement, value)
    if isinstance(value, dict):
        return {key: _expand(item, environment, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, environment, (*path, index)) for index, item in enumerate(value)]
    return value


def _decode_duration(kind: type, value: Any) -> Any:
    if kind is not Duration:
        raise NotImplementedError(kind)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 10**9:
        return Duration(value)
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())) and float(found[1]) > 0:
        return Duration(float(found[1]) * _UNITS[found[2]])
    raise ValueError(f"{value!r} is no duration; write for example '2s', '5m' or '24h'")


def _with_directory(config: Config, directory: Path | None) -> Config:
    """Return the configuration with the paths that it names: relative ones begin where the configuration file is."""
    if directory is None:
        return config
    store, scheme = config.delivery.store, _FILE_STORE
    if store.startswith(scheme) and store != scheme:
        store = f"{scheme}{directory / store.removeprefix(scheme)}"
    upstreams = tuple(_located(upstream, directory) for upstream in config.upstreams)
    delivery = msgspec.structs.replace(config.delivery, store=store)
    access = msgspec.structs.replace(config.access, store=_located_database(config.access.store, directory))
    spending = msgspec.structs.replace(config.spending, ledger=_located_database(config.spending.ledger, directory))
    return msgspec.structs.replace(config, upstreams=upstreams, delivery=delivery, access=access, spending=spending)


def _located_database(address: str, directory: Path) -> str:
    if not address.startswith(SQLITE) or address == SQLITE:
        return address
    return f"{SQLITE}{directory.absolute() / address.removeprefix(SQLITE)}"


def _located(upstream: UpstreamConfig, directory: Path) -> UpstreamConfig:
    files: dict[str, Any] = {key: str(directory / path) for key in _FILES if (path := getattr(upstream, key))}
    if upstream.options:
        named = file_options(upstream.adapter_name)
        files["options"] = {
            key: str(directory / value) if key in named and isinstance(value, str) else value
            for key, value in upstream.options.items()
        }
    return msgspec.structs.replace(upstream, **files)
