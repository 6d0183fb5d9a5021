"""Seedream by Ark's Images API: a tier or pixels, a watermark unless it is refused, groups, and events of its own.

Sources: Volcengine Ark, "Image generation API" (mirror of 2026-07); byteplus-python-sdk-v2 3.0.63.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from tests.simulators.base import TextDialect, picture, refuse
from tests.simulators.strict_json import (
    BLOCKED_WORD,
    FAILING_WORD,
    HIDDEN_WORD,
    LIMITED_WORD,
    HostedSimulator,
    between,
    check_members,
    pixels,
)

from imagegate.demo.providers.common import RefusedError
from imagegate.demo.providers.incoming import Incoming

SPLIT_WORD: Final = "halved"
"""Of the group of such a prompt the last picture is withheld."""
_MODELS: Final = {
    "seedream-5-0-pro-260601": (921600, 4624220, ("1K", "1.5K", "2K"), 10),
    "seedream-5-0-260128": (3686400, 16777216, ("2K", "3K", "4K"), 14),
    "seedream-4-5-251128": (3686400, 16777216, ("2K", "4K"), 14),
    "seedream-4-0-250828": (921600, 16777216, ("1K", "2K", "4K"), 14),
}
_EDGES: Final = {"1K": 1024, "1.5K": 1536, "2K": 2048, "3K": 3072, "4K": 4096}
_PAUSE: Final = 0.05
"""Seconds between two pictures of a stream; the real server takes some for each."""
_SHOWN: Final = 64
"""Edge of the pictures that are made, whatever is said of them."""


def _failure(status: int, code: str, message: str, param: str = "") -> RefusedError:
    kind = {400: "BadRequest", 401: "Unauthorized", 429: "TooManyRequests"}.get(status, "InternalServerError")
    error = {"code": code, "message": f"{message} Request id: r", "param": param, "type": kind}
    return refuse(status, error=error)


def _invalid(name: str, reason: str) -> RefusedError:
    return _failure(400, "InvalidParameter", f"The parameter `{name}` specified in the request {reason}.", name)


class _Dialect(TextDialect):
    """``{error: {code, message, param, type}}``."""

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        return _failure(401, "AuthenticationError", "the API key or AK/SK in the request is missing or invalid.")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return _failure(404, "NotFound", "The requested resource is not found.")


def create_app() -> Starlette:
    """The stand-in for https://ark.ap-southeast.bytepluses.com."""
    return _Seedream().app


class _Seedream(HostedSimulator):
    def __init__(self) -> None:
        super().__init__({("POST", "/api/v3/images/generations"): self._generate}, _Dialect())
        self.app.state.watermarks = self.watermarks = list[bool]()

    async def _generate(self, incoming: Incoming) -> Response:
        fields: dict[str, Any] = incoming.fields or {}
        model = str(fields.get("model"))
        if model not in _MODELS:
            raise _failure(404, "InvalidEndpointOrModel.NotFound", f"The model or endpoint {model} does not exist.")
        fewest, most, tiers, references = _MODELS[model]
        is_pro = "pro" in model
        known: dict[str, Any] = {
            "model": str,
            "prompt": str,
            "image": lambda value: isinstance(value, str) or (isinstance(value, list) and len(value) <= references),
            "size": lambda value: value in tiers or _fits(value, fewest, most),
            "response_format": ("url", "b64_json"),
            "watermark": bool,
            "optimize_prompt_options": dict,
        }
        if not is_pro:
            known |= {"stream": bool, "sequential_image_generation": ("auto", "disabled")}
            known["sequential_image_generation_options"] = dict
        if "5-0" in model:
            known["output_format"] = ("png", "jpeg")
        check_members(fields, known, _invalid, required=["prompt"])
        prompt = fields["prompt"]
        self._refuse_by_words(prompt)
        images = fields.get("image", [])
        sources = self.read_references([images] if isinstance(images, str) else images, _invalid, "image")
        count = self._count(fields, len(sources))
        self.watermarks.append(fields.get("watermark", True))
        items = [self._item(incoming, fields, place) for place in range(count)]
        if SPLIT_WORD in prompt:
            message = "The request failed because the output image may contain sensitive information."
            items[-1] = {"error": {"code": "OutputImageSensitiveContentDetected", "message": message}}
        made = sum("error" not in item for item in items)
        usage = {"generated_images": made, "output_tokens": 4096 * made, "total_tokens": 4096 * made}
        if fields.get("stream"):
            return StreamingResponse(_events(model, items, usage), media_type="text/event-stream")
        return JSONResponse({"model": model, "created": int(time.time()), "data": items, "usage": usage})

    @staticmethod
    def _refuse_by_words(prompt: str) -> None:
        if LIMITED_WORD in prompt:
            raise _failure(429, "RateLimitExceeded.EndpointRPMExceeded", "The Requests Per Minute limit is exceeded.")
        if BLOCKED_WORD in prompt:
            raise _failure(
                400, "InputTextSensitiveContentDetected", "The input text may contain sensitive information."
            )
        if "risky" in prompt:
            raise _failure(400, "OutputImageRiskDetection", "The output image did not pass the review.")
        if FAILING_WORD in prompt:
            raise _failure(500, "InternalServiceError", "The service encountered an unexpected internal error.")
        if HIDDEN_WORD in prompt:
            raise _failure(200, "InternalServiceError", "The service encountered an unexpected internal error.")

    @staticmethod
    def _count(fields: dict[str, Any], references: int) -> int:
        options = fields.get("sequential_image_generation_options", {})
        check_members(options, {"max_images": between(1, 15)}, _invalid)
        if fields.get("sequential_image_generation") != "auto":
            return 1
        count = options.get("max_images", 15)
        if count + references > 15:
            raise _invalid("max_images", "is too large: references and pictures are 15 at most")
        return min(count, 3)  # as the model pleases

    def _item(self, incoming: Incoming, fields: dict[str, Any], place: int) -> dict[str, Any]:
        size = fields.get("size", "2K")
        edge = _EDGES.get(size)
        said = f"{edge}x{edge}" if edge else size
        form = fields.get("output_format", "jpeg")
        prompt = f"{fields['prompt']} {place}"
        if fields.get("response_format") == "b64_json":
            content = picture(_SHOWN, _SHOWN, prompt=prompt, seed=place, form=form)
            return {"b64_json": base64.b64encode(content).decode(), "size": said}
        return {"url": self.link(incoming, _SHOWN, _SHOWN, prompt, form=form), "size": said}


async def _events(model: str, items: list[dict[str, Any]], usage: dict[str, Any]) -> AsyncIterator[bytes]:
    created = int(time.time())
    for place, item in enumerate(items):
        if place:
            await asyncio.sleep(_PAUSE)
        name = f"image_generation.partial_{'failed' if 'error' in item else 'succeeded'}"
        yield _frame(name, {"type": name, "model": model, "created": created, "image_index": place, **item})
    name = "image_generation.completed"
    yield _frame(name, {"type": name, "model": model, "created": created, "usage": usage})
    yield b"data: [DONE]\n\n"


def _frame(name: str, document: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()


def _fits(value: Any, fewest: int, most: int) -> bool:
    size = pixels(value)
    return size is not None and fewest <= size[0] * size[1] <= most and max(size) <= 16 * min(size)
