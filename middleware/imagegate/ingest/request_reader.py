"""Reads a client's request, JSON or form, into one typed exchange."""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.types import Receive, Scope

from imagegate.asgi.azure_paths import DEPLOYMENT
from imagegate.asgi.helpers import header, read_body
from imagegate.contracts.contract import Operation
from imagegate.errors import AuthenticationError, RequestError, UnsupportedMedia
from imagegate.ingest.form_reader import Form, FormLimits, read_form
from imagegate.protocol.messages import Exchange, FileID, ImageRequest, Link, Reference
from imagegate.protocol.references import MAX_LINK, Source, check_link, data_url, references_of
from imagegate.protocol.requests import read_form_fields, read_json
from imagegate.spool.budget import Budget, default_budget
from imagegate.spool.upload import Upload
from imagegate.telemetry.progress import PROGRESS_KEY, Progress

_EXPLAIN: Final = b"imagegate-explain"
_FORM: Final = b"multipart/form-data"


class ReadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Size limits of a request."""

    json_body: int = 32 * 1024**2
    """Bytes."""
    prompt: int = 32_000
    """Characters."""
    form: FormLimits = FormLimits()


DEFAULT_LIMITS: Final = ReadLimits()


async def read_exchange(
    scope: Scope, receive: Receive, *, limits: ReadLimits = DEFAULT_LIMITS, budget: Budget | None = None
) -> Exchange:
    """Read and validate the body of a request. The caller must call `close_uploads`.

    Raises:
        RequestError: invalid request; names the field.
        Overloaded: the upload budget is used up.
        ClientDisconnected: before the body was complete.
    """
    progress: Progress = scope[PROGRESS_KEY]
    operation: Operation = progress.endpoint  # type: ignore[assignment]
    # Reject an invalid header before the body is read.
    progress.explained = wants_explanation(scope)
    content_type = header(scope, b"content-type") or b"application/json"
    budget = budget or default_budget()
    media_type = content_type.split(b";", 1)[0].strip().lower()
    if media_type == _FORM:
        form = await read_form(content_type, receive, limits=limits.form, budget=budget)
        request = request_of_form(form, operation, max_prompt=limits.prompt, deployment=scope.get(DEPLOYMENT, ""))
    elif media_type == b"application/json" or media_type.endswith(b"+json"):
        body = await read_body(receive, limit=limits.json_body)
        request = read_json(body, operation, max_prompt=limits.prompt, deployment=scope.get(DEPLOYMENT, ""))
        if operation != "generations":
            request = await _with_references(request, budget)
        _check_or_close(request)
    else:
        raise UnsupportedMedia(
            f"The body must be application/json or multipart/form-data, not '{media_type.decode('latin-1')[:64]}'.",
        )
    return exchange_of(scope, request)


def exchange_of(scope: Scope, request: ImageRequest) -> Exchange:
    """Return the exchange for the layers below, and record its model and fields."""
    progress: Progress = scope[PROGRESS_KEY]
    progress.model = request.model
    progress.images_asked = request.n
    progress.size_asked = str(request.fields.get("size", ""))
    if request.references:
        uploads = [reference for reference in request.references if isinstance(reference, Upload)]
        progress.upload_count, progress.upload_bytes = len(uploads), sum(upload.size or 0 for upload in uploads)
    if progress.capture:
        progress.capture.ask(request)
    authorization = header(scope, b"authorization")
    key = authorization.decode("latin-1") if authorization else None
    if key is not None and not (key.isascii() and key.isprintable()):
        raise AuthenticationError("Incorrect API key provided: it contains invalid characters.")
    return Exchange(
        request=request,
        public_model=request.model,
        operation=request.operation,
        explain=progress.explained,
        authorization=key,
    )


def close_uploads(request: ImageRequest) -> None:
    """Release all files of a request."""
    for reference in request.references:
        if isinstance(reference, Upload):
            reference.close()


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
        close_uploads(request)
        raise
    request = msgspec.structs.replace(request, fields=fields)
    _check_or_close(request)
    return request


async def _with_references(request: ImageRequest, budget: Budget) -> ImageRequest:
    """Return the references of a JSON edit, out of its fields; data URLs become files."""
    fields, sources, mask_source = references_of(request.fields)
    opened: list[Upload] = []
    try:
        images = [await reference(source, budget, opened) for source in sources]
        mask = await reference(mask_source, budget, opened) if mask_source else None
    except BaseException:
        for upload in opened:
            upload.close()
        raise
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
        close_uploads(request)
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


def wants_explanation(scope: Scope) -> bool:
    """Return an RFC 9651 boolean; reject anything else, so that a malformed header never leads to a billed request."""
    if header(scope, _EXPLAIN) is None:
        return False
    values = {value.strip() for name, value in scope["headers"] if name == _EXPLAIN}
    if values not in ({b"?0"}, {b"?1"}):
        raise RequestError("The header Imagegate-Explain must be ?1 or ?0.", param="Imagegate-Explain")
    return values == {b"?1"}
