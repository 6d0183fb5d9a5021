"""Functions of the application that a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from imagegate.errors import ConfigError


def function_of(name: str) -> Callable[..., Any]:
    """Return what ``package.module:function`` names. Raises `ConfigError`, beginning with ``callable:``."""
    found = object_of(name, "callable")
    if not callable(found):
        raise ConfigError(f"callable: {name!r} cannot be called")
    function: Callable[..., Any] = found
    return function


def object_of(name: str, key: str) -> Any:
    """Return what ``package.module:name`` names. Raises `ConfigError`, beginning with `key`."""
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key}: {name!r} cannot be imported") from error
    return found
