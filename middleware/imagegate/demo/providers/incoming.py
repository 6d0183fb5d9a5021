"""Requests as the stand-ins see them: read to the end once, recorded, handed to the provider's own code."""

from __future__ import annotations

import io
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from PIL import Image
from starlette.datastructures import State, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.demo.providers.common import FormPart, ReceivedRequest, RefusedError

KEPT_REQUESTS: Final = 1000
KEPT_BYTES: Final = 64 * 1024 * 1024
"""How much `app.state.received` remembers: requests, and bytes of JSON. The oldest go first."""

_SCOPE_KEY: Final = "imagegate.demo.incoming"
_FORM_TYPES: Final = ("multipart/form-data", "application/x-www-form-urlencoded")
_NUMBERS: Final = {"n", "output_compression", "compression", "partial_images", "seed"}
_FLAGS: Final = {"stream", "async"}
_BAD_JSON: Final = "We could not parse the JSON body of your request. The API expects a JSON object."


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file of a form, wholly in memory."""

    name: str
    filename: str
    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What the head of an image file says: Pillow's format name, size in pixels, alpha or not."""

    form: str
    width: int
    height: int
    has_alpha: bool


def inspect_picture(data: bytes) -> PictureFacts | None:
    """Return the facts of an image file, read from its head without decoding pixels; None when it is no image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            return PictureFacts(image.format or "", image.width, image.height, alpha)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


@dataclass(slots=True)
class Incoming:
    """One request, read to its end. `fields` is None when the body is neither a JSON object nor a form."""

    method: str
    path: str
    headers: dict[str, str]
    origin: str
    """Scheme and authority as the client wrote them, for URLs in replies."""

    request_id: str
    is_form: bool = False
    fields: dict[str, object] | None = None
    files: tuple[UploadedFile, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    """The text parts of a form as they were sent, repeated names too; `fields` has the last of each, typed."""
    problem: str = _BAD_JSON
    query: dict[str, str] = field(default_factory=dict[str, str])
    path_params: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def key(self) -> str:
        """The bearer key, or an empty string."""
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""

    def json_fields(self) -> dict[str, object]:
        """Return the members of the JSON body; every other body is refused in OpenAI's words."""
        return self.any_fields() if not self.is_form else self._wrong_type("application/json")

    def form_fields(self) -> dict[str, object]:
        """Return the text parts of the form; every other body is refused in OpenAI's words."""
        return self.any_fields() if self.is_form else self._wrong_type("multipart/form-data")

    def any_fields(self) -> dict[str, object]:
        """Members or text parts, for the paths that take both forms of body."""
        if self.fields is None:
            raise RefusedError(self.problem)
        return self.fields

    def _wrong_type(self, expected: str) -> dict[str, object]:
        given = self.headers.get("content-type", "").partition(";")[0]
        message = f"Unsupported content type: '{given}'. This API method only accepts '{expected}' requests."
        raise RefusedError(message, code="unsupported_content_type")


def incoming_of(request: Request) -> Incoming:
    """Return the request as the recorder read it, with the path parameters that the router has found since."""
    incoming: Incoming = request.scope[_SCOPE_KEY]
    incoming.path_params = {name: str(value) for name, value in request.path_params.items()}
    return incoming


class Recorder:
    """ASGI middleware that reads every request to its end, notes it in `state.received`, and passes it on.

    It is outermost, so that requests for unknown paths and with wrong keys are noted too.
    The oldest requests are forgotten beyond `kept_requests`, and where their JSON has more than `kept_bytes`.
    """

    def __init__(
        self, app: ASGIApp, *, state: State, kept_requests: int = KEPT_REQUESTS, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._app = app
        self._state = state
        self._kept_requests = kept_requests
        self._kept_bytes = kept_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            incoming, received = await _read(Request(scope, receive))
        except ClientDisconnect:
            return None
        self._note(received)
        return await self._app({**scope, _SCOPE_KEY: incoming}, receive, send)

    def _note(self, received: ReceivedRequest) -> None:
        kept: list[ReceivedRequest] = self._state.received
        self._state.requests_seen += 1
        kept.append(received)
        while len(kept) > self._kept_requests or (len(kept) > 1 and _json_bytes(kept) > self._kept_bytes):
            del kept[0]


def _json_bytes(requests: Iterable[ReceivedRequest]) -> int:
    return sum(request.size for request in requests if request.json is not None)


async def _read(request: Request) -> tuple[Incoming, ReceivedRequest]:
    headers = {name.lower(): value for name, value in request.headers.items()}
    incoming = Incoming(
        method=request.method,
        path=request.url.path,
        headers=headers,
        origin=f"{request.url.scheme}://{headers.get('host', request.url.netloc)}",
        request_id=secrets.token_hex(10),
        query=dict(request.query_params),
        is_form=headers.get("content-type", "").lower().startswith(_FORM_TYPES),
    )
    body = await request.body()
    document: object = None
    parts: tuple[FormPart, ...] = ()
    if incoming.is_form:
        parts = await _read_form(request, incoming)
    elif body:
        document = _decode(body)
        if isinstance(document, dict):
            incoming.fields = {str(name): value for name, value in document.items()}
    return incoming, ReceivedRequest(incoming.method, incoming.path, headers, document, parts, len(body))


def _decode(body: bytes) -> object:
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document


async def _read_form(request: Request, incoming: Incoming) -> tuple[FormPart, ...]:
    parts: list[FormPart] = []
    files: list[UploadedFile] = []
    texts: list[tuple[str, str]] = []
    fields: dict[str, object] = {}
    try:
        async with request.form(max_files=64, max_fields=256) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    file = UploadedFile(name, value.filename or "", value.content_type or "", await value.read())
                    files.append(file)
                    parts.append(FormPart(name, None, file.filename, file.content_type, len(file.data)))
                else:
                    texts.append((name, value))
                    fields[name] = _typed(name, value)
                    parts.append(FormPart(name, value, None, None, len(value.encode())))
    except (MultiPartException, HTTPException, KeyError, ValueError):
        incoming.problem = "We could not parse the multipart form of your request."
        return ()
    incoming.fields, incoming.files, incoming.texts = fields, tuple(files), tuple(texts)
    return tuple(parts)


def _typed(name: str, text: str) -> object:
    """Form values are text; fields that are numbers or flags in JSON are read as such where they can be."""
    if name in _NUMBERS and re.fullmatch(r"-?[0-9]{1,9}", text, re.ASCII):
        return int(text)
    if name in _FLAGS and text in ("true", "false"):
        return text == "true"
    return text
