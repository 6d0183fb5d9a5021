"""The outgoing HTTP client, and the one package that names it.

What the rest of imagegate needs to know about a failed request is a single fact: can the server have
seen it? `NotSent` says no, `Interrupted` says perhaps; nothing else is raised for a failing network.
"""

from imagegate.http.client import (
    DEFAULT_TIMEOUTS,
    BodyTooLarge,
    HTTPClient,
    Interrupted,
    NotSent,
    Response,
    Timeouts,
    Transport,
    close,
    iter_body,
    read_body,
)
from imagegate.http.transport import CHUNK, AiohttpTransport

__all__ = [
    "CHUNK",
    "DEFAULT_TIMEOUTS",
    "AiohttpTransport",
    "BodyTooLarge",
    "HTTPClient",
    "Interrupted",
    "NotSent",
    "Response",
    "Timeouts",
    "Transport",
    "close",
    "iter_body",
    "read_body",
]
