"""LocalAI: OpenAI's generations with references inside, a path of its own for masks, and no edits.

Source: LocalAI, core/http/endpoints/openai/image.go and inpainting.go, core/http/app.go (82c191a, 2026-08).
"""

from __future__ import annotations

import itertools
import time
import uuid
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.simulators.base import (
    Repainted,
    Simulator,
    TextDialect,
    decode_base64,
    is_picture,
    picture,
    picture_base64,
    refuse,
)

from imagegate.demo.providers.common import RefusedError, names
from imagegate.demo.providers.frame import has_bearer_key, is_open
from imagegate.demo.providers.incoming import Incoming

MODELS: Final = ("flux.1-dev", "stablediffusion")
FAILURE_WORD: Final = "backend-failure"

_READ: Final = names("model prompt n size response_format step seed file files ref_images")
_INPAINTING: Final = ("model", "prompt", "steps")
_INPAINTING_FILES: Final = ("image", "mask")


class _Dialect(TextDialect):
    """``{"error": {code, message, type}}``, the code a number; messages of the framework say it once more."""

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        error = {"code": 401, "message": "An authentication key is required", "type": "invalid_request_error"}
        return refuse(401, error=error)

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return _failure(status, "Resource not found" if status == 404 else "code=405, message=Method Not Allowed")


def _failure(code: int, message: str) -> RefusedError:
    return refuse(code, error={"code": code, "message": message, "type": ""})


def _bad_request(message: str = "Bad Request") -> RefusedError:
    return _failure(400, f"code=400, message={message}")


def create_app(*, has_key: bool = False) -> Starlette:
    """A server with two image models."""
    return _LocalAI(has_key=has_key).app


class _LocalAI(Simulator):
    def __init__(self, *, has_key: bool) -> None:
        self._files: dict[str, bytes] = {}
        self._random = itertools.count(1)
        super().__init__(
            {
                ("POST", "/v1/images/generations"): self._generate,
                ("POST", "/v1/images/inpainting"): self._inpaint,
                ("GET", "/v1/models"): self._models,
            },
            dialect=_Dialect(),
            is_authorized=has_bearer_key if has_key else is_open,
            open_routes=[Route("/generated-images/{name}", self._file)],
        )
        self.references: list[list[bytes]] = []
        self.app.state.references = self.references
        self.app.state.prompts = self.prompts = list[tuple[str, str]]()

    async def _models(self, incoming: Incoming) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})

    async def _file(self, request: Any) -> Response:
        content = self._files.get(request.path_params["name"])
        return Response(content, media_type="image/png") if content else Response(status_code=404)

    async def _generate(self, incoming: Incoming) -> Response:
        fields = incoming.fields
        if fields is None or incoming.is_form:
            raise _bad_request("Syntax error: offset=1, error=invalid character")
        model = fields.get("model")
        if not model or not isinstance(model, str):
            raise _bad_request()
        if model not in MODELS:
            raise _failure(500, f"could not load model - all backends returned error: {model}")
        if not isinstance(fields.get("n", 1), int):
            raise _bad_request("Unmarshal type error: expected=int, got=string, field=n")
        self.drop(fields, _READ)
        self.references.append([self._input(text) for text in _inputs(fields) if self._input(text)])
        width, height = self._size(fields.get("size") or "")
        prompt = str(fields.get("prompt", ""))
        positive, _, negative = prompt.partition("|")
        self.prompts.append((positive, negative))
        if FAILURE_WORD in positive:
            raise _failure(500, "rpc error: code = Unknown desc = failed to generate image")
        seed = fields.get("seed")
        seeds = [next(self._random) if seed is None else seed for _ in range(fields.get("n") or 1)]
        base64 = fields.get("response_format") == "b64_json"
        data = [self._item(incoming, base64, width, height, positive, seed) for seed in seeds]
        return JSONResponse({"created": int(time.time()), "id": str(uuid.uuid4()), "data": data, "usage": _USAGE})

    def _item(self, incoming: Incoming, base64: bool, width: int, height: int, prompt: str, seed: int) -> Any:
        if base64:
            return {"b64_json": picture_base64(width, height, prompt=prompt, seed=seed)}
        name = f"b64{uuid.uuid4().int % 10**9}.png"
        self._files[name] = picture(width, height, prompt=prompt, seed=seed)
        return {"url": f"{incoming.origin}/generated-images/{name}"}

    def _input(self, text: str) -> bytes:
        """What is neither a link nor bare base64 is dropped."""
        if text.startswith(("http://", "https://")):
            return text.encode()
        content = decode_base64(text)
        if content is None or not is_picture(content):
            self.dropped.append("ref_images")
            return b""
        return content

    def _size(self, size: str) -> tuple[int, int]:
        if "x" not in size:
            if size:
                self.dropped.append("size")
            return 512, 512
        sides = size.split("x")
        if len(sides) != 2 or not all(side.isdecimal() for side in sides):
            raise _failure(500, "invalid value for 'size'")
        return int(sides[0]), int(sides[1])

    async def _inpaint(self, incoming: Incoming) -> Response:
        """Always 512x512, and always a link."""
        texts = dict(incoming.texts)
        if not texts.get("model") or not texts.get("prompt"):
            raise _bad_request()
        files = {file.name: file.data for file in incoming.files}
        for name in _INPAINTING_FILES:
            if name not in files:
                raise _bad_request(f"missing {name} file")
        self.drop(texts, _INPAINTING)
        self.drop([file.name for file in incoming.files], _INPAINTING_FILES)
        self.repainted.append(Repainted(files["mask"], by="white"))
        item = self._item(incoming, False, 512, 512, texts["prompt"], next(self._random))
        return JSONResponse({"created": int(time.time()), "id": str(uuid.uuid4()), "data": [item]})


_USAGE: Final = {
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}


def _inputs(fields: dict[str, Any]) -> list[str]:
    found = [fields["file"]] if fields.get("file") else []
    for name in ("files", "ref_images"):
        value = fields.get(name) or []
        if not isinstance(value, list):
            raise _bad_request(f"Unmarshal type error: expected=[]string, got=string, field={name}")
        found += value
    return [str(item) for item in found]
