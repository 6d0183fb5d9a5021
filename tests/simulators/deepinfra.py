"""DeepInfra: its own inference API for generations, with data URLs, and OpenAI's form for edits, without brackets.

Source: @ai-sdk/deepinfra, deepinfra-image-model.ts @ed857f5 (paths, members, parts, replies, errors).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import Repainted, Simulator, picture_base64, refuse, size_of
from tests.simulators.strict import BUSY, GRUESOME, Member, Refusals, data_url, form_of, json_of, problems

from imagegate.demo.providers.common import FORBIDDEN_WORD, RefusedError, parse_pixels
from imagegate.demo.providers.frame import has_bearer_key
from imagegate.demo.providers.incoming import Incoming

MODELS: Final = ("black-forest-labs/FLUX-1-dev", "black-forest-labs/FLUX-2-dev", "Qwen/Qwen-Image-Edit")
_TUNED: Final[Mapping[str, Member]] = {
    "guidance_scale": Member("number", low=0, high=20),
    "num_inference_steps": Member("integer", low=1, high=50),
    "negative_prompt": Member(),
    "strength": Member("number", low=0, high=1),
    "scheduler": Member(),
}
_GENERATION: Final[Mapping[str, Member]] = {
    "prompt": Member(required=True),
    "num_images": Member("integer", low=1, high=4),
    "width": Member("integer", low=128, high=2048, multiple=16),
    "height": Member("integer", low=128, high=2048, multiple=16),
    "aspect_ratio": Member(),
    "seed": Member("integer", low=0),
    **_TUNED,
}
_EDIT: Final[Mapping[str, Member]] = {
    "prompt": Member(required=True),
    "model": Member(required=True, values=MODELS),
    "n": Member("integer", low=1, high=4),
    "size": Member(check=lambda value: "" if parse_pixels(value) else "must be WIDTHxHEIGHT"),
    "response_format": Member(values=("b64_json",)),
    **_TUNED,
}


def create_app() -> Starlette:
    """api.deepinfra.com."""
    return _DeepInfra().app


def _native(status: int, message: str) -> RefusedError:
    return refuse(status, detail={"error": message})


def _openai(status: int, message: str) -> RefusedError:
    return refuse(status, error={"message": message})


class _DeepInfra(Simulator):
    def __init__(self) -> None:
        self._random = itertools.count(1)
        super().__init__(
            {
                ("POST", "/v1/inference/{model:path}"): self._generate,
                ("POST", "/v1/openai/images/edits"): self._edit,
            },
            dialect=Refusals(
                wrong_key={"detail": {"error": "Unauthorized: invalid token"}}, no_route={"detail": "Not Found"}
            ),
            is_authorized=has_bearer_key,
        )

    async def _generate(self, incoming: Incoming) -> Response:
        if incoming.path_params["model"] not in MODELS:
            raise _native(404, "Model not found")
        fields = json_of(incoming)
        if fields is None:
            raise _native(400, "The body must be JSON")
        if found := problems(fields, _GENERATION):
            raise _native(400, f"{found[0].name}: {found[0].message}")
        self._check(fields["prompt"], _native)
        size = fields.get("width", 1024), fields.get("height", 1024)
        seed = fields.get("seed", next(self._random) * 100)
        images = [
            data_url(*size, prompt=fields["prompt"], seed=seed + place) for place in range(fields.get("num_images", 1))
        ]
        return JSONResponse({"request_id": "r", "images": images, "seed": seed, "inference_status": {"cost": 0.01}})

    async def _edit(self, incoming: Incoming) -> Response:
        fields, files, found = form_of(incoming, _EDIT, {"image": (1, 4), "mask": (0, 1)})
        if found:
            raise _openai(400, f"{found[0].name}: {found[0].message}")
        self._check(fields["prompt"], _openai)
        for mask in files["mask"]:
            self.repainted.append(Repainted(mask, by="alpha"))
        size = parse_pixels(fields.get("size", "")) or size_of(files["image"][0])
        drawn = {"prompt": fields["prompt"], "seed": next(self._random)}
        return JSONResponse({"created": int(time.time()), "data": [{"b64_json": picture_base64(*size, **drawn)}]})

    def _check(self, prompt: str, refused: Callable[[int, str], RefusedError]) -> None:
        if BUSY in prompt:
            raise refused(429, "Model busy, retry later")
        if FORBIDDEN_WORD in prompt or GRUESOME in prompt:
            raise refused(400, "The request was rejected by the content policy")
