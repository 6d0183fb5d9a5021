"""Fireworks: workflows and image generation that answer with bytes, and FLUX Kontext with a queue asked by POST.

Sources: docs.fireworks.ai, API reference (FLUX.1 FP8, FLUX.1 Kontext, get_result); @ai-sdk/fireworks 3.0.62 (sizes).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import Simulator, picture, refuse
from tests.simulators.strict import (
    BUSY,
    EXPIRED,
    GRUESOME,
    HOPELESS,
    STRANGE,
    Member,
    Refusals,
    Shelf,
    edges,
    first_size,
    json_of,
    problems,
    source,
)

from imagegate.demo.providers.common import FORBIDDEN_WORD, RefusedError
from imagegate.demo.providers.frame import has_bearer_key
from imagegate.demo.providers.incoming import Incoming

_ROOT: Final = "/inference/v1"
_MODELS: Final = "accounts/fireworks/models"
_SIZES: Final = (
    *((640, 1536), (768, 1344), (832, 1216), (896, 1152), (1024, 1024), (1152, 896), (1216, 832), (1344, 768)),
    (1536, 640),
)
_RATIO: Final = Member(values=("1:1", "21:9", "16:9", "3:2", "5:4", "4:5", "2:3", "9:16", "9:21"))
_FLUX: Final[Mapping[str, Member]] = {
    "prompt": Member(required=True),
    "aspect_ratio": _RATIO,
    "guidance_scale": Member("number", low=0),
    "num_inference_steps": Member("integer", low=1, high=50),
    "seed": Member("integer"),
}
_SDXL: Final[Mapping[str, Member]] = {
    "prompt": Member(required=True),
    "width": Member("integer"),
    "height": Member("integer"),
    "seed": Member("integer"),
    "samples": Member("integer", low=1, high=1),
}
_KONTEXT: Final[Mapping[str, Member]] = {
    "prompt": Member(required=True),
    "input_image": Member(check=lambda value: "" if source(value, bare=True) else "could not load the image"),
    "seed": Member("integer"),
    "aspect_ratio": Member(check=lambda value: "" if 9 / 21 <= _shape(value) <= 21 / 9 else "between 21:9 and 9:21"),
    "output_format": Member(values=("jpeg", "png")),
    "prompt_upsampling": Member("boolean"),
    "safety_tolerance": Member("integer", low=0, high=6),
    "webhook_url": Member(),
    "webhook_secret": Member(),
}


def _shape(ratio: str) -> float:
    wide, high = (float(each) for each in ratio.split(":"))
    return wide / high


@dataclass(slots=True)
class _Task:
    model: str
    prompt: str
    size: tuple[int, int]
    form: str
    asked: int = 0


def create_app() -> Starlette:
    """api.fireworks.ai."""
    return _Fireworks().app


def _error(status: int, message: str, kind: str = "INVALID_ARGUMENT") -> RefusedError:
    return refuse(status, error={"object": "error", "type": kind, "message": message})


class _Fireworks(Simulator):
    def __init__(self) -> None:
        self._random = itertools.count(1)
        self._tasks: dict[str, _Task] = {}
        self._shelf = Shelf()
        super().__init__(
            {
                ("POST", f"{_ROOT}/workflows/{_MODELS}/{{model}}/text_to_image"): self._flux,
                ("POST", f"{_ROOT}/image_generation/{_MODELS}/{{model}}"): self._sdxl,
                ("POST", f"{_ROOT}/workflows/{_MODELS}/{{model}}/get_result"): self._ask,
                ("POST", f"{_ROOT}/workflows/{_MODELS}/{{model}}"): self._submit,
                ("GET", "/delivery/{name}"): self._shelf.get,
            },
            dialect=Refusals(
                wrong_key={"error": {"object": "error", "type": "UNAUTHORIZED", "message": "The API key is invalid"}},
                no_route={"error": "Path not found"},
            ),
            is_authorized=lambda incoming: incoming.path.startswith("/delivery/") or has_bearer_key(incoming),
        )

    async def _flux(self, incoming: Incoming) -> Response:
        fields = _checked(incoming, _FLUX, ("flux-1-schnell-fp8", "flux-1-dev-fp8"))
        return self._bytes(incoming, fields, edges(fields.get("aspect_ratio", "16:9")))

    async def _sdxl(self, incoming: Incoming) -> Response:
        fields = _checked(incoming, _SDXL, ("stable-diffusion-xl-1024-v1-0", "SSD-1B"))
        size = fields.get("width", 1024), fields.get("height", 1024)
        if size not in _SIZES:
            raise refuse(400, error=f"{size[0]}x{size[1]} is not a supported size")
        return self._bytes(incoming, fields, size)

    def _bytes(self, incoming: Incoming, fields: Mapping[str, Any], size: tuple[int, int]) -> Response:
        """A picture that is blurred for its content is one, with a header that says so."""
        form = incoming.headers.get("accept", "").removeprefix("image/")
        if form not in ("png", "jpeg"):
            raise refuse(400, error="Accept must be image/jpeg or image/png")
        seed = fields.get("seed", next(self._random))
        content = picture(*size, prompt=fields["prompt"], seed=seed, form=form)
        reason = "CONTENT_FILTERED" if GRUESOME in fields["prompt"] else "SUCCESS"
        return Response(content, media_type=f"image/{form}", headers={"finish-reason": reason, "seed": str(seed)})

    async def _submit(self, incoming: Incoming) -> Response:
        fields = _checked(incoming, _KONTEXT, ("flux-kontext-pro", "flux-kontext-max"), moderates=False)
        size = first_size([fields["input_image"]], bare=True) if "input_image" in fields else (1024, 1024)
        if "aspect_ratio" in fields:
            size = edges(fields["aspect_ratio"])
        id_ = f"{len(self._tasks):08}-fire"
        form = fields.get("output_format", "jpeg")
        self._tasks[id_] = _Task(incoming.path_params["model"], fields["prompt"], size, form)
        return JSONResponse({"request_id": id_})

    async def _ask(self, incoming: Incoming) -> Response:
        fields = json_of(incoming) or {}
        task = self._tasks.get(str(fields.get("id")))
        if set(fields) != {"id"} or task is None or task.model != incoming.path_params["model"]:
            return JSONResponse({"id": fields.get("id"), "status": "Task not found", "result": None})
        task.asked += 1
        document: dict[str, Any] = {"id": fields["id"], "status": "Pending", "result": None, "progress": None}
        if task.asked == 1:
            return JSONResponse(document)
        if task.asked == 2 and STRANGE in task.prompt:
            return JSONResponse({**document, "status": "Warming up"})
        ends = {FORBIDDEN_WORD: "Request Moderated", GRUESOME: "Content Moderated", HOPELESS: "Error"}
        status = next((state for word, state in ends.items() if word in task.prompt), "Ready")
        if status == "Ready":
            path = self._shelf.put(*task.size, prompt=task.prompt, seed=int(fields["id"][:8]), form=task.form)
            document["result"] = {
                "sample": incoming.origin + (path.partition("?")[0] if EXPIRED in task.prompt else path)
            }
        return JSONResponse({**document, "status": status})


def _checked(
    incoming: Incoming, members: Mapping[str, Member], models: tuple[str, ...], *, moderates: bool = True
) -> dict[str, Any]:
    if incoming.path_params["model"] not in models:
        raise _error(404, "Model not found, inaccessible, and/or not deployed", "NOT_FOUND")
    fields = json_of(incoming)
    if fields is None:
        raise _error(400, "The body must be JSON")
    if found := problems(fields, members):
        raise _error(400, f"{found[0].name}: {found[0].message}")
    if BUSY in fields["prompt"]:
        raise _error(429, "Too many images for now", "RATE_LIMITED")
    if moderates and FORBIDDEN_WORD in fields["prompt"]:
        raise _error(400, "The prompt was rejected by the safety system")
    return fields
