"""Idempotency keys: parsing, fingerprints of requests, and which responses are recorded. Pure but for the
reading of files.

The header is ``Idempotency-Key``, as in Stripe's API and the IETF draft "The Idempotency-Key HTTP Header Field". The
official OpenAI SDKs send it where a caller sets it (``extra_headers``), and the same one with every retry.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import msgspec
from starlette.types import Scope

from imagegate.asgi.helpers import header
from imagegate.contracts.changes import Change
from imagegate.errors import ContentWithheld, FetchError, ImagegateError, RequestError, StorageError, UpstreamError
from imagegate.protocol.messages import FileID, ImageRequest, Link, Reference
from imagegate.spool.upload import Upload
from imagegate.telemetry.exchange import ResponseFormat
from imagegate.telemetry.progress import Progress

HEADER: Final = b"idempotency-key"
_KEY: Final = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def key_of(scope: Scope) -> str | None:
    """Return the key that a client sent. Raises `RequestError` where it cannot be used."""
    if header(scope, HEADER) is None:
        return None
    values: set[bytes] = {value for name, value in scope["headers"] if name == HEADER}
    value = values.pop()
    if values or not _KEY.fullmatch(value):
        raise RequestError(
            "The header Idempotency-Key must be 1 to 255 printable ASCII characters, and must not be repeated.",
            param="Idempotency-Key",
            code="invalid_idempotency_key",
        )
    return value.decode()


def client_of(scope: Scope, authorization: str | None) -> str:
    """Return what a client is known by: its ``Authorization``, else the address that it connects from.

    Neither can begin like the other: no header field contains a line break.
    """
    client: Any = scope.get("client")
    return authorization or (f"\n{client[0]}" if client else "")


def slot_of(client: str, endpoint: str, key: str) -> str:
    """Return the slot of a key, separate for each client."""
    digest = hashlib.sha256()
    for part in (client, endpoint, key):
        content = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()


async def fingerprint(request: ImageRequest) -> str:
    """Return what two requests must share to be the same: operation, members, and what references are or lead to.

    The body's own bytes do not count: a form's boundary is another one each time.
    """
    document = {
        "operation": request.operation,
        "fields": request.fields,
        "images": [await _known_by(image) for image in request.images],
        "mask": await _known_by(request.mask),
        "markup": await _known_by(request.markup),
    }
    return hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()


async def _known_by(reference: Reference | None) -> list[str] | None:
    if isinstance(reference, Upload):
        return ["file", reference.media_type, await reference.sha256()]
    if isinstance(reference, Link):
        return ["link", reference.url]
    return ["id", reference.id] if isinstance(reference, FileID) else None


class KeyReused(RequestError):
    """The key was used with another body, so the recorded response is another request's."""

    status = 409
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used for a request with another body. Use a new key for a new request.",
            param="Idempotency-Key",
        )


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the gateway's headers and records say about a response."""

    upstream: str = ""
    upstream_model: str = ""
    upstream_request_id: str = ""
    contract: bool = True
    changes: tuple[Change, ...] = ()
    images_delivered: int = 0
    form: ResponseFormat | None = None
    task_state: str = ""
    provenance: str = ""
    link_base: str = ""
    error_code: str = ""
    outcome: str = ""

    @classmethod
    def of(cls, progress: Progress) -> Facts:
        return cls(**{name: getattr(progress, name) for name in cls.__struct_fields__})

    def copy_to(self, progress: Progress) -> None:
        """Write them down as the facts of another exchange with the same answer."""
        for name in self.__struct_fields__:
            if name != "changes":
                setattr(progress, name, getattr(self, name))
        progress.reply_changes = self.changes


RECORD_VERSION: Final = 1
"""Of `KeptReply` as it is kept; raised where an older gateway could not read it."""


class KeptReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer that is replayed; its body is held here or, where it is large or carries base64, among the blobs."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    blob: str = ""
    size: int = 0
    """Bytes of the body."""
    facts: Facts = Facts()


def error_reply(error: ImagegateError, progress: Progress) -> KeptReply:
    """Return an error as the answer that it becomes."""
    facts = Facts.of(progress)
    facts = msgspec.structs.replace(
        facts,
        error_code=error.code or error.type,
        outcome=error.outcome if isinstance(error, UpstreamError) else facts.outcome,
    )
    if progress.upstream:
        error.details.setdefault("upstream", progress.upstream)
    body = error.body()
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    headers += [(name.decode("latin-1"), value.decode("latin-1")) for name, value in error.headers]
    return KeptReply(status=error.status, headers=tuple(headers), body=body.decode(), size=len(body), facts=facts)


def is_kept(error: BaseException, *, sent: bool) -> bool:
    """Return whether a failure is replayed, as trying again may pay again; else the key is free for another try."""
    if not sent:
        return False
    if isinstance(error, UpstreamError):
        return error.outcome == "uncertain"
    return isinstance(error, (StorageError, FetchError, ContentWithheld)) or not isinstance(error, ImagegateError)


def goes_inline(body: bytes) -> bool:
    """Return whether a small body may stand beside its key: it is text, and carries no base64."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"b64_json" not in body and b";base64," not in body


def described(headers: Any) -> tuple[tuple[str, str], ...]:
    """Return ASGI headers as text."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
