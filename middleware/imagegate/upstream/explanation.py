"""What would be sent to a provider, told without sending it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from imagegate.adapter import FilePart, TextPart, UpstreamRequest
from imagegate.spool.body_chunks import sha256_of
from imagegate.upstream.account import Account
from imagegate.upstream.sending import content_of


async def explanation(
    upstream: Account, request: UpstreamRequest, *, authorization: str | None, changes: Any
) -> dict[str, Any]:
    """What would be sent, for people: keys are not shown, files are told by name, type, size and SHA-256."""
    _, more = content_of(request)
    url = upstream.url(request.path)
    fields: Sequence[tuple[str, str]] = [*upstream.headers(authorization), *more]
    url, fields = upstream.client.completed(url, fields)
    url = upstream.base.redacted(url, upstream.client.secrets)
    added = upstream.client.added_headers
    headers = {
        name: "[redacted]" if name.lower() in added else "Bearer [redacted]" if name == "authorization" else value
        for name, value in fields
    }
    body: Any = msgspec.json.decode(request.body) if request.body else None
    if request.parts:
        body = [await _shown(part) for part in request.parts]
    return {
        "upstream": upstream.name,
        "method": request.method,
        "url": url,
        "headers": headers,
        "body": body,
        "changes": changes,
    }


async def _shown(part: TextPart | FilePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"name": part.name, "value": part.value}
    return {
        "name": part.name,
        "filename": part.upload.filename,
        "type": part.upload.media_type,
        "size": part.upload.size,
        "sha256": await sha256_of(part.upload),
    }
