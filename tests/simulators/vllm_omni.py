"""vLLM-Omni: one model, OpenAI's paths, FastAPI's errors.

Sources: vllm-omni, entrypoints/openai/protocol/images.py and api_server.py (2026-08). Measured with FastAPI: a file
part ``mask_image`` is bound, although the signature does not say ``File``.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from tests.simulators.base import Repainted, Simulator, is_picture, members, picture, picture_base64, size_of
from tests.simulators.fastapi_checks import MISSING, Checks, http_exception

from imagegate.demo.providers.common import names
from imagegate.demo.providers.frame import has_bearer_key, is_open
from imagegate.demo.providers.incoming import Incoming

SERVED: Final = "Qwen/Qwen-Image"
FAILURE_WORD: Final = "engine-failure"

_GENERATION: Final = names(
    "prompt model n size response_format user layers negative_prompt num_inference_steps guidance_scale"
    " true_cfg_scale flow_shift extra_params seed generator_device lora output_format bot_task system_prompt"
    " use_system_prompt vae_use_slicing vae_use_tiling infer_align_image_size"
)
_EDIT_TEXTS: Final = [
    "prompt",
    "model",
    "n",
    "size",
    "response_format",
    "output_format",
    "background",
    "output_compression",
    "stream",
    "negative_prompt",
    "num_inference_steps",
    "guidance_scale",
    "guidance_scale_2",
    "strength",
    "true_cfg_scale",
    "seed",
    "generator_device",
    "lora",
    "layers",
    "resolution",
    "bot_task",
    "sys_type",
    "system_prompt",
    "return_stage_metrics",
    "url",
    "url[]",
]
_EDIT_FILES: Final = ("image", "image[]", "mask_image", "reference_image")
_DEFAULT: Final = (1328, 1328)


def create_app(
    *, served: str = SERVED, stages: int = 1, most_images: int = 1, has_key: bool = False, largest: int = 0
) -> Starlette:
    """A server with one model.

    Args:
        stages: more than one is a pipeline whose edits can be streamed.
        most_images: that an edit may start from.
        has_key: whether it was started with ``--api-key``.
        largest: pixels of a picture that the operator allows; 0: any.
    """
    return _Omni(served, stages, most_images, has_key=has_key, largest=largest).app


class _Omni(Simulator):
    def __init__(self, served: str, stages: int, most_images: int, *, has_key: bool, largest: int) -> None:
        self._served, self._stages, self._most_images, self._largest = served, stages, most_images, largest
        self._random = itertools.count(1)
        endpoints = {
            ("POST", "/v1/images/generations"): self._generate,
            ("POST", "/v1/images/edits"): self._edit,
            ("GET", "/v1/models"): self._models,
        }
        super().__init__(endpoints, is_authorized=has_bearer_key if has_key else is_open)

    async def _models(self, incoming: Incoming) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": self._served, "object": "model", "owned_by": "vllm"}]})

    async def _generate(self, incoming: Incoming) -> Response:
        checks = Checks(None if incoming.is_form else incoming.fields)
        prompt = checks.text("prompt", MISSING)
        model, size = checks.text("model"), checks.text("size")
        n = checks.integer("n", 1, low=1, high=10)
        response_format = checks.text("response_format", "b64_json")
        form = checks.text("output_format") or "png"
        seed = checks.integer("seed")
        checks.integer("num_inference_steps", low=1, high=200)
        checks.number("guidance_scale", 0, 20)
        checks.number("true_cfg_scale", 0, 20)
        checks.mapping("lora")
        checks.mapping("extra_params")
        layers = checks.integer("layers")
        if size is not None and "x" not in str(size):
            checks.value_error("size", "size must be in format 'WIDTHxHEIGHT' (e.g., '1024x1024')")
        if response_format not in ("b64_json", "file"):
            message = f"Only 'b64_json' or 'file' response format is supported, got: {response_format}"
            checks.value_error("response_format", message)
        if layers is not None and not 2 <= layers <= 10:
            checks.value_error("layers", "layers must be between 2 and 10")
        checks.finish()
        self.drop(members(incoming), set(_GENERATION) - {"user"})
        self._check_model(model)
        width, height = self._size(size) if size else _DEFAULT
        self._check_engine(prompt)
        first = next(self._random) * 1000 if seed is None else seed
        if form not in ("png", "jpeg", "webp"):
            raise http_exception(400, f"Invalid output format {form}")
        if response_format == "file":
            return Response(picture(width, height, prompt=prompt, seed=first, form="png"), media_type="image/png")
        data = [
            {"b64_json": picture_base64(width, height, prompt=prompt, seed=first + i, form=form), "url": None}
            for i in range(n)
        ]
        return JSONResponse(_response(data, form, f"{width}x{height}" if size else "model default"))

    async def _edit(self, incoming: Incoming) -> Response:
        fields = dict(incoming.texts) if incoming.is_form else {}
        checks = Checks(fields)
        prompt = checks.text("prompt", MISSING)
        n = checks.integer("n", 1)
        seed = checks.integer("seed")
        checks.integer("output_compression", 100, low=0, high=100)
        is_stream = checks.flag("stream")
        checks.integer("num_inference_steps")
        checks.number("guidance_scale")
        checks.number("strength")
        checks.finish()
        self.drop(fields, _EDIT_TEXTS)
        self.drop([file.name for file in incoming.files], _EDIT_FILES)
        self._check_model(fields.get("model"))
        form = _output_format(fields.get("output_format", "png"))
        if fields.get("response_format", "b64_json") != "b64_json":
            raise http_exception(400, "Only response_format 'b64_json' is supported now.")
        if is_stream and self._stages <= 1:
            raise http_exception(400, "stream=true is only supported for multi-stage image editing pipelines.")
        contents = self._inputs(incoming)
        size = fields.get("size", "auto")
        width, height = size_of(contents[0]) if size.lower() == "auto" else self._size(size)
        self._check_engine(prompt)
        first = next(self._random) * 1000 if seed is None else seed
        data = [
            {"b64_json": picture_base64(width, height, prompt=prompt, seed=first + i, form=form), "url": None}
            for i in range(n)
        ]
        whole = _response(data, form, f"{width}x{height}")
        return _stream(whole, self._served) if is_stream else JSONResponse(whole)

    def _inputs(self, incoming: Incoming) -> list[bytes]:
        """Parts `image`, or else `image[]`: where both come, the second is not looked at."""
        plain = [file.data for file in incoming.files if file.name == "image"]
        listed = [file.data for file in incoming.files if file.name == "image[]"]
        if plain and listed:
            self.dropped.append("image[]")
        contents = plain or listed
        if not contents:
            raise http_exception(422, "Field 'image' or 'url' is required")
        if len(contents) > self._most_images:
            message = f"Received {len(contents)} input images. At most {self._most_images} images are supported by this"
            if self._most_images == 1:
                message = "Received multiple input images. Only a single image is supported by this"
            raise http_exception(400, f"{message} model.")
        if not all(map(is_picture, contents)):
            raise http_exception(400, "cannot identify image file")
        for file in incoming.files:
            if file.name == "mask_image":
                self.repainted.append(Repainted(file.data, by="white"))
        return contents

    def _check_model(self, model: str | None) -> None:
        if model is not None and model != self._served:
            message = f"Model mismatch: request specifies '{model}' but server is running '{self._served}'."
            raise http_exception(400, message)

    def _size(self, size: str) -> tuple[int, int]:
        found = re.fullmatch(r"([0-9]+)x([0-9]+)", size)
        if found is None:
            message = f"Invalid size format: '{size}'. Expected format: 'WIDTHxHEIGHT' (e.g., '1024x1024')."
            raise http_exception(400, message)
        width, height = int(found[1]), int(found[2])
        if self._largest and width * height > self._largest:
            raise http_exception(400, f"Requested image size {width}x{height} exceeds the maximum allowed size.")
        return width, height

    def _check_engine(self, prompt: str) -> None:
        if FAILURE_WORD in prompt:
            error = {"message": "EngineCore failed.", "type": "InternalServerError", "param": None, "code": 500}
            refusal = http_exception(500, "")
            refusal.extra = {"error": error}
            raise refusal


def _output_format(form: str) -> str:
    """What it does not know becomes PNG."""
    form = "jpeg" if form.lower() == "jpg" else form.lower()
    return form if form in ("jpeg", "webp") else "png"


def _response(data: list[dict[str, Any]], form: str, size: str) -> dict[str, Any]:
    items = [{**item, "revised_prompt": None} for item in data]
    return {"created": int(time.time()), "data": items, "output_format": form, "size": size, "metrics": {"steps": 20}}


def _stream(whole: dict[str, Any], model: str) -> Response:
    """Not OpenAI's events: words first, then all pictures in one frame, then ``[DONE]``."""
    head = {"object": "image.edit.chunk", "created": whole["created"], "model": model}
    frames = [
        {**head, "type": "ar_delta", "delta": "The picture ", "index": 0},
        {**head, "type": "image", **{name: whole[name] for name in ("data", "output_format", "size")}},
    ]
    text = "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames) + "data: [DONE]\n\n"
    return StreamingResponse(iter([text]), media_type="text/event-stream")
