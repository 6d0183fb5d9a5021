"""``GET /v1/models`` and ``/v1/models/{id}``: what can be asked for, who answers, and what they accept."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from imagegate.asgi.helpers import route_path, send_json
from imagegate.layers.base import Layer, Work
from imagegate.protocol.messages import Target
from imagegate.routing.catalog import Catalog


class Models(Layer):
    """Lists the catalog in OpenAI's shape, or one model of it; every other endpoint goes to the layer below.

    ``recommended_for=image`` (TokenLab's query) is taken; every model here is for images.
    """

    def __init__(self, app: Layer, *, catalog: Catalog, prefix: str = "/v1") -> None:
        super().__init__(app, prefix=prefix)
        self._catalog = catalog
        self._list = msgspec.json.encode(model_list(catalog))

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Work:
        return self._answer(scope, send) if scope["method"] == "GET" else self.down(scope, receive, send)

    async def _answer(self, scope: Scope, send: Send) -> None:
        """Raise `ModelNotFound`."""
        model = route_path(scope)[len(self.prefix) :].removeprefix("/models").strip("/")
        body = self._list
        if model:
            targets = self._catalog.resolve(model)
            body = msgspec.json.encode(_model(model, targets[0], targets))
        await send_json(send, 200, body)


def model_list(catalog: Catalog) -> dict[str, Any]:
    """Return the document of ``GET /v1/models``."""
    return {
        "object": "list",
        "data": [_model(name, targets[0], targets) for name, targets in catalog.models()],
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
