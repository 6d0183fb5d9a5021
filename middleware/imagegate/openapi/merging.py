"""The gateway's paths in the document of a host application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

_NAMED: Final = "Imagegate"
"""Prefix of component names, which the host may use too."""


class HasDocument(Protocol):
    """An application that has an OpenAPI document, such as `fastapi.FastAPI`, which documents how to extend it."""

    openapi: Any


class Gateway(Protocol):
    """What `imagegate.ImageGateway` has."""

    def openapi(self, *, mount: str = "") -> dict[str, Any]: ...


def merge(app: HasDocument, gateway: Gateway, *, mount: str = "") -> None:
    """Add the gateway's endpoints to the OpenAPI document of a FastAPI application, and so to its page.

    Args:
        app: the application, whose method `openapi` is replaced.
        gateway: an `ImageGateway`.
        mount: path at which the application has mounted it; empty: as middleware.
    """
    own = app.openapi

    def openapi() -> dict[str, Any]:
        return combined(own(), gateway.openapi(mount=mount))

    app.openapi = openapi


def combined(host: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return the host's document with our paths and components. A gateway in front of the host answers first."""
    renamed = _renamed(ours)
    paths = dict(host.get("paths", {}))
    for path, item in renamed["paths"].items():
        paths[path] = {**paths.get(path, {}), **item}
    components = dict(host.get("components", {}))
    for kind, named in renamed["components"].items():
        components[kind] = {**components.get(kind, {}), **named}
    return {**host, "paths": paths, "components": components}


def _renamed(node: Any) -> Any:
    """Return a document whose components have names of their own, wherever they stand."""
    if isinstance(node, list):
        return [_renamed(value) for value in node]
    if not isinstance(node, dict):
        return node
    found = {name: _renamed(value) for name, value in node.items()}
    if isinstance(target := node.get("$ref"), str):
        found["$ref"] = _own(target)
    if isinstance(mapping := node.get("mapping"), dict) and "propertyName" in node:
        found["mapping"] = {value: _own(target) for value, target in mapping.items()}
    if "components" in node:
        found["components"] = {
            kind: {_NAMED + name: value for name, value in named.items()} for kind, named in found["components"].items()
        }
    if isinstance(required := node.get("security"), list):
        found["security"] = [{_NAMED + name: scopes for name, scopes in each.items()} for each in required]
    return found


def _own(target: str) -> str:
    head, _, name = target.rpartition("/")
    return f"{head}/{_NAMED}{name}"
