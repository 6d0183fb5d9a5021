"""``GET /v1/models`` and ``/v1/models/{id}``: what can be asked for, who answers, and what they accept."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from imagegate.access.principal import Principal
from imagegate.asgi.helpers import route_path, send_json
from imagegate.layers.base import Layer
from imagegate.protocol.messages import Target
from imagegate.routing.catalog import Catalog
from imagegate.telemetry.progress import PROGRESS_KEY

_LISTS_KEPT: Final = 64


class Models(Layer):
    """Lists the catalog in OpenAI's shape, or one model of it.

    ``recommended_for=image`` (TokenLab's query) is taken; every model here is for images.
    """

    endpoints = frozenset(("models",))

    def __init__(self, app: Layer, *, catalog: Catalog, prefix: str = "/v1") -> None:
        super().__init__(app, prefix=prefix)
        self._catalog = catalog
        self._list_for = lru_cache(_LISTS_KEPT)(self._listed)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raise `ModelNotFound`."""
        model = route_path(scope)[len(self.prefix) :].removeprefix("/models").strip("/")
        principal = scope[PROGRESS_KEY].principal
        restricted = principal if principal is not None and principal.models else None
        body = self._list if restricted is None else self._list_for(restricted.models)
        if model:
            targets = self._catalog.resolve_for(restricted, model)
            body = msgspec.json.encode(_model(model, targets[0], targets))
        await send_json(send, 200, body)

    @cached_property
    def _list(self) -> bytes:
        """The list of all models, written when it is first asked for: a start does not wait for it."""
        return msgspec.json.encode(model_list(self._catalog))

    def _listed(self, patterns: tuple[str, ...]) -> bytes:
        """Return the list for principals that may ask for some models only."""
        return msgspec.json.encode(model_list(self._catalog, Principal(id="any", models=patterns)))


def model_list(catalog: Catalog, principal: Principal | None = None) -> dict[str, Any]:
    """Return the document of ``GET /v1/models``, with what a principal may ask for."""
    return {
        "object": "list",
        "data": [_model(name, targets[0], targets) for name, targets in catalog.models_of(principal)],
    }


def _model(name: str, first: Target, targets: Any) -> dict[str, Any]:
    contract = {} if first.contract is None else {"contract": _without_nulls(msgspec.to_builtins(first.contract))}
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": first.upstream,
        "upstreams": [f"{target.upstream}/{target.model}" for target in targets],
        **contract,
    }


def _without_nulls(node: Any) -> Any:
    """Return a document without the members that say nothing."""
    if isinstance(node, dict):
        return {name: _without_nulls(value) for name, value in node.items() if value is not None}
    return [_without_nulls(value) for value in node] if isinstance(node, list) else node
