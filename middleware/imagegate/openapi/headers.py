"""Header fields of requests and responses, as the document describes them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}

REQUEST_HEADERS: Final[Mapping[str, tuple[str, Schema]]] = {
    "Idempotency-Key": (
        (
            "Requests of a client to an endpoint with the same key are one request: it is sent once, and its answer is"
            " repeated."
        ),
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    ),
    "Imagegate-Explain": (
        "`?1`: answer with the request that would be sent to the provider, and send nothing.",
        {"enum": ["?0", "?1"]},
    ),
    "x-request-id": (
        "Identifies the request: up to 128 letters, digits and `._:/+=-`; anything else is replaced.",
        _TEXT,
    ),
    "traceparent": ("W3C Trace Context; a malformed one is ignored.", _TEXT),
    "tracestate": ("Goes upstream beside `traceparent`.", _TEXT),
}
"""Name -> meaning and schema. ``Authorization`` is a security scheme."""

RESPONSE_HEADERS: Final[Mapping[str, tuple[str, Schema]]] = {
    "Idempotency-Replayed": ("`true`: the answer is that of an earlier request with this key.", {"enum": ["true"]}),
    "Imagegate-Changes": ("What reached the provider otherwise than it was asked for: an RFC 9651 list.", _TEXT),
    "Imagegate-Contract": ("`none`: nothing is known of what the model accepts.", {"enum": ["none"]}),
    "Imagegate-Provenance": ("Marks of provenance in the images, such as `c2pa`, and whether they were kept.", _TEXT),
    "Imagegate-Upstream": ("The upstream that answered, or was asked last.", _TEXT),
    "Location": ("Path of the task.", _TEXT),
    "Retry-After": ("Seconds.", _COUNT),
    "x-ratelimit-limit-images": ("Images of the limit that is nearest to its end.", _COUNT),
    "x-ratelimit-limit-requests": ("Requests of the limit that is nearest to its end.", _COUNT),
    "x-ratelimit-remaining-images": ("Images that are left of it.", _COUNT),
    "x-ratelimit-remaining-requests": ("Requests that are left of it.", _COUNT),
    "x-ratelimit-reset-images": ("Time until all of it is there again, such as `6m0s`.", _TEXT),
    "x-ratelimit-reset-requests": ("Time until all of it is there again, such as `6m0s`.", _TEXT),
    "x-request-id": ("The client's, else a new one.", _TEXT),
    "x-should-retry": ("`false`: a repetition may be paid for again; the official SDKs obey.", {"enum": ["false"]}),
}
"""Name -> meaning and schema."""


def parameters(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return header parameters of an operation."""
    return [
        {
            "name": name,
            "in": "header",
            "description": REQUEST_HEADERS[name][0],
            "schema": dict(REQUEST_HEADERS[name][1]),
        }
        for name in names
    ]


def headers(names: Iterable[str]) -> dict[str, Any]:
    """Return the header fields of a response, by reference; none of them is always there."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def header_components() -> dict[str, Any]:
    """Return what `headers` refers to."""
    return {
        name: {"description": meaning, "schema": dict(schema)} for name, (meaning, schema) in RESPONSE_HEADERS.items()
    }
