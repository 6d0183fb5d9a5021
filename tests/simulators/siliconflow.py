"""SiliconFlow: ``image_size`` in place of ``size``, and edits on the path of generations.

Source: docs.siliconflow.cn, "images/generations" (2026-11). Bodies of errors as its error page shows them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import TextDialect, refuse
from tests.simulators.strict_json import (
    BLOCKED_WORD,
    FAILING_WORD,
    HIDDEN_WORD,
    LIMITED_WORD,
    Check,
    HostedSimulator,
    between,
    check_members,
    pixels,
)

from imagegate.demo.providers.common import RefusedError
from imagegate.demo.providers.incoming import Incoming

_KOLORS: Final = ("1024x1024", "960x1280", "768x1024", "720x1440", "720x1280")
_QWEN: Final = ("1328x1328", "1664x928", "928x1664", "1472x1140", "1140x1472", "1584x1056", "1056x1584")
_COMMON: Final[Mapping[str, Check]] = {
    "model": str,
    "prompt": str,
    "negative_prompt": str,
    "seed": between(0, 9_999_999_999),
    "num_inference_steps": between(1, 100),
}
_MODELS: Final[Mapping[str, Mapping[str, Check]]] = {
    "Kwai-Kolors/Kolors": {
        "image_size": _KOLORS,
        "batch_size": between(1, 4),
        "guidance_scale": between(0, 20, (int, float)),
    },
    "Qwen/Qwen-Image": {"image_size": _QWEN, "cfg": between(0.1, 20, (int, float))},
    "Qwen/Qwen-Image-Edit": {"image": str, "cfg": between(0.1, 20, (int, float))},
    "Qwen/Qwen-Image-Edit-2509": {"image": str, "image2": str, "image3": str, "cfg": between(0.1, 20, (int, float))},
}


class _Dialect(TextDialect):
    """``{code, message, data}``; a wrong key is answered by a JSON string."""

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(401, '"Invalid token"')

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(status, "404 page not found")


def _invalid(name: str, reason: str) -> RefusedError:
    return refuse(400, code=20015, message=f"The parameter is invalid. {name} {reason}", data=None)


def create_app() -> Starlette:
    """The stand-in for https://api.siliconflow.cn."""
    return _SiliconFlow().app


class _SiliconFlow(HostedSimulator):
    def __init__(self) -> None:
        super().__init__({("POST", "/v1/images/generations"): self._generate}, _Dialect())

    async def _generate(self, incoming: Incoming) -> Response:
        fields: dict[str, Any] = incoming.fields or {}
        own = _MODELS.get(str(fields.get("model")))
        if own is None:
            raise refuse(400, code=20012, message="Model does not exist. Please check it carefully.", data=None)
        required = ["prompt", "image_size" if "image_size" in own else "image"]
        check_members(fields, {**_COMMON, **own}, _invalid, required=required)
        prompt = fields["prompt"]
        if LIMITED_WORD in prompt:
            raise refuse(
                429, message="Request was rejected due to rate limiting. Details: RPM limit reached.", data=None
            )
        if BLOCKED_WORD in prompt:
            raise refuse(451, code=20060, message="The prompt was rejected by content moderation.", data=None)
        if FAILING_WORD in prompt:
            raise refuse(503, code=50505, message="Model service overloaded. Please try again later.", data=None)
        if HIDDEN_WORD in prompt:
            return JSONResponse({"code": 50507, "message": "Unknown error.", "data": None})
        images = [fields[name] for name in ("image", "image2", "image3") if name in fields]
        self.read_references(images, _invalid, "image")
        width, height = pixels(fields.get("image_size", "1024x1024")) or (0, 0)
        made = [{"url": self.link(incoming, width, height, prompt)} for _ in range(fields.get("batch_size", 1))]
        document = {"images": made, "timings": {"inference": 1.5}, "seed": fields.get("seed", 7)}
        return JSONResponse({**document, "created": int(time.time())})
