"""Reads a client's request, JSON or form, into one typed exchange."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Final

import msgspec
from starlette.types import Receive, Scope

from imagegate.asgi.azure_paths import DEPLOYMENT
from imagegate.asgi.helpers import header, read_body, too_large
from imagegate.contracts.contract import Operation
from imagegate.errors import AuthenticationError, RequestError, UnsupportedMedia
from imagegate.ingest.form_reader import Form, FormLimits, read_form
from imagegate.protocol.messages import Exchange, FileID, HeldMemory, ImageRequest, Link, Reference
from imagegate.protocol.references import MAX_LINK, Source, check_link, data_url, references_of
from imagegate.protocol.requests import read_form_fields, read_json
from imagegate.spool.budget import Budget, default_budget
from imagegate.spool.memory import Memory
from imagegate.spool.upload import Upload
from imagegate.telemetry.progress import PROGRESS_KEY, Progress

_EXPLAIN: Final = b"imagegate-explain"
_FORM: Final = b"multipart/form-data"
_COPIES: Final = 2
"""Times that a JSON body is in memory: as it came, and as what it says."""
_FORM_WINDOW: Final = 256 * 1024
"""Bytes of a form that are in memory while its files go to disk."""


class ReadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Size limits of a request."""

    json_body: int = 32 * 1024**2
    """Bytes."""
    prompt: int = 32_000
    """Characters."""
    form: FormLimits = FormLimits()


DEFAULT_LIMITS: Final = ReadLimits()


class RequestHead(msgspec.Struct, frozen=True, kw_only=True):
    """What the header fields of a request say of its body."""

    content_type: bytes
    media_type: bytes
    """The same without parameters, in lower case."""
    is_form: bool
    length: int | None
    """Bytes; None: unknown."""
    encodings: tuple[bytes, ...]
    """Values of ``Content-Encoding``."""
    explain: bool
    """Whether the request is only to be explained."""


async def read_exchange(
    scope: Scope,
    receive: Receive,
    head: RequestHead | None = None,
    *,
    limits: ReadLimits = DEFAULT_LIMITS,
    budget: Budget | None = None,
    memory: Memory | None = None,
) -> Exchange:
    """Read and validate the body of a request. The caller must call `release`.

    Args:
        head: of the request, where it is known.

    Raises:
        RequestError: invalid request; names the field.
        Overloaded: the upload budget is used up, or that of memory, which is asked before anything is read.
        ClientDisconnected: before the body was complete.
    """
    progress: Progress = scope[PROGRESS_KEY]
    operation: Operation = progress.endpoint  # type: ignore[assignment]
    head = head or head_of(scope)
    progress.explained = head.explain
    length = head.length
    budget = budget or default_budget()
    held: HeldMemory | None
    if head.is_form:
        held = reserve_for_form(memory, length)
        try:
            form = await read_form(head.content_type, receive, limits=limits.form, budget=budget, held=held)
            request = request_of_form(form, operation, max_prompt=limits.prompt, deployment=scope.get(DEPLOYMENT, ""))
        except BaseException:
            _close(held)
            raise
    elif head.media_type == b"application/json" or head.media_type.endswith(b"+json"):
        if length is not None and length > limits.json_body:
            raise too_large(limits.json_body, endless=False)
        held = None if memory is None else memory.reserve(_COPIES * (length or 0))
        try:
            counted = partial(_count_piece, held) if held is not None and length is None else None
            body = await read_body(receive, limit=limits.json_body, counted=counted)
            request = read_json(body, operation, max_prompt=limits.prompt, deployment=scope.get(DEPLOYMENT, ""))
            if operation != "generations":
                request = await _with_references(request, budget, held)
                _check_or_close(request)
        except BaseException:
            _close(held)
            raise
    else:
        shown = head.media_type.decode("latin-1")[:64]
        raise UnsupportedMedia(f"The body must be application/json or multipart/form-data, not '{shown}'.")
    return exchange_of(scope, request, held)


def reserve_for_form(memory: Memory | None, length: int | None) -> HeldMemory | None:
    """Return what a form of so many bytes holds in memory; its files are the spool's. Raises `Overloaded`."""
    if memory is None:
        return None
    return memory.reserve(_FORM_WINDOW if length is None else min(length, _FORM_WINDOW))


def _count_piece(held: HeldMemory, size: int) -> None:
    held.take(_COPIES * size)


def _close(held: HeldMemory | None) -> None:
    if held is not None:
        held.close()


def exchange_of(scope: Scope, request: ImageRequest, held: HeldMemory | None = None) -> Exchange:
    """Return the exchange for the layers below, and record its model and fields.

    Args:
        scope: of the request.
        request: as it was read.
        held: what it holds in memory.
    """
    if held is not None:
        request = msgspec.structs.replace(request, held=held)
    progress: Progress = scope[PROGRESS_KEY]
    progress.model = model = request.model
    progress.images_asked = request.n
    progress.size_asked = str(request.fields.get("size", ""))
    if references := request.references:
        uploads = [reference for reference in references if isinstance(reference, Upload)]
        progress.upload_count, progress.upload_bytes = len(uploads), sum(upload.size or 0 for upload in uploads)
    if progress.capture:
        progress.capture.ask(request)
    principal = progress.principal
    # A credential of the gateway or of its host goes nowhere else.
    is_ours = principal is not None and bool(progress.owner)
    authorization = None if is_ours else header(scope, b"authorization")
    key = authorization.decode("latin-1") if authorization else None
    if key is not None and not (key.isascii() and key.isprintable()):
        raise AuthenticationError("Incorrect API key provided: it contains invalid characters.")
    return Exchange(
        request=request,
        public_model=model,
        operation=request.operation,
        explain=progress.explained,
        authorization=key,
        owner=progress.owner,
        tenant=progress.tenant,
        upstream_keys={} if principal is None else principal.upstream_keys,
    )


def retain(request: ImageRequest) -> None:
    """Keep what a request holds, files and memory, for work that outlives it; `release` must follow."""
    for reference in request.references:
        if isinstance(reference, Upload):
            reference.retain()
    if request.held is not None:
        request.held.retain()


def release(request: ImageRequest) -> None:
    """Give back what a request holds, as the last of its holders."""
    for reference in request.references:
        if isinstance(reference, Upload):
            reference.close()
    if request.held is not None:
        request.held.close()


def request_of_form(form: Form, operation: Operation, *, max_prompt: int, deployment: str = "") -> ImageRequest:
    """Return a complete form as a request, which owns its files. Releases them and raises `RequestError` if invalid."""
    request = ImageRequest(
        operation=operation,
        fields={},
        images=tuple(form.images),
        mask=form.mask,
        markup=form.markup,
        from_form=True,
    )
    try:
        fields = read_form_fields(form.fields, operation, max_prompt=max_prompt, deployment=deployment)
    except RequestError:
        release(request)
        raise
    request = msgspec.structs.replace(request, fields=fields)
    _check_or_close(request)
    return request


async def _with_references(request: ImageRequest, budget: Budget, held: HeldMemory | None) -> ImageRequest:
    """Return the references of a JSON edit, out of its fields; data URLs become files, and are not held any more."""
    fields, sources, mask_source = references_of(request.fields)
    opened: list[Upload] = []
    try:
        images = [await reference(source, budget, opened) for source in sources]
        mask = await reference(mask_source, budget, opened) if mask_source else None
    except BaseException:
        for upload in opened:
            upload.close()
        raise
    if held is not None:
        inline = [source.url for source in (*sources, mask_source) if source is not None and source.url is not None]
        held.give_back(_COPIES * sum(map(len, inline)))
    return msgspec.structs.replace(request, fields=fields, body=None, images=tuple(images), mask=mask)


async def reference(source: Source, budget: Budget, opened: list[Upload]) -> Reference:
    """Return a reference that was written in JSON; a file made for it is added to `opened`. Raises `RequestError`."""
    if source.file_id is not None:
        return FileID(source.file_id, source.member)
    url = source.url or ""
    inline = data_url(source.member, url)
    if inline is None:
        check_link(source.member, url, longest=MAX_LINK)
        return Link(url, source.member)
    name = f"upload.{inline.media_type.rpartition('/')[2] or 'png'}"
    upload = Upload(source.member, name, inline.media_type, budget=budget)
    opened.append(upload)
    await upload.write(inline.data)
    await upload.complete()
    return upload


def _check_or_close(request: ImageRequest) -> None:
    try:
        _check(request)
    except RequestError:
        release(request)
        raise


def _check(request: ImageRequest) -> None:
    if request.operation != "generations" and not request.images:
        name = "image" if request.from_form else "images"
        raise RequestError(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    for upload in request.references:
        if isinstance(upload, Upload) and upload.facts is None and not upload.declared_type.startswith("image/"):
            raise RequestError(
                f"'{upload.part}' is no image that can be read. Supported are PNG, JPEG and WebP.",
                param=upload.part,
                code="invalid_image_file",
            )


def head_of(scope: Scope) -> RequestHead:
    """Return what the header fields say, in one pass. Raises `RequestError` for a malformed ``Imagegate-Explain``."""
    content_type: bytes | None = None
    digits: bytes | None = None
    encodings: list[bytes] = []
    explain: list[bytes] = []
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value if content_type is None else content_type
        elif name == b"content-length":
            digits = value if digits is None else digits
        elif name == b"content-encoding":
            encodings.append(value)
        elif name == _EXPLAIN:
            explain.append(value)
    content_type = content_type or b"application/json"
    media_type = content_type.split(b";", 1)[0].strip().lower()
    return RequestHead(
        content_type=content_type,
        media_type=media_type,
        is_form=media_type == _FORM,
        length=int(digits[:20]) if digits is not None and digits.isdigit() else None,
        encodings=tuple(encodings),
        explain=bool(explain) and _is_true(explain),
    )


def _is_true(explain: Collection[bytes]) -> bool:
    """Return an RFC 9651 boolean; reject anything else, so that a malformed header never leads to a billed request."""
    values = {value.strip() for value in explain}
    if values not in ({b"?0"}, {b"?1"}):
        raise RequestError("The header Imagegate-Explain must be ?1 or ?0.", param="Imagegate-Explain")
    return values == {b"?1"}
