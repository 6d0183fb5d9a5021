"""Hugging Face's router: `hf-inference`, which answers with the bytes of a picture, and two partners behind it.

Sources: huggingface_hub @ee0a451, inference/_providers/hf_inference.py, together.py and nscale.py; @huggingface/tasks
(parameters of text-to-image and image-to-image).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import Simulator, decode_base64, is_picture, picture, picture_base64, refuse, size_of
from tests.simulators.strict import BUSY, Member, Refusals, json_of, problems

from imagegate.demo.providers.common import RefusedError, parse_pixels
from imagegate.demo.providers.frame import has_bearer_key
from imagegate.demo.providers.incoming import Incoming

LOADING: Final = "sleepy"
"""A prompt with this word finds a model that is being loaded, the first time."""
MODELS: Final[Mapping[str, str]] = {
    "black-forest-labs/FLUX.1-dev": "text-to-image",
    "timbrooks/instruct-pix2pix": "image-to-image",
}
_TUNED: Final[Mapping[str, Member]] = {
    "negative_prompt": Member(),
    "guidance_scale": Member("number"),
    "num_inference_steps": Member("integer", low=1, high=500),
}
_TEXT: Final[Mapping[str, Member]] = {
    **_TUNED,
    "width": Member("integer", low=64, multiple=8),
    "height": Member("integer", low=64, multiple=8),
    "scheduler": Member(),
    "seed": Member("integer", low=0),
}
_IMAGE: Final[Mapping[str, Member]] = {**_TUNED, "prompt": Member(), "target_size": Member("object")}
_PARTNER: Final[Mapping[str, Member]] = {"model": Member(required=True), "prompt": Member(required=True)}
_TOGETHER: Final[Mapping[str, Member]] = {
    **_PARTNER,
    "response_format": Member(values=("base64",), required=True),
    "width": Member("integer", low=64, multiple=8),
    "height": Member("integer", low=64, multiple=8),
    "n": Member("integer", low=1, high=4),
    "seed": Member("integer"),
    "steps": Member("integer", low=1, high=50),
    "guidance_scale": Member("number"),
    "negative_prompt": Member(),
}
_NSCALE: Final[Mapping[str, Member]] = {
    **_PARTNER,
    "response_format": Member(values=("b64_json",), required=True),
    "size": Member(check=lambda value: "" if parse_pixels(value) else "must be WIDTHxHEIGHT"),
    "n": Member("integer", low=1, high=1),
}


def create_app() -> Starlette:
    """router.huggingface.co."""
    return _HuggingFace().app


class _HuggingFace(Simulator):
    def __init__(self) -> None:
        self._random = itertools.count(1)
        self._loaded = False
        super().__init__(
            {
                ("POST", "/hf-inference/models/{model:path}"): self._infer,
                ("POST", "/together/v1/images/generations"): self._together,
                ("POST", "/nscale/v1/images/generations"): self._nscale,
            },
            dialect=Refusals(wrong_key={"error": "Invalid username or password."}, no_route={"error": "Not Found"}),
            is_authorized=has_bearer_key,
        )

    async def _infer(self, incoming: Incoming) -> Response:
        task = MODELS.get(incoming.path_params["model"])
        if task is None:
            raise refuse(404, error=f"Model {incoming.path_params['model']} does not exist")
        fields = json_of(incoming) or {}
        if found := problems(fields, {"inputs": Member(required=True), "parameters": Member("object")}):
            raise _bad(f"{found[0].name}: {found[0].message}")
        parameters = fields.get("parameters", {})
        members = _TEXT if task == "text-to-image" else _IMAGE
        if found := problems(parameters, members):
            raise _bad(f"parameters.{found[0].name}: {found[0].message}")
        size = parameters.get("width", 1024), parameters.get("height", 1024)
        prompt = fields["inputs"]
        if task == "image-to-image":
            content = decode_base64(fields["inputs"])
            if content is None or not is_picture(content):
                raise _bad("inputs: cannot identify image file")
            wanted = parameters.get("target_size") or dict(zip(("width", "height"), size_of(content), strict=True))
            size, prompt = (wanted["width"], wanted["height"]), parameters.get("prompt", "")
        self._check(prompt)
        seed = parameters.get("seed", next(self._random))
        form = incoming.headers.get("accept", "").removeprefix("image/")
        form = form if form in ("png", "jpeg", "webp") else "jpeg"
        return Response(picture(*size, prompt=prompt, seed=seed, form=form), media_type=f"image/{form}")

    def _check(self, prompt: str) -> None:
        if BUSY in prompt:
            raise refuse(429, error="Rate limit reached. You reached the limit of your plan")
        if LOADING in prompt and not self._loaded:
            self._loaded = True
            raise refuse(503, error="Model is currently loading", estimated_time=0.0)

    async def _together(self, incoming: Incoming) -> Response:
        fields = _checked(incoming, _TOGETHER)
        size = fields.get("width", 1024), fields.get("height", 1024)
        return self._answer(fields, size)

    async def _nscale(self, incoming: Incoming) -> Response:
        fields = _checked(incoming, _NSCALE)
        return self._answer(fields, parse_pixels(fields.get("size", "1024x1024")) or (0, 0))

    def _answer(self, fields: Mapping[str, Any], size: tuple[int, int]) -> Response:
        first = fields.get("seed", next(self._random) * 100)
        drawn = [
            picture_base64(*size, prompt=fields["prompt"], seed=first + place) for place in range(fields.get("n", 1))
        ]
        return JSONResponse({"created": int(time.time()), "data": [{"b64_json": each} for each in drawn]})


def _checked(incoming: Incoming, members: Mapping[str, Member]) -> dict[str, Any]:
    fields = json_of(incoming)
    if fields is None:
        raise refuse(400, error={"message": "The body must be JSON", "type": "invalid_request_error"})
    if found := problems(fields, members):
        error = {"message": found[0].message, "type": "invalid_request_error", "param": found[0].name}
        raise refuse(400, error=error)
    if BUSY in fields["prompt"]:
        raise refuse(429, error={"message": "You have reached the rate limit", "type": "rate_limit"})
    return fields


def _bad(message: str) -> RefusedError:
    return refuse(400, error=[message])
