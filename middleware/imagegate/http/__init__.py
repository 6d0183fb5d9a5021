"""The outgoing HTTP client, and the one package that names it.

What the rest of imagegate needs to know about a failed request is a single fact: can the server have
seen it? `NotSent` says no, `Interrupted` says perhaps; nothing else is raised for a failing network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from imagegate.http.client import HTTPClient, close, iter_body, read_body
from imagegate.http.messages import (
    CHUNK,
    DEFAULT_TIMEOUTS,
    Body,
    BodyTooLarge,
    Interrupted,
    NotSent,
    Response,
    Timeouts,
)
from imagegate.http.transports.aiohttp_transport import AiohttpTransport

if TYPE_CHECKING:
    import httpx

    Transport: TypeAlias = httpx.AsyncBaseTransport
    """The seam: one method that sends one request. `httpx.AsyncHTTPTransport` and `httpx.MockTransport` fit."""

__all__ = [
    "CHUNK",
    "DEFAULT_TIMEOUTS",
    "AiohttpTransport",
    "Body",
    "BodyTooLarge",
    "HTTPClient",
    "Interrupted",
    "NotSent",
    "Response",
    "Timeouts",
    "close",
    "iter_body",
    "read_body",
]
