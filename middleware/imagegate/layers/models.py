"""``GET /v1/models``: what can be asked for, who answers, and what they accept."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from imagegate.asgi.helpers import send_json
from imagegate.layers.base import Layer, Work
from imagegate.protocol.messages import Target
from imagegate.routing.catalog import Catalog


class Models(Layer):
    """Lists the catalog in OpenAI's shape; every other endpoint goes to the layer below.

    ``recommended_for=image`` (TokenLab's query) is taken; every model here is for images.
    """

    def __init__(self, app: Layer, *, catalog: Catalog, prefix: str = "/v1") -> None:
        super().__init__(app, prefix=prefix)
        self._body = msgspec.json.encode(model_list(catalog))

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Work:
        return send_json(send, 200, self._body) if scope["method"] == "GET" else self.down(scope, receive, send)


def model_list(catalog: Catalog) -> dict[str, Any]:
    """Return the document of ``GET /v1/models``."""
    return {
        "object": "list",
        "data": [_model(name, targets[0], targets) for name, targets in catalog.models()],
    }


def _model(name: str, first: Target, targets: Any) -> dict[str, Any]:
    contract = msgspec.to_builtins(first.contract) if first.contract else None
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": first.upstream,
        "upstreams": [f"{target.upstream}/{target.model}" for target in targets],
        "contract": contract,
    }
