"""Ollama's experimental images: OpenAI's path for generations, edits in a JSON body with one picture, one picture made.

Sources: Ollama, middleware/openai.go (077a50b, 2026-08) and openai/openai.go (requests, and how a picture may come).
"""

from __future__ import annotations

import itertools
import json
import re
import time
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import Simulator, TextDialect, decode_base64, is_picture, picture_base64, refuse

from imagegate.demo.providers.common import RefusedError
from imagegate.demo.providers.incoming import Incoming

MODELS: Final = ("x/z-image-turbo", "x/flux2-klein")
FAILURE_WORD: Final = "runner-failure"

_TYPES: Final = {400: "invalid_request_error", 404: "not_found_error"}
_GENERATION: Final = ("model", "prompt", "size", "seed", "options")
_EDIT: Final = (*_GENERATION, "image")
_KNOWN: Final[dict[str, tuple[type[Any], str]]] = {
    "model": (str, "string"),
    "prompt": (str, "string"),
    "size": (str, "string"),
    "response_format": (str, "string"),
    "image": (str, "string"),
    "n": (int, "int"),
    "seed": (int, "int64"),
}


class _Dialect(TextDialect):
    """OpenAI's envelope; paths that do not exist get plain text."""

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(status, "404 page not found" if status == 404 else "405 method not allowed")


def _failure(status: int, message: str) -> RefusedError:
    error = {"message": message, "type": _TYPES.get(status, "api_error"), "param": None, "code": None}
    return refuse(status, error=error)


def create_app() -> Starlette:
    """A server with two image models. It has no keys."""
    return _Ollama().app


class _Ollama(Simulator):
    def __init__(self) -> None:
        self._random = itertools.count(1)
        super().__init__(
            {
                ("POST", "/v1/images/generations"): self._generate,
                ("POST", "/v1/images/edits"): self._edit,
                ("GET", "/v1/models"): self._models,
            },
            dialect=_Dialect(),
        )
        self.sources: list[bytes] = []
        self.app.state.sources = self.sources

    async def _models(self, incoming: Incoming) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})

    async def _generate(self, incoming: Incoming) -> Response:
        fields = _bind(incoming, "ImageGenerationRequest")
        self.drop(fields, _GENERATION)
        return self._answer(fields)

    async def _edit(self, incoming: Incoming) -> Response:
        fields = _bind(incoming, "ImageEditRequest")
        if not fields.get("image"):
            raise _failure(400, "image is required")
        self.drop(fields, _EDIT)
        self.sources.append(_decoded(fields["image"]))
        return self._answer(fields)

    def _answer(self, fields: dict[str, Any]) -> Response:
        if fields["model"] not in MODELS:
            raise _failure(404, f"model '{fields['model']}' not found")
        if FAILURE_WORD in fields["prompt"]:
            raise _failure(500, "image runner has unexpectedly stopped")
        found = re.match(r"([+-]?[0-9]+)x([+-]?[0-9]+)", fields.get("size") or "")
        if fields.get("size") and found is None:
            self.dropped.append("size")
        width, height = (int(found[1]), int(found[2])) if found else (1024, 1024)
        if min(width, height) <= 0 or max(width, height) > 4096:
            raise _failure(400, "width and height must be between 1 and 4096")
        seed = fields["seed"] if fields.get("seed") is not None else next(self._random) * 1000
        data = [{"b64_json": picture_base64(width, height, prompt=fields["prompt"], seed=seed)}]
        return JSONResponse({"created": int(time.time()), "data": data})


def _bind(incoming: Incoming, struct: str) -> dict[str, Any]:
    """Go's decoder: unknown members pass, wrong types do not."""
    fields = incoming.fields
    if incoming.is_form:
        raise _failure(400, "invalid character '-' in numeric literal")
    if fields is None:
        raise _failure(400, "EOF" if not incoming.headers.get("content-length", "0").strip("0") else "invalid JSON")
    for name, (kind, word) in _KNOWN.items():
        value = fields.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            given = {str: "string", list: "array", dict: "object", bool: "bool"}.get(type(value), "number")
            message = f"json: cannot unmarshal {given} into Go struct field {struct}.{name} of type {word}"
            raise _failure(400, message)
    for name in ("prompt", "model"):
        if not fields.get(name):
            raise _failure(400, f"{name} is required")
    return json.loads(json.dumps(fields))


def _decoded(image: str) -> bytes:
    """A data URL of one of four types, or of none; links and bare base64 are refused."""
    if image.startswith(("http://", "https://")):
        words = "image URLs are not currently supported, please use base64 encoded data instead"
        raise _failure(400, f"invalid image: {words}")
    found = re.match(r"data:(?:image/(?:jpeg|jpg|png|webp))?;base64,", image)
    content = decode_base64(image[found.end() :]) if found else None
    if content is None:
        raise _failure(400, "invalid image: invalid image input")
    if not is_picture(content):
        raise _failure(500, "failed to decode image")
    return content
