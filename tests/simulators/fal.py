"""fal's queue: submissions are taken as they are, and the model itself refuses what it does not know, with its result.

Sources: @fal-ai/client 1.10.1 (members of the models, states, outputs); fal.ai/docs, "Inference API", "Queue", "Errors"
(addresses without the model's last part, 202 until a request is complete, details of a model's errors).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import KEY, Repainted, Simulator, TextDialect, refuse
from tests.simulators.strict import (
    BUSY,
    EXPIRED,
    GRUESOME,
    HOPELESS,
    STRANGE,
    Member,
    Shelf,
    are_sources,
    edges,
    first_size,
    is_shaken,
    is_source,
    json_of,
    problems,
    source,
)

from imagegate.demo.providers.common import FORBIDDEN_WORD, RefusedError
from imagegate.demo.providers.incoming import Incoming

BROKEN: Final = "shattered"
"""A prompt with this word makes a request that is complete with an error, and has no result."""
ENDS: Final[Mapping[str, tuple[int, Any]]] = {
    "unseen": (422, "Invalid image"),
    "fallen": (500, "Internal Server Error"),
    "endless": (504, [{"loc": ["body"], "msg": "Generation took too long", "type": "generation_timeout"}]),
}
"""Words of prompts, each with the error that comes in place of a result."""
_PRESETS: Final = ("square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9")
_RATIOS: Final = ("21:9", "16:9", "4:3", "3:2", "1:1", "2:3", "3:4", "9:16", "9:21")
_GEMINI: Final = ("auto", "21:9", "16:9", "3:2", "4:3", "5:4", "1:1", "4:5", "3:4", "2:3", "9:16")
_SIZES: Final = ("1024x1024", "1536x1024", "1024x1536")
_TOLERANCE: Final = Member(values=("1", "2", "3", "4", "5"))


def _size(value: Any) -> str:
    edges = (value.get("width"), value.get("height"))
    if set(value) != {"width", "height"} or not all(type(each) is int and 64 <= each <= 4096 for each in edges):
        return "Input should be an object with width and height"
    return ""


_COMMON: Final[Mapping[str, Member]] = {
    "prompt": Member(required=True),
    "seed": Member("integer"),
    "sync_mode": Member("boolean"),
    "enable_safety_checker": Member("boolean"),
    "output_format": Member(values=("jpeg", "png")),
}
_SIZED: Final[Mapping[str, Member]] = {**_COMMON, "image_size": Member("object", check=_size)}
_SEVERAL: Final = {"num_images": Member("integer", low=1, high=4)}
_WEBP: Final = {"output_format": Member(values=("jpeg", "png", "webp"))}
_URLS: Final = {"image_urls": Member("array", required=True, check=are_sources(10))}
_URL: Final = Member(required=True, check=is_source)
_PRO: Final[Mapping[str, Member]] = {**_SIZED, "safety_tolerance": _TOLERANCE}
_KONTEXT: Final[Mapping[str, Member]] = {
    **_COMMON,
    **_SEVERAL,
    "aspect_ratio": Member(values=_RATIOS),
    "guidance_scale": Member("number"),
}
_BANANA: Final[Mapping[str, Member]] = {
    **{name: each for name, each in _COMMON.items() if name != "enable_safety_checker"},
    **_SEVERAL,
    **_WEBP,
    "aspect_ratio": Member(values=_GEMINI),
    "resolution": Member(values=("1K", "2K", "4K")),
}
_GPT: Final[Mapping[str, Member]] = {
    "prompt": Member(required=True),
    **_SEVERAL,
    **_WEBP,
    "image_size": Member(values=_SIZES),
    "quality": Member(values=("low", "medium", "high")),
    "background": Member(values=("auto", "transparent", "opaque")),
}
MODELS: Final[Mapping[str, Mapping[str, Member]]] = {
    "fal-ai/flux/dev": {**_SIZED, **_SEVERAL, "num_inference_steps": Member("integer"), "acceleration": Member()},
    "fal-ai/flux-2-pro": _PRO,
    "fal-ai/flux-2-pro/edit": {**_PRO, **_URLS},
    "fal-ai/flux-2": {**_SIZED, **_SEVERAL, **_WEBP},
    "fal-ai/flux-2/edit": {**_SIZED, **_SEVERAL, **_WEBP, **_URLS},
    "fal-ai/flux-pro/kontext": {**_KONTEXT, "image_url": _URL},
    "fal-ai/flux-pro/kontext/text-to-image": _KONTEXT,
    "fal-ai/flux-pro/v1/fill": {**_COMMON, **_SEVERAL, "image_url": _URL, "mask_url": _URL},
    "fal-ai/nano-banana-pro": _BANANA,
    "fal-ai/nano-banana-pro/edit": {**_BANANA, **_URLS},
    "fal-ai/gpt-image-1.5": _GPT,
    "fal-ai/gpt-image-1.5/edit": {
        **_GPT,
        **_URLS,
        "image_size": Member(values=("auto", *_SIZES)),
        "mask_image_url": Member(check=is_source),
    },
    "studio/own-model": {"prompt": Member(required=True), "mood": Member(), "image_size": Member(values=_PRESETS)},
}


@dataclass(slots=True)
class _Request:
    app: str
    fields: dict[str, Any]
    endpoint: str
    asked: int = 0
    cancelled: bool = False

    @property
    def prompt(self) -> str:
        return str(self.fields.get("prompt", ""))


class _Dialect(TextDialect):
    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(401, detail="Authentication is required to access this application.")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(status, detail="Path not found" if status == 404 else "Method Not Allowed")


def create_app() -> Starlette:
    """queue.fal.run."""
    return _Fal().app


class _Fal(Simulator):
    def __init__(self) -> None:
        self._requests: dict[str, _Request] = {}
        self._shelf = Shelf()
        own = "/{owner}/{app}/requests/{id}"
        super().__init__(
            {
                ("GET", "/delivery/{name}"): self._shelf.get,
                ("GET", f"{own}/status"): self._status,
                ("PUT", f"{own}/cancel"): self._cancel,
                ("GET", own): self._result,
                ("POST", "/{endpoint:path}"): self._submit,
            },
            dialect=_Dialect(),
            is_authorized=_is_authorized,
        )

    async def _submit(self, incoming: Incoming) -> Response:
        endpoint = incoming.path_params["endpoint"]
        if endpoint not in MODELS:
            raise refuse(404, detail=f"Application '{endpoint.partition('/')[2]}' not found")
        fields = json_of(incoming)
        if fields is None:
            raise refuse(422, detail="Invalid JSON")
        if BUSY in str(fields.get("prompt")):
            raise refuse(429, detail="Concurrent requests limit exceeded")
        app = "/".join(endpoint.split("/")[:2])
        id_ = f"{len(self._requests):08}-1111-4000-8000-000000000000"
        self._requests[id_] = _Request(app, fields, endpoint)
        return JSONResponse({"status": "IN_QUEUE", "queue_position": 0, **self._links(incoming, id_)})

    def _links(self, incoming: Incoming, id_: str) -> dict[str, str]:
        own = f"{incoming.origin}/{self._requests[id_].app}/requests/{id_}"
        links = {"response_url": own, "status_url": f"{own}/status", "cancel_url": f"{own}/cancel"}
        return {"request_id": id_, **links}

    def _request(self, incoming: Incoming) -> tuple[str, _Request]:
        id_ = incoming.path_params["id"]
        found = self._requests.get(id_)
        if found is None or found.app != f"{incoming.path_params['owner']}/{incoming.path_params['app']}":
            raise refuse(404, detail="Request not found")
        return id_, found

    async def _status(self, incoming: Incoming) -> Response:
        id_, request = self._request(incoming)
        request.asked += 1
        if shaken := is_shaken(request.prompt, request.asked):
            return shaken
        words = ["IN_QUEUE", *(["WARMING_UP"] if STRANGE in request.prompt else []), "IN_PROGRESS"]
        if request.asked <= len(words):
            position = {"queue_position": 0} if request.asked == 1 else {}
            return JSONResponse({"status": words[request.asked - 1], **position, **self._links(incoming, id_)}, 202)
        document = {
            "status": "COMPLETED",
            "logs": None,
            "metrics": {"inference_time": 1.5},
            **self._links(incoming, id_),
        }
        if BROKEN in request.prompt:
            document |= {"error": "Runner disconnected", "error_type": "runner_disconnected"}
        return JSONResponse(document)

    async def _cancel(self, incoming: Incoming) -> Response:
        _, request = self._request(incoming)
        if request.asked > 2:
            return JSONResponse({"status": "ALREADY_COMPLETED"}, 400)
        request.cancelled = True
        return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202)

    async def _result(self, incoming: Incoming) -> Response:
        _, request = self._request(incoming)
        if request.asked < 3:
            raise refuse(400, detail="Request is still in progress")
        fields = request.fields
        if found := problems(fields, MODELS[request.endpoint]):
            listed = [
                {"loc": ["body", each.name], "msg": each.message, "type": each.kind, "input": None} for each in found
            ]
            raise refuse(422, detail=listed)
        if FORBIDDEN_WORD in request.prompt:
            message = "The content could not be processed because it contained material flagged by a content checker."
            flagged = {"loc": ["body", "prompt"], "msg": message, "type": "content_policy_violation"}
            raise refuse(422, detail=[flagged])
        if HOPELESS in request.prompt:
            detail = [{"loc": ["body"], "msg": "Internal server error", "type": "internal_server_error"}]
            raise refuse(500, detail=detail)
        for word, (status, said) in ENDS.items():
            if word in request.prompt:
                raise refuse(status, detail=said)
        for name in ("mask_url", "mask_image_url"):
            if name in fields:
                by = "white" if name == "mask_url" else "alpha"
                self.repainted.append(Repainted(source(fields[name]) or b"", by=by))
        width, height = _pixels(fields)
        form = fields.get("output_format", "jpeg")
        images: list[dict[str, Any]] = []
        for seed in range(fields.get("num_images", 1)):
            prompt = f"{request.prompt} {incoming.path_params['id']}"
            path = self._shelf.put(width, height, prompt=prompt, seed=seed, form=form)
            path = path.partition("?")[0] if EXPIRED in request.prompt else path
            url = incoming.origin + path
            images.append({"url": url, "width": width, "height": height, "content_type": f"image/{form}"})
        flags = [GRUESOME in request.prompt] * len(images)
        return JSONResponse({"images": images, "seed": 42, "has_nsfw_concepts": flags, "prompt": request.prompt})


def _is_authorized(incoming: Incoming) -> bool:
    return incoming.path.startswith("/delivery/") or incoming.headers.get("authorization") == f"Key {KEY}"


def _pixels(fields: Mapping[str, Any]) -> tuple[int, int]:
    size = fields.get("image_size", "auto")
    if isinstance(size, dict):
        return size["width"], size["height"]
    sources = fields.get("image_urls") or ([fields["image_url"]] if "image_url" in fields else [])
    if "x" in size:
        wide, _, high = size.partition("x")
        return int(wide), int(high)
    ratio = fields.get("aspect_ratio", "auto")
    if ratio != "auto":
        return edges(ratio, {"1K": 1024.0, "2K": 2048.0, "4K": 4096.0}[fields.get("resolution", "1K")])
    return first_size(sources) if sources else (1024, 768)
