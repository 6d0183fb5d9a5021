"""Describes the request to a provider without sending it (``imagegate-explain``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from imagegate.adapter import FilePart, FileRef, InlineFile, TextPart, UpstreamRequest
from imagegate.protocol.messages import LinkedFile
from imagegate.spool.body_chunks import sha256_of
from imagegate.upstream.account import REDACTED, Account
from imagegate.upstream.sending import content_of, fields_of


async def explanation(
    upstream: Account, request: UpstreamRequest, *, authorization: str | None, changes: Any
) -> dict[str, Any]:
    """Describe a request: without keys, and with the name, type, size and SHA-256 of each file."""
    _, more = content_of(request)
    url = upstream.url(request.path)
    fields: Sequence[tuple[str, str]] = fields_of(request, upstream.shown_headers(authorization), more)
    url, fields = upstream.client.completed(url, fields)
    url = upstream.base.redacted(url, upstream.client.secrets)
    added = upstream.client.added_headers
    headers = {name: REDACTED if name.lower() in added else value for name, value in fields}
    body: Any = msgspec.json.decode(request.body) if request.body else await _shown_document(request.document)
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
    return {"name": part.name, **await _file(part.upload), "filename": part.filename}


async def _shown_document(node: Any) -> Any:
    if isinstance(node, InlineFile):
        return await _file(node.upload)
    if isinstance(node, Mapping):
        return {name: await _shown_document(value) for name, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [await _shown_document(value) for value in node]
    return node


async def _file(file: FileRef) -> dict[str, Any]:
    if isinstance(file, LinkedFile):
        return {"filename": file.filename, "fetched_from": file.url}
    return {
        "filename": file.filename,
        "type": file.media_type,
        "size": file.size,
        "sha256": await sha256_of(file),
    }
