"""References: the images that a request points at, in the form that the contract wants."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from imagegate.errors import RequestError
from imagegate.fit import REFERENCE_FIELDS
from imagegate.layers.base import Layer

MAX_URL_LENGTH = 8192
"""Characters."""


class References(Layer):
    """Checks that references are links which a provider can load, before anything is sent."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = await self.exchange(scope, receive)
        fields = exchange.request.fields
        for name in (*REFERENCE_FIELDS, "mask_url"):
            value = fields.get(name)
            for url in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
                check_link(name, url)
        await self.forward(scope, exchange, receive, send)


def check_link(field: str, url: object) -> None:
    """Raises `RequestError` where `url` is not an http(s) link."""
    try:
        parts = urlsplit(url) if isinstance(url, str) and len(url) <= MAX_URL_LENGTH else None
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise RequestError(
            f"'{field}' must hold http or https links of at most {MAX_URL_LENGTH} characters.",
            param=field,
            code="invalid_url",
        )
