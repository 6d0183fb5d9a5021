"""OpenRouter: its Images API, and chat completions with pictures in messages.

Sources: openrouter 1.3.84 (PyPI); openrouter.ai/docs, "Image Generation" and "Errors" (2026-11).
"""

from __future__ import annotations

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
    at_most,
    between,
    check_members,
)

from imagegate.demo.providers.common import RefusedError, names
from imagegate.demo.providers.incoming import Incoming

WORDY_WORD: Final = "wordless"
"""A prompt with this word is answered with words and no picture."""
_RATIOS: Final = tuple(
    sorted(
        names(
            "1:1 1:2 1:4 1:8 2:1 2:3 2.35:1 3:2 3:4 4:1 4:3 4:5 5:2 5:4 5:7 7:5 8:1 9:16 16:9 9:19.5 19.5:9 9:20 20:9"
            " 9:21 21:9 auto"
        )
    )
)
_MODELS: Final = ("google/gemini-3-pro-image", "openai/gpt-image-2", "black-forest-labs/flux.2-pro")
_STREAMING: Final = "openai/gpt-image-2"
_USAGE: Final = {"prompt_tokens": 10, "completion_tokens": 1120, "total_tokens": 1130, "cost": 0.04}


def _failure(status: int, message: str, **metadata: Any) -> RefusedError:
    error = {"code": status, "message": message, **({"metadata": metadata} if metadata else {})}
    return refuse(status, error=error, user_id="user_1")


def _invalid(name: str, reason: str) -> RefusedError:
    return _failure(400, f"Invalid input: {name} {reason}")


class _Dialect(TextDialect):
    """``{error: {code, message, metadata}}``, the code the status."""

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        return _failure(401, "No auth credentials found" if not key else "User not found.")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return _failure(404, "Not Found")


def create_app() -> Starlette:
    """The stand-in for https://openrouter.ai."""
    return _OpenRouter().app


class _OpenRouter(HostedSimulator):
    def __init__(self) -> None:
        super().__init__(
            {("POST", "/api/v1/images"): self._images, ("POST", "/api/v1/chat/completions"): self._chat}, _Dialect()
        )

    async def _images(self, incoming: Incoming) -> Response:
        fields: dict[str, Any] = incoming.fields or {}
        known = {
            "model": str,
            "prompt": str,
            "aspect_ratio": _RATIOS,
            "resolution": ("512", "768", "1K", "1.5K", "2K", "4K"),
            "size": str,
            "n": between(1, 10),
            "quality": ("auto", "low", "medium", "high", "xhigh", "max"),
            "background": ("auto", "transparent", "opaque"),
            "output_format": ("png", "jpeg", "webp", "svg"),
            "output_compression": between(0, 100),
            "input_references": list,
            "seed": int,
            "stream": bool,
            "user": str,
            "provider": dict,
            "session_id": at_most(256),
            "trace": dict,
        }
        check_members(fields, known, _invalid, required=["model", "prompt"])
        if fields.get("n", 1) > 1:
            raise _failure(400, "This model supports n=1 only.")
        self._refuse_by_words(fields["model"], fields["prompt"])
        self.read_references(list(map(_link_of, fields.get("input_references", []))), _invalid, "input_references")
        item = {"b64_json": _picture(fields["prompt"], fields.get("output_format", "png")), "media_type": "image/png"}
        if fields.get("stream") and fields["model"] == _STREAMING:
            return StreamingResponse(_events(item), media_type="text/event-stream")
        data = [] if WORDY_WORD in fields["prompt"] else [item]
        return JSONResponse({"created": int(time.time()), "data": data, "usage": _USAGE})

    async def _chat(self, incoming: Incoming) -> Response:
        fields: dict[str, Any] = incoming.fields or {}
        known = {
            "model": str,
            "messages": list,
            "modalities": lambda value: value in (["image"], ["image", "text"], ["text", "image"]),
            "image_config": dict,
            "seed": int,
            "stream": (False,),
            "user": str,
            "provider": dict,
            "session_id": at_most(256),
            "trace": dict,
        }
        check_members(fields, known, _invalid, required=["model", "messages", "modalities"])
        sizes = {"aspect_ratio": tuple(each for each in _RATIOS if each != "auto"), "image_size": ("1K", "2K", "4K")}
        check_members(fields.get("image_config", {}), sizes, _invalid)
        (message,) = fields["messages"]
        check_members(message, {"role": ("user",), "content": list}, _invalid, required=["role", "content"])
        *images, text = message["content"]
        check_members(text, {"type": ("text",), "text": str}, _invalid, required=["type", "text"])
        self.read_references(list(map(_link_of, images)), _invalid, "messages")
        prompt = text["text"]
        if HIDDEN_WORD in prompt:
            error = {"code": 502, "message": "The provider behind it gave up.", "metadata": {"provider_name": "x"}}
            return JSONResponse({"id": "gen-1", "choices": [{"error": error, "finish_reason": "error"}]})
        self._refuse_by_words(fields["model"], prompt)
        answer: dict[str, Any] = {"role": "assistant", "content": "Here is your picture."}
        if WORDY_WORD not in prompt:
            url = f"data:image/png;base64,{_picture(prompt, 'png')}"
            answer["images"] = [{"type": "image_url", "image_url": {"url": url}, "index": 0}]
        choice = {"index": 0, "finish_reason": "stop", "message": answer}
        shown = {"id": "gen-1", "object": "chat.completion", "created": int(time.time()), "model": fields["model"]}
        return JSONResponse({**shown, "provider": "Google", "choices": [choice], "usage": _USAGE})

    @staticmethod
    def _refuse_by_words(model: str, prompt: str) -> None:
        if model not in _MODELS:
            raise _failure(400, f"{model} is not a valid model ID")
        if LIMITED_WORD in prompt:
            raise _failure(429, "Rate limit exceeded: requests per minute.", headers={"X-RateLimit-Remaining": "0"})
        if BLOCKED_WORD in prompt:
            raise _failure(403, "Your input was flagged", reasons=["violence"], flagged_input=prompt[:100])
        if "suspended" in prompt:
            raise _failure(403, "This key is not allowed to use the model.")
        if FAILING_WORD in prompt:
            raise _failure(502, "Provider returned error", provider_name="x", raw="out of memory")
        if HIDDEN_WORD in prompt:
            raise refuse(200, error={"code": 408, "message": "The request timed out."})


async def _events(item: dict[str, Any]) -> AsyncIterator[bytes]:
    kind = "image_generation."
    yield _frame({"type": f"{kind}partial_image", "partial_image_index": 0, "b64_json": item["b64_json"]})
    yield _frame({"type": f"{kind}completed", "created": int(time.time()), "usage": _USAGE, **item})
    yield b"data: [DONE]\n\n"


def _frame(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def _link_of(part: Any) -> Any:
    check_members(part, {"type": ("image_url",), "image_url": dict}, _invalid, required=["type", "image_url"])
    check_members(part["image_url"], {"url": str}, _invalid, required=["url"])
    return part["image_url"]["url"]


def _picture(prompt: str, form: str) -> str:
    content = picture(64, 64, prompt=prompt, seed=1, form=form)
    return base64.b64encode(content).decode()
