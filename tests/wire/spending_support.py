"""A provider that counts what it bills, and a gateway whose keys have budgets."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from typing import Any, Final

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.wire.field_support import SMALL

GENERATIONS: Final = "/v1/images/generations"
PRICE: Final = 0.04
TOKEN_PRICE: Final = 0.01
"""Of an image that is charged by token."""


class CountingProvider:
    """Bills each image that it makes; the prompt says how it answers.

    ``refuse`` 429, nothing is made; ``break`` it is made, and the connection breaks; ``silent break`` nothing is made,
    but who asks cannot know; ``slow`` half a second; ``tokens`` the reply has a usage.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.billed: Counter[str] = Counter()
        """Images by ``Authorization``."""
        self.requests = 0
        self.is_holding = False
        """Whether requests that say ``held`` wait."""
        self.seconds = seconds
        self.app = Starlette(routes=[Route(GENERATIONS, self._answer, methods=["POST"])])

    @property
    def total(self) -> int:
        return sum(self.billed.values())

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        self.requests += 1
        prompt, images = body["prompt"], body.get("n", 1)
        if "refuse" in prompt:
            error = {"message": "busy", "type": "requests", "code": "rate_limit_exceeded"}
            return JSONResponse({"error": error}, 400 if "hard" in prompt else 429)
        await asyncio.sleep(0.5 if "slow" in prompt else self.seconds)
        while "held" in prompt and self.is_holding:
            await asyncio.sleep(0.01)
        if "silent break" in prompt:
            raise ConnectionResetError
        self.billed[body.get("user", "")] += images
        if "break" in prompt:
            return Response(b'{"created": 1, "data": [{"b64_json": "iVB', media_type="application/json")
        data: list[dict[str, Any]] = [{"b64_json": base64.b64encode(SMALL).decode()} for _ in range(images)]
        if "in part" in prompt:
            data[1:] = [{"error": {"code": "content_policy_violation", "message": "No."}}] * (images - 1)
        reply: dict[str, Any] = {"created": 1, "data": data}
        if "tokens" in prompt:
            reply["usage"] = {"input_tokens": 0, "output_tokens": 1000 * images, "total_tokens": 1000 * images}
        return JSONResponse(reply)


def config(port: int, store: str, **more: Any) -> dict[str, Any]:
    """A gateway in front of the provider, with prices."""
    return {
        "upstreams": [
            {
                "name": "p",
                "adapter": "openai",
                "base_url": f"http://127.0.0.1:{port}",
                "api_key": "sk-provider",
                "models": {
                    "flat": {"family": "gpt-image-2"},
                    "token": {"family": "gpt-image-2"},
                    "single": {"family": "gpt-image-2", "parameters": {"n": {"type": "integer", "min": 1, "max": 1}}},
                },
            }
        ],
        "prices": {
            "models": {
                "flat": {"image": PRICE},
                "single": {"image": PRICE},
                "token": {"tokens": {"output": TOKEN_PRICE * 1000}, "reserve": 0.05},
            }
        },
        "delivery": {"store": f"file://{store}"},
        "policy": {"retries": 0, "breaker_failures": 0},
        **more,
    }


def body(prompt: str = "A cat", model: str = "flat", **more: Any) -> dict[str, Any]:
    """A request for an image."""
    return {"model": model, "prompt": prompt, "response_format": "b64_json", **more}


def ask(web: httpx.Client, key: str, prompt: str = "A cat", model: str = "flat", /, **more: Any) -> httpx.Response:
    """Send a request with a key."""
    return web.post(GENERATIONS, json=body(prompt, model, **more), headers={"authorization": f"Bearer {key}"})
