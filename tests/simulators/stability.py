"""Stability's v2beta: forms only, one path for each service, base64 or bytes by `accept`, results that are asked for.

Sources: platform.stability.ai, v2beta reference (services, members, masks, accept, 202, errors).
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import Repainted, Simulator, picture, refuse, size_of
from tests.simulators.strict import BUSY, GRUESOME, HOPELESS, Member, Refusals, edges, form_of

from imagegate.demo.providers.common import FORBIDDEN_WORD, RefusedError
from imagegate.demo.providers.frame import has_bearer_key
from imagegate.demo.providers.incoming import Incoming

_RATIO: Final = {"aspect_ratio": Member(values=("16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21"))}
_BASE: Final[Mapping[str, Member]] = {
    "seed": Member("integer", low=0, high=4294967294),
    "output_format": Member(values=("png", "jpeg", "webp")),
}
_WORDS: Final[Mapping[str, Member]] = {
    **_BASE,
    "prompt": Member(required=True, check=lambda value: "" if 1 <= len(value) <= 10_000 else "1 to 10000 characters"),
    "negative_prompt": Member(),
}
_PRESET: Final = {"style_preset": Member(values=("anime", "cinematic", "pixel-art"))}
_STRENGTH: Final = {"strength": Member("number", low=0, high=1)}
_SD3: Final[Mapping[str, Member]] = {
    **_WORDS,
    **_RATIO,
    **_PRESET,
    **_STRENGTH,
    "output_format": Member(values=("png", "jpeg")),
    "mode": Member(values=("text-to-image", "image-to-image")),
    "model": Member(values=("sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium")),
    "cfg_scale": Member("number", low=1, high=10),
}
_SIDE: Final = Member("integer", low=0, high=2000)
SERVICES: Final[Mapping[str, tuple[Mapping[str, Member], Mapping[str, tuple[int, int]]]]] = {
    "generate/core": ({**_WORDS, **_RATIO, **_PRESET}, {}),
    "generate/ultra": ({**_WORDS, **_RATIO, **_PRESET, **_STRENGTH}, {"image": (0, 1)}),
    "generate/sd3": (_SD3, {"image": (0, 1)}),
    "edit/inpaint": ({**_WORDS, "grow_mask": Member("integer", low=0, high=100)}, {"image": (1, 1), "mask": (0, 1)}),
    "edit/erase": ({**_BASE, "grow_mask": Member("integer", low=0, high=20)}, {"image": (1, 1), "mask": (0, 1)}),
    "edit/search-and-replace": ({**_WORDS, "search_prompt": Member(required=True)}, {"image": (1, 1)}),
    "edit/outpaint": (
        {**_BASE, "prompt": Member(), "left": _SIDE, "right": _SIDE, "up": _SIDE, "down": _SIDE},
        {"image": (1, 1)},
    ),
    "upscale/creative": ({**_WORDS, "creativity": Member("number", low=0.1, high=0.5)}, {"image": (1, 1)}),
}


@dataclass(slots=True)
class _Result:
    prompt: str
    content: bytes
    asked: int = 0


def create_app() -> Starlette:
    """api.stability.ai."""
    return _Stability().app


def _error(status: int, name: str, *errors: str) -> RefusedError:
    return refuse(status, id="4212a4b66fbe1cedca4bf2133d35dca5", name=name, errors=list(errors))


class _Stability(Simulator):
    def __init__(self) -> None:
        self._random = itertools.count(1)
        self._results: dict[str, _Result] = {}
        super().__init__(
            {
                ("POST", "/v2beta/stable-image/{kind}/{service}"): self._serve,
                ("GET", "/v2beta/results/{id}"): self._ask,
            },
            dialect=Refusals(
                wrong_key={"id": "a", "name": "unauthorized", "errors": ["authorization: is invalid"]},
                no_route={"id": "a", "name": "not_found", "errors": ["The requested resource does not exist"]},
            ),
            is_authorized=has_bearer_key,
        )

    async def _serve(self, incoming: Incoming) -> Response:
        service = f"{incoming.path_params['kind']}/{incoming.path_params['service']}"
        if service not in SERVICES:
            raise _error(404, "not_found", "The requested resource does not exist")
        members, named = SERVICES[service]
        fields, files, found = form_of(incoming, members, named)
        if found:
            raise _error(400, "bad_request", *(f"{each.name}: {each.message}" for each in found))
        image = next(iter(files.get("image", [])), None)
        if service == "generate/sd3":
            _check_mode(fields, image)
        if service == "generate/ultra" and (image is None) != ("strength" not in fields):
            raise _error(400, "bad_request", "strength: is required with an image, and only with one")
        prompt = fields.get("prompt", "")
        if BUSY in prompt:
            raise _error(429, "rate_limit_exceeded", "You have exceeded the rate limit of 150 requests")
        if FORBIDDEN_WORD in prompt:
            message = "Your request was flagged by our content moderation system, as a result your request was denied"
            raise _error(403, "content_moderation", message)
        for mask in files.get("mask", []):
            self.repainted.append(Repainted(mask, by="white"))
        size = edges(fields.get("aspect_ratio", "1:1")) if service.startswith("generate/") else (0, 0)
        if image is not None and "aspect_ratio" not in fields:
            size = size_of(image)
        seed = fields.get("seed", 0) or next(self._random)
        content = picture(*size, prompt=prompt, seed=seed, form=fields.get("output_format", "png"))
        if service == "upscale/creative":
            id_ = f"{len(self._results):064}"
            self._results[id_] = _Result(prompt, content)
            return JSONResponse({"id": id_}, 202)
        return _answer(incoming, content, prompt, "image", seed)

    async def _ask(self, incoming: Incoming) -> Response:
        result = self._results.get(incoming.path_params["id"])
        if result is None:
            raise _error(404, "not_found", "No result was found for this id")
        result.asked += 1
        if result.asked == 1:
            return JSONResponse({"id": incoming.path_params["id"], "status": "in-progress"}, 202)
        if HOPELESS in result.prompt:
            raise _error(400, "generation_failed", "The generation has failed")
        return _answer(incoming, result.content, result.prompt, "result", 1)


def _check_mode(fields: Mapping[str, Any], image: bytes | None) -> None:
    starts = fields.get("mode", "text-to-image") == "image-to-image"
    if starts != (image is not None) or starts != ("strength" in fields):
        raise _error(400, "bad_request", "image, strength: are required in image-to-image, and only there")
    if starts and "aspect_ratio" in fields:
        raise _error(400, "bad_request", "aspect_ratio: is only for text-to-image")


def _answer(incoming: Incoming, content: bytes, prompt: str, member: str, seed: int) -> Response:
    reason = "CONTENT_FILTERED" if GRUESOME in prompt else "SUCCESS"
    accepted = incoming.headers.get("accept")
    if accepted == "application/json":
        document = {member: base64.b64encode(content).decode(), "finish_reason": reason, "seed": seed}
        return JSONResponse(document)
    if accepted in ("image/*", "*/*"):
        return Response(content, media_type="image/png", headers={"finish-reason": reason, "seed": str(seed)})
    raise _error(400, "bad_request", "accept: must be image/* or application/json")
