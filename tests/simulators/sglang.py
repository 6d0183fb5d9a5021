"""SGLang's diffusion server: OpenAI's paths with its own defaults, and a mask that it takes and never looks at.

Source: sglang, multimodal_gen/runtime/entrypoints/openai/image_api.py (2026-08) and protocol.py (its fixed seed).
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.simulators.base import Simulator, is_picture, members, picture, picture_base64, refuse, size_of
from tests.simulators.fastapi_checks import MISSING, Checks, http_exception

from imagegate.demo.providers.common import names
from imagegate.demo.providers.frame import has_bearer_key, is_open
from imagegate.demo.providers.incoming import Incoming

SEED: Final = 1024
"""Where none is sent."""
MOST: Final = 10
FAILURE_WORD: Final = "scheduler-failure"

_GENERATION: Final = names(
    "prompt model n quality response_format size width height background output_format num_inference_steps"
    " guidance_scale true_cfg_scale seed generator_device negative_prompt output_quality output_compression"
    " enable_teacache enable_upscaling upscaling_scale enhance_prompt diffusers_kwargs"
)
_EDIT_TEXTS: Final = [
    "prompt",
    "model",
    "n",
    "quality",
    "response_format",
    "size",
    "background",
    "output_format",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
    "seed",
    "generator_device",
    "negative_prompt",
    "output_quality",
    "output_compression",
    "enable_teacache",
    "enable_upscaling",
    "upscaling_scale",
    "enhance_prompt",
    "url",
    "url[]",
]


def create_app(*, keeps_files: bool = False, has_key: bool = False) -> Starlette:
    """A server with one model; ``keeps_files`` is its ``--output-path``, without which it has no links."""
    return _SGLang(keeps_files=keeps_files, has_key=has_key).app


class _SGLang(Simulator):
    def __init__(self, *, keeps_files: bool, has_key: bool) -> None:
        self._keeps_files = keeps_files
        self._kept: dict[str, list[bytes]] = {}
        super().__init__(
            {("POST", "/v1/images/generations"): self._generate, ("POST", "/v1/images/edits"): self._edit},
            is_authorized=has_bearer_key if has_key else is_open,
            open_routes=[Route("/v1/images/{id}/content", self._content)],
        )

    async def _generate(self, incoming: Incoming) -> Response:
        checks = Checks(None if incoming.is_form else incoming.fields)
        checks.text("prompt", MISSING)
        for name in ("model", "quality", "response_format", "size", "background", "output_format", "negative_prompt"):
            checks.text(name)
        for name in ("n", "seed", "width", "height", "num_inference_steps", "output_compression"):
            checks.integer(name)
        checks.number("guidance_scale")
        checks.finish()
        fields = members(incoming)
        self.drop(fields, _GENERATION)
        return self._answer(fields, (1024, 1024), default_format="url", seed=SEED)

    async def _edit(self, incoming: Incoming) -> Response:
        fields = dict(incoming.texts) if incoming.is_form else {}
        checks = Checks(fields)
        checks.text("prompt", MISSING)
        checks.integer("n")
        checks.integer("seed")
        checks.integer("num_inference_steps")
        checks.finish()
        self.drop(fields, _EDIT_TEXTS)
        self.drop([file.name for file in incoming.files], ("image", "image[]"))
        plain = [file.data for file in incoming.files if file.name == "image"]
        contents = plain or [file.data for file in incoming.files if file.name == "image[]"]
        if not contents:
            raise http_exception(422, "Field 'image' or 'url' is required")
        if not all(map(is_picture, contents)):
            raise http_exception(400, "Failed to process image source: cannot identify image file")
        return self._answer(fields, size_of(contents[0]), default_format="b64_json", seed=SEED)

    def _answer(self, fields: dict[str, Any], size: tuple[int, int], *, default_format: str, seed: int) -> Response:
        wanted = str(fields.get("response_format") or default_format).lower()
        n = max(1, min(int(fields.get("n") or 1), MOST))
        if n != int(fields.get("n") or 1):
            self.dropped.append("n")
        width, height = self._size(fields, size)
        prompt = fields["prompt"]
        if FAILURE_WORD in prompt:
            raise refuse(500, "Internal Server Error")
        form = fields.get("output_format") or ("png" if fields.get("background") == "transparent" else "jpeg")
        if form not in ("png", "jpeg", "jpg", "webp"):
            form = "jpeg"
        seed = int(fields["seed"]) if fields.get("seed") is not None else seed
        id_ = secrets.token_hex(8)
        path = f"/srv/outputs/{id_}.{form}"
        common = {"revised_prompt": prompt, "file_path": path if self._keeps_files else None}
        if wanted == "b64_json":
            data = [
                {"b64_json": picture_base64(width, height, prompt=prompt, seed=seed + i, form=form), **common}
                for i in range(n)
            ]
        elif wanted != "url":
            raise http_exception(400, f"response_format={wanted} is not supported")
        elif not self._keeps_files:
            raise http_exception(400, "response_format='url' requires cloud storage to be configured.")
        else:
            self._kept[id_] = [picture(width, height, prompt=prompt, seed=seed + i, form=form) for i in range(n)]
            variants = [f"?variant={i}" for i in range(n)] if n > 1 else [""]
            data = [{"url": f"/v1/images/{id_}/content{variant}", **common} for variant in variants]
        more = {"peak_memory_mb": 20480.0, "inference_time_s": 3.2, "usage": {"image_count": n}}
        return JSONResponse({"id": id_, "created": int(time.time()), "data": data, **more})

    async def _content(self, request: Any) -> Response:
        kept = self._kept.get(request.path_params["id"])
        variant = request.query_params.get("variant", "0")
        if kept is None:
            return JSONResponse({"detail": "Image not found"}, 404)
        if not variant.isdecimal() or int(variant) >= len(kept):
            return JSONResponse({"detail": f"Image variant {variant} not found"}, 404)
        return Response(kept[int(variant)], media_type="image/png")

    def _size(self, fields: dict[str, Any], default: tuple[int, int]) -> tuple[int, int]:
        """A size that cannot be read is not read."""
        if fields.get("width") and fields.get("height"):
            return int(fields["width"]), int(fields["height"])
        width, _, height = str(fields.get("size") or "").lower().replace(" ", "").partition("x")
        if width.isdecimal() and height.isdecimal():
            return int(width), int(height)
        if fields.get("size"):
            self.dropped.append("size")
        return default
