"""Requests of tasks, kept so that another process can do them: without keys of clients, and never with base64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.requests import HTTPConnection
from starlette.types import Scope

from imagegate.asgi.helpers import header
from imagegate.protocol.messages import Exchange, FileID, ImageRequest, Link, Reference
from imagegate.spool.budget import Budget
from imagegate.spool.upload import Upload
from imagegate.stores.blobs import Blobs, pieces_of, whole
from imagegate.tasks.records import KeptClient, KeptReference, KeptRequest
from imagegate.telemetry.progress import PROGRESS_KEY

_INLINE: Final = 16 * 1024
"""Bytes of JSON that stand in the record itself."""


async def keep_request(scope: Scope, exchange: Exchange, blobs: Blobs) -> KeptRequest:
    """Write the files of a request to the blobs. Raises `OSError`."""
    request = exchange.request
    fields: Mapping[str, Any] | None = request.fields
    encoded = msgspec.json.encode(fields)
    fields_blob = ""
    if len(encoded) > _INLINE or b'"data:' in encoded:
        fields, fields_blob = None, await blobs.put(pieces_of(encoded))
    return KeptRequest(
        operation=request.operation,
        fields=fields,
        fields_blob=fields_blob,
        images=tuple([await _keep(image, blobs) for image in request.images]),
        mask=await _keep(request.mask, blobs) if request.mask is not None else None,
        markup=await _keep(request.markup, blobs) if request.markup is not None else None,
        from_form=request.from_form,
        client=KeptClient.of(scope[PROGRESS_KEY]),
        scheme=HTTPConnection(scope).url.scheme,
        host=HTTPConnection(scope).url.netloc,
        root_path=scope.get("root_path", ""),
        path=scope["path"],
    )


async def _keep(reference: Reference, blobs: Blobs) -> KeptReference:
    if isinstance(reference, Link):
        return KeptReference(url=reference.url)
    if isinstance(reference, FileID):
        return KeptReference(file_id=reference.id)
    return KeptReference(
        blob=await blobs.put(reference.chunks()),
        part=reference.part,
        filename=reference.filename,
        quoted_name=reference.quoted_name,
        declared_type=reference.declared_type,
    )


async def exchange_of(kept: KeptRequest, model: str, blobs: Blobs, budget: Budget) -> Exchange:
    """Return the request as it was; `request_reader.release` must follow. Raises `OSError` where a file is gone."""
    fields = kept.fields
    if fields is None:
        fields = msgspec.json.decode(await whole(blobs.read(kept.fields_blob)))
    opened: list[Upload] = []
    try:
        request = ImageRequest(
            operation=kept.operation,
            fields=fields,
            images=tuple([await _reference(image, blobs, budget, opened) for image in kept.images]),
            mask=await _reference(kept.mask, blobs, budget, opened) if kept.mask else None,
            markup=await _reference(kept.markup, blobs, budget, opened) if kept.markup else None,
            from_form=kept.from_form,
        )
    except BaseException:
        for upload in opened:
            upload.close()
        raise
    client = kept.client
    return Exchange(
        request=request,
        public_model=model,
        operation=kept.operation,
        owner=client.owner,
        tenant=client.tenant,
        copies_links=True,
    )


async def _reference(kept: KeptReference, blobs: Blobs, budget: Budget, opened: list[Upload]) -> Reference:
    if kept.url:
        return Link(kept.url)
    if kept.file_id:
        return FileID(kept.file_id)
    upload = Upload(kept.part, kept.filename, kept.declared_type, budget=budget)
    upload.quoted_name = kept.quoted_name
    opened.append(upload)
    async for piece in blobs.read(kept.blob):
        await upload.write(piece)
    await upload.complete()
    return upload


def scope_of(kept: KeptRequest) -> Scope:
    """Return as much of the client's request as the layers below look at."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": kept.scheme,
        "path": kept.path,
        "raw_path": kept.path.encode(),
        "root_path": kept.root_path,
        "query_string": b"",
        "headers": [(b"host", kept.host.encode("latin-1"))],
        "server": None,
        "client": None,
    }


def without_body(scope: Scope) -> Scope:
    """Return the scope for work that outlives the request: without what describes or authorises it."""
    host = header(scope, b"host")
    return {**scope, "headers": [(b"host", host)] if host else []}
