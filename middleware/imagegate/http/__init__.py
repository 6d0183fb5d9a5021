"""The outgoing HTTP client, and the one package that names it.

What the rest of imagegate needs to know about a failed request is a single fact: can the server have
seen it? `NotSent` says no, `Interrupted` says perhaps; nothing else is raised for a failing network.
"""

from __future__ import annotations

from imagegate.http.client import HTTPClient, close, iter_body, read_body
from imagegate.http.messages import (
    CHUNK,
    DEFAULT_TIMEOUTS,
    Body,
    BodyTooLarge,
    Interrupted,
    NotSent,
    Request,
    Response,
    Timeouts,
    Transport,
    are_header_fields,
)
from imagegate.http.transports.aiohttp_transport import AiohttpTransport

__all__ = [
    "CHUNK",
    "DEFAULT_TIMEOUTS",
    "AiohttpTransport",
    "Body",
    "BodyTooLarge",
    "HTTPClient",
    "Interrupted",
    "NotSent",
    "Request",
    "Response",
    "Timeouts",
    "Transport",
    "are_header_fields",
    "close",
    "iter_body",
    "read_body",
]
