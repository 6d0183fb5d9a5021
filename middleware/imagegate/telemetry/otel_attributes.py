"""What spans say, as attributes of OpenTelemetry. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from imagegate.protocol.usage import tokens_by_kind
from imagegate.telemetry.record import ExchangeRecord

AttributeValue = str | bool | int | float | list[str]
OPERATIONS: Final[Mapping[str, str]] = {
    "generations": "image_generation",
    "edits": "image_edit",
    "variations": "image_variation",
}
"""Endpoint -> ``gen_ai.operation.name``."""
PROVIDERS: Final[Mapping[str, str]] = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "openai": "openai",
    "vertex": "gcp.vertex_ai",
    "xai": "x_ai",
}
"""Adapter -> ``gen_ai.provider.name``, where the conventions have a name of their own."""
DURATION_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKEN_BUCKETS: Final = (1, 16, 64, 256, 1024, 2048, 4096, 8192, 16384, 65536)
_LONGEST: Final = 128
"""Characters of a name that a client chose."""


def tokens(usage: Any) -> dict[str, int]:
    """Return ``input`` and ``output`` tokens of a provider's usage, where it tells them."""
    if not isinstance(usage, Mapping):
        return {}
    sums: dict[str, int] = {}
    for kind, count in tokens_by_kind(usage).items():
        direction = "input" if kind.startswith(("input", "cached")) else "output"
        sums[direction] = sums.get(direction, 0) + int(count)
    return sums


def record_attributes(record: ExchangeRecord, operation: str, provider: str) -> dict[str, AttributeValue]:
    """Return what the span of an exchange says at its end; absent values are left out.

    Args:
        operation: as in `OPERATIONS`; empty: it is about no image.
        provider: that was asked last.
    """
    made = list(dict.fromkeys(record.sizes_made))
    every: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": record.model[:_LONGEST],
        "gen_ai.response.model": record.upstream_model[:_LONGEST],
        "gen_ai.output.type": "image" if operation else "",
        "error.type": record.error_code,
        "imagegate.request_id": record.request_id,
        "imagegate.outcome": record.outcome_class,
        "imagegate.upstream": record.upstream,
        "imagegate.upstream.request_id": record.upstream_request_id[:_LONGEST],
        "imagegate.route": record.route,
        "imagegate.key": record.key_name,
        "imagegate.user": record.user,
        "imagegate.size.asked": record.size_asked[:_LONGEST],
        "imagegate.size.made": made,
        "imagegate.changes": list(dict.fromkeys(f"{each.field} {each.kind}" for each in record.changes)),
        "imagegate.images.asked": record.images_asked,
        "imagegate.images.made": record.images_made,
        "imagegate.images.delivered": record.images_delivered,
        "imagegate.bytes.in": record.bytes_in,
        "imagegate.bytes.out": record.bytes_out,
        "imagegate.attempts": record.attempts,
        "imagegate.fallbacks": record.fallbacks,
        "imagegate.idempotent": record.idempotent,
        "imagegate.task.state": record.task_state,
        "imagegate.streamed": record.streamed,
        "imagegate.cost": record.cost,
        "imagegate.cost.currency": record.currency,
        "http.response.status_code": record.status,
        **{f"gen_ai.usage.{kind}_tokens": count for kind, count in tokens(record.usage).items()},
    }
    return {name: value for name, value in every.items() if value not in ("", 0, None, []) and value is not False}


def operation_attributes(facts: Mapping[str, Any], operation: str = "") -> dict[str, AttributeValue]:
    """Return what the facts of an operation are called.

    Args:
        operation: of the exchange; empty: the operation is none of generative AI.
    """
    attributes: dict[str, Any] = {}
    if (account := facts.get("account")) is not None:
        server = urlsplit(account.origin)
        attributes["imagegate.upstream"] = account.name
        attributes["server.address"] = server.hostname or ""
        attributes["server.port"] = server.port or (443 if server.scheme == "https" else 80)
        if operation:
            adapter = account.adapter.name
            attributes["gen_ai.operation.name"] = operation
            attributes["gen_ai.provider.name"] = PROVIDERS.get(adapter, adapter)
            attributes["gen_ai.output.type"] = "image"
    names = {
        "model": "gen_ai.request.model",
        "host": "server.address",
        "port": "server.port",
        "task_id": "imagegate.upstream.task_id",
        "polls": "imagegate.polls",
        "images": "imagegate.images",
        "number": "imagegate.part",
        "size": "imagegate.bytes",
        "is_delivered": "imagegate.webhook.delivered",
    }
    for fact, name in names.items():
        if (value := facts.get(fact)) not in (None, ""):
            attributes[name] = value[:_LONGEST] if isinstance(value, str) else value
    for kind, count in tokens(facts.get("usage")).items():
        attributes[f"gen_ai.usage.{kind}_tokens"] = count
    return attributes
