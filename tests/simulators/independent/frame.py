"""The frame of an independent simulator: parse, refuse by name, note what came, serve pictures."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEY = "sk-independent"


class Refused(Exception):
    """The request breaks the contract."""

    def __init__(self, why: str, status: int = 422) -> None:
        super().__init__(why)
        self.why, self.status = why, status


def need(holds: object, why: str, status: int = 422) -> None:
    """Refuse unless `holds`."""
    if not holds:
        raise Refused(why, status)


def only(fields: Mapping[str, Any], *names: str) -> None:
    """Refuse unknown fields, and members that are null."""
    for name, value in fields.items():
        need(name in names, f"unknown field {name}")
        need(value is not None, f"{name} is null")


def whole(fields: Mapping[str, Any], name: str, least: int, most: int) -> None:
    """Refuse anything but an integer in bounds, where the field came."""
    value = fields.get(name, least)
    need(type(value) is int and least <= value <= most, f"{name} must be an integer from {least} to {most}: {value!r}")


def one_of(fields: Mapping[str, Any], name: str, *values: object) -> None:
    """Refuse other values, where the field came."""
    need(name not in fields or fields[name] in values, f"{name} must be one of {values}: {fields.get(name)!r}")


def pixels(size: str, sign: str = "x") -> tuple[int, int]:
    """Width and height, strictly as the provider writes them."""
    found = re.fullmatch(rf"([1-9]\d*){re.escape(sign)}([1-9]\d*)", size)
    need(found, f"size must be <width>{sign}<height>: {size!r}")
    assert found
    return int(found[1]), int(found[2])


def shaped(ratio: str, area: int, sign: str = ":") -> tuple[int, int]:
    """Pixels of a ratio at an area."""
    wide, high = (float(part) for part in ratio.split(sign))
    height = round((area * high / wide) ** 0.5 / 16) * 16
    return round(height * wide / high / 16) * 16, height


def reference(value: object) -> bytes:
    """A picture by link or by data URL, opened as the provider would."""
    need(isinstance(value, str), f"a reference must be a string: {type(value).__name__}")
    assert isinstance(value, str)
    if value.startswith("data:"):
        found = re.fullmatch(r"data:image/(png|jpeg|webp|gif);base64,([A-Za-z0-9+/]+=*)", value)
        need(found, f"a data URL must be data:image/<lower case>;base64,...: {value[:40]!r}")
        assert found
        content = base64.b64decode(found[2], validate=True)
        need(form_of(content) == found[1], "the data URL lies about its type")
    else:
        need(value.startswith(("https://", "http://")), f"a reference must be a link or data URL: {value[:40]!r}")
        with urllib.request.urlopen(value, timeout=10) as reply:
            content = reply.read()
        form_of(content)
    return content


def form_of(content: bytes) -> str:
    """Its media subtype."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return (image.format or "").lower()
    except OSError:
        raise Refused("not a picture") from None


@dataclass
class Call:
    """A request as the contract's reader sees it."""

    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: dict[str, Any]
    files: list[tuple[str, bytes]]
    is_form: bool
    base: str


@dataclass
class Provider:
    """One simulator; a dialect fills `post` and, for tasks, `get`."""

    envelope: Callable[[str, int], Any]
    authorize: Callable[[Mapping[str, str]], bool]
    post: Callable[[Call], Response]
    get: Callable[[Call], Response] | None = None
    calls: list[Call] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)
    tasks: dict[str, Any] = field(default_factory=dict)
    serial: Any = field(default_factory=lambda: itertools.count(1))

    def picture(self, size: tuple[int, int], form: str = "png") -> bytes:
        """Another one each time; in an eighth of its size, since the pixels are of no interest here."""
        size = (max(size[0] // 8, 1), max(size[1] // 8, 1))
        place, encoded = next(self.serial), io.BytesIO()
        Image.new("RGB", size, (place % 256, place * 7 % 256, 99)).save(encoded, form.replace("jpg", "jpeg"))
        return encoded.getvalue()

    def link(self, call: Call, content: bytes) -> str:
        """A signed link to a picture, whose query must come back to the letter."""
        name = f"{len(self.pictures)}"
        self.pictures[name] = content
        return f"{call.base}/signed/{name}?se=2026-11-30T00%3A00%3A00Z&sig=a%2Bb%2Fc%3D"

    def base64(self, content: bytes) -> str:
        """As text."""
        return base64.b64encode(content).decode()

    def app(self) -> Starlette:
        """The server."""

        async def signed(request: Request) -> Response:
            if "sig=a%2Bb%2Fc%3D" not in str(request.url.query):
                self.refused.append(f"the signed link was changed: {request.url}")
                return Response("changed", 403)
            for name in ("authorization", "x-key", "api-key"):
                if name in request.headers:
                    self.refused.append(f"the key was sent to a signed link ({name})")
            content = self.pictures[request.path_params["name"]]
            return Response(content, media_type=f"image/{form_of(content)}")

        async def every(request: Request) -> Response:
            try:
                call = await self._read(request)
                need(self.authorize(request.headers), "the key is missing", 401)
                if request.method == "POST":
                    self.calls.append(call)
                    return self.post(call)
                need(self.get is not None, "no such path", 404)
                assert self.get is not None
                return self.get(call)
            except Refused as refusal:
                self.refused.append(f"{request.method} {request.url.path}: {refusal.why}")
                return JSONResponse(self.envelope(refusal.why, refusal.status), refusal.status)

        async def away(request: Request) -> Response:
            known = self.authorize(request.headers) and request.url.query.startswith("pos=%2F1")
            self.cancelled.append(f"{request.method} {request.path_params['name']}" if known else f"{request.url}")
            return JSONResponse({"id": request.path_params["name"], "status": "canceled"}, 202)

        return Starlette(
            routes=[
                Route("/away/{name}", away, methods=["POST", "PUT"]),
                Route("/signed/{name}", signed),
                Route("/{path:path}", every, methods=["GET", "POST", "PUT"]),
            ]
        )

    async def _read(self, request: Request) -> Call:
        kind = request.headers.get("content-type", "")
        body: dict[str, Any] = {}
        files: list[tuple[str, bytes]] = []
        if kind.startswith("multipart/form-data"):
            async with request.form(max_part_size=2**24) as form:
                for name, value in form.multi_items():
                    if isinstance(value, UploadFile):
                        content = await value.read()
                        need(value.content_type == f"image/{form_of(content)}", f"{name} is {value.content_type}")
                        files.append((name, content))
                    else:
                        need(name not in body, f"{name} came twice")
                        body[name] = value
        elif request.method == "POST":
            need(kind.partition(";")[0] == "application/json", f"unsupported type {kind!r}", 415)
            body = json.loads(await request.body())
            need(isinstance(body, dict), "not an object")
        base = f"{request.url.scheme}://{request.url.netloc}"
        return Call(
            request.url.path, request.headers, request.query_params, body, files, kind.startswith("multipart"), base
        )


def bearer(headers: Mapping[str, str]) -> bool:
    """The usual key."""
    return headers.get("authorization") == f"Bearer {KEY}"
