"""xAI's Images API: a ratio and a tier, JSON edits, and moderation in a 200.

Sources: xai_sdk 1.21.0 and @ai-sdk/xai 5.0.12 (members, objects of edits, reply), docs.x.ai (ratios, tiers, number of
images), answers of the live API as third parties measured them (2026-08: ``size``, forms, qualities, 1.5k).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import Simulator, TextDialect, picture_base64, refuse
from tests.simulators.strict import (
    BUSY,
    EXPIRED,
    GRUESOME,
    Member,
    Shelf,
    edges,
    first_size,
    is_source,
    json_of,
    problems,
)

from imagegate.demo.providers.common import FORBIDDEN_WORD, RefusedError
from imagegate.demo.providers.frame import has_bearer_key
from imagegate.demo.providers.incoming import Incoming

MODELS: Final = ("grok-imagine-image", "grok-imagine-image-2.0")
RATIOS: Final = (
    *("auto", "1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3", "2:1", "1:2"),
    *("19.5:9", "9:19.5", "20:9", "9:20"),
)
_TIERS: Final[Mapping[str, float]] = {"1k": 1024, "1.5k": 1536, "2k": 2048}
_FILE: Final = "https://files.example/file.png"
"""What stands for a file of the Files API."""
_TICKS: Final = 200_000_000
"""Of an image: two cents."""


def _object(value: Any) -> str:
    if isinstance(value, dict) and "file_id" in value:
        return "" if set(value) == {"file_id"} and isinstance(value["file_id"], str) else "Input should be an id alone"
    if not isinstance(value, dict) or set(value) - {"url", "type"} or value.get("type", "image_url") != "image_url":
        return "Input should be an object with url and type"
    return is_source(value.get("url"))


def _objects(value: Any) -> str:
    if not 1 <= len(value) <= 5:
        return "Expected from 1 to 5 images"
    return next((wrong for each in value if (wrong := _object(each))), "")


_GENERATION: Final[Mapping[str, Member]] = {
    "model": Member(required=True),
    "prompt": Member(required=True),
    "n": Member("integer", low=1, high=10),
    "aspect_ratio": Member(values=RATIOS),
    "resolution": Member(values=tuple(_TIERS)),
    "quality": Member(values=("low", "medium", "high", "auto")),
    "response_format": Member(values=("url", "b64_json")),
    "user": Member(),
}
_EDIT: Final[Mapping[str, Member]] = {
    **_GENERATION,
    "image": Member("object", check=_object),
    "images": Member("array", check=_objects),
}


class _Dialect(TextDialect):
    """``error`` is a text."""

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        message = "Incorrect API key provided." if key else "No API key provided."
        return refuse(401, code="unauthenticated:bad-credentials", error=message)

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(status)


def create_app() -> Starlette:
    """api.x.ai."""
    return _XAI().app


class _XAI(Simulator):
    def __init__(self) -> None:
        self._shelf = Shelf()
        super().__init__(
            {
                ("POST", "/v1/images/generations"): self._generate,
                ("POST", "/v1/images/edits"): self._edit,
                ("GET", "/delivery/{name}"): self._shelf.get,
            },
            dialect=_Dialect(),
            is_authorized=lambda incoming: incoming.path.startswith("/delivery/") or has_bearer_key(incoming),
        )

    async def _generate(self, incoming: Incoming) -> Response:
        fields = _checked(incoming, _GENERATION)
        ratio = fields.get("aspect_ratio", "auto")
        return self._answer(incoming, fields, "1:1" if ratio == "auto" else ratio)

    async def _edit(self, incoming: Incoming) -> Response:
        fields = _checked(incoming, _EDIT)
        if ("image" in fields) == ("images" in fields):
            raise _bad("Exactly one of image and images is expected")
        images = fields.get("images") or [fields["image"]]
        ratio = fields.get("aspect_ratio", "auto")
        if ratio == "auto":
            width, height = first_size([each.get("url", _FILE) for each in images])
            ratio = f"{width}:{height}"
        return self._answer(incoming, fields, ratio)

    def _answer(self, incoming: Incoming, fields: Mapping[str, Any], ratio: str) -> Response:
        prompt = fields["prompt"]
        if BUSY in prompt:
            raise refuse(429, code="resource-exhausted", error="Too many requests for team")
        usage = {"cost_in_usd_ticks": _TICKS * fields.get("n", 1)}
        if GRUESOME in prompt:
            return JSONResponse({"data": [], "usage": usage})
        width, height = edges(ratio, _TIERS[fields.get("resolution", "1k")])
        data: list[dict[str, Any]] = []
        for seed in range(fields.get("n", 1)):
            if FORBIDDEN_WORD in prompt:
                data.append({"respect_moderation": False, "url": ""})
                continue
            item: dict[str, Any] = {"respect_moderation": True, "mime_type": "image/jpeg", "revised_prompt": ""}
            if fields.get("response_format") == "b64_json":
                item["b64_json"] = picture_base64(width, height, prompt=prompt, seed=seed, form="jpeg")
            else:
                path = self._shelf.put(width, height, prompt=prompt, seed=seed, form="jpeg")
                item["url"] = incoming.origin + (path.partition("?")[0] if EXPIRED in prompt else path)
            data.append(item)
        return JSONResponse({"created": int(time.time()), "data": data, "usage": usage})


def _checked(incoming: Incoming, members: Mapping[str, Member]) -> dict[str, Any]:
    fields = json_of(incoming)
    if fields is None:
        raise refuse(415, code="415", error="Expected request with `Content-Type: application/json`")
    for name in ("size", "style"):
        if name in fields:
            raise _bad(f"Argument not supported: {name}")
    if found := problems(fields, members):
        raise refuse(422, code="422", error=f"Failed to deserialize the JSON body: {found[0].name}: {found[0].message}")
    if fields["model"] not in MODELS:
        raise refuse(404, code="404", error=f"The model {fields['model']} does not exist")
    is_second = fields["model"] == "grok-imagine-image-2.0"
    if fields.get("resolution") == "1.5k" and not is_second:
        raise _bad("1.5K resolution is not supported for this model.")
    if fields.get("quality") == "high" and is_second:
        raise _bad("This model only supports the following quality value(s): low, medium, auto.")
    if "quality" in fields and not is_second:
        raise AssertionError("it would be ignored in silence")
    return fields


def _bad(message: str) -> RefusedError:
    return refuse(400, code="400", error=message)
