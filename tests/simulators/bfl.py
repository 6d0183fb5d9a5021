"""BFL's API: a task for each request, with an address to ask at, and members that differ by model.

Sources: docs.bfl.ai (models, regional addresses, states, errors), the OpenAPI file behind its reference pages (members,
limits), @ai-sdk/black-forest-labs (reply to a submission and to a question).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

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
    Problem,
    Shelf,
    edges,
    first_size,
    is_shaken,
    json_of,
    problems,
    source,
)

from imagegate.demo.providers.common import FORBIDDEN_WORD, RefusedError
from imagegate.demo.providers.incoming import Incoming

LOST: Final = "mislaid"
"""A prompt with this word makes a task that is not found any more."""
FLUX_3_RATIOS: Final = (
    *("auto", "21:9", "2:1", "16:9", "3:2", "7:5", "4:3", "5:4", "1:1", "4:5", "3:4", "5:7", "2:3", "9:16", "1:2"),
    "9:21",
)
_TIERS: Final[Mapping[str, float]] = {"768sq": 768, "1k": 1024, "1.5k": 1536, "2k": 2048, "4k": 4096}


def _image(value: Any) -> str:
    return "" if source(value, bare=True) is not None else "Invalid image: not base64 and no URL"


def _images(value: Any) -> str:
    if not 1 <= len(value) <= 10:
        return "List should have from 1 to 10 items"
    return next((wrong for each in value if (wrong := _image(each))), "")


def _ratio(value: str) -> str:
    try:
        wide, high = (int(each) for each in value.split(":"))
    except ValueError:
        return "aspect_ratio must be W:H"
    return "" if 3 / 7 <= wide / high <= 7 / 3 else "aspect_ratio must be between 3:7 and 7:3"


def _references(most: int) -> dict[str, Member]:
    names = ["input_image", *(f"input_image_{place}" for place in range(2, most + 1))]
    return {name: Member(check=_image) for name in names}


_COMMON: Final[Mapping[str, Member]] = {
    "prompt": Member(required=True),
    "seed": Member("integer"),
    "output_format": Member(values=("jpeg", "png")),
}
_FLUX_2: Final[Mapping[str, Member]] = {
    **_COMMON,
    "width": Member("integer", low=64, multiple=16),
    "height": Member("integer", low=64, multiple=16),
    "safety_tolerance": Member("integer", low=0, high=5),
    **_references(8),
}
_KONTEXT: Final[Mapping[str, Member]] = {
    **_COMMON,
    "aspect_ratio": Member(check=_ratio),
    "safety_tolerance": Member("integer", low=0, high=6),
    "prompt_upsampling": Member("boolean"),
    **_references(4),
}
_FLUX_1: Final[Mapping[str, Member]] = {
    **_COMMON,
    "width": Member("integer", low=256, high=1440, multiple=32),
    "height": Member("integer", low=256, high=1440, multiple=32),
    "safety_tolerance": Member("integer", low=0, high=6),
    "prompt_upsampling": Member("boolean"),
}
MODELS: Final[Mapping[str, Mapping[str, Member]]] = {
    "flux-2-pro": _FLUX_2,
    "flux-2-max": _FLUX_2,
    "flux-2-klein-4b": {name: each for name, each in _FLUX_2.items() if name[-1] not in "5678"},
    "flux-kontext-pro": _KONTEXT,
    "flux-pro-1.1": _FLUX_1,
    "flux-3-image": {
        "prompt": Member(required=True),
        "aspect_ratio": Member(values=FLUX_3_RATIOS),
        "resolution": Member(values=tuple(_TIERS)),
        "images": Member("array", check=_images),
        "safety_tolerance": Member("integer", low=0, high=4),
        "grounding": Member("boolean"),
    },
    "flux-pro-1.0-fill": {
        **_COMMON,
        "image": Member(required=True, check=_image),
        "mask": Member(check=_image),
        "safety_tolerance": Member("integer", low=0, high=6),
    },
}


@dataclass(slots=True)
class _Task:
    prompt: str
    size: tuple[int, int]
    form: str
    query: str
    """Of the address at which it is asked for."""
    asked: int = 0


class _Dialect(TextDialect):
    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(403, detail="Not authenticated - Invalid Authentication")


def create_app(*, polling_origin: str = "") -> Starlette:
    """api.bfl.ai.

    Args:
        polling_origin: where tasks are said to be asked for; default: here.
    """
    return _BFL(polling_origin).app


class _BFL(Simulator):
    def __init__(self, polling_origin: str) -> None:
        self._polling_origin = polling_origin
        self._tasks: dict[str, _Task] = {}
        self._shelf = Shelf()
        super().__init__(
            {
                ("POST", "/v1/{model}"): self._submit,
                ("GET", "/v1/get_result"): self._ask,
                ("GET", "/delivery/{name}"): self._shelf.get,
            },
            dialect=_Dialect(),
            is_authorized=_is_authorized,
        )

    async def _submit(self, incoming: Incoming) -> Response:
        model = incoming.path_params["model"]
        members = MODELS.get(model)
        if members is None:
            raise refuse(404, detail="Not Found")
        fields = json_of(incoming)
        if fields is None:
            raise _unprocessable([Problem("body", "model_attributes_type", "Input should be a valid dictionary")])
        if found := problems(fields, members):
            raise _unprocessable(found)
        if fields.get("width", 0) * fields.get("height", 0) > 4_194_304:
            raise _unprocessable([Problem("width", "value_error", "At most 4 megapixels")])
        if BUSY in fields["prompt"]:
            raise refuse(429, detail="Rate limit exceeded: 24 active tasks")
        if "mask" in fields:
            self.repainted.append(Repainted(source(fields["mask"], bare=True) or b"", by="white"))
        id_ = f"{len(self._tasks):08}-0000-4000-8000-000000000000"
        query = urlencode({"id": id_, "region": "eu2"})
        size = _size(fields)
        self._tasks[id_] = _Task(fields["prompt"], size, fields.get("output_format", "jpeg"), query)
        address = f"{self._polling_origin or incoming.origin}/v1/get_result?{query}"
        megapixels = {"input_mp": 0.0, "output_mp": round(size[0] * size[1] / 1e6, 2)}
        return JSONResponse({"id": id_, "polling_url": address, "cost": 3.0, **megapixels})

    async def _ask(self, incoming: Incoming) -> Response:
        task = self._tasks.get(incoming.query.get("id", ""))
        id_ = incoming.query.get("id")
        if task is None or LOST in task.prompt or urlencode(incoming.query) != task.query:
            return JSONResponse({"id": id_, "status": "Task not found", "result": None})
        task.asked += 1
        if shaken := is_shaken(task.prompt, task.asked):
            return shaken
        document: dict[str, Any] = {"id": id_, "status": "Pending", "result": None, "progress": None, "details": None}
        if task.asked == 1:
            return JSONResponse(document)
        if task.asked == 2 and STRANGE in task.prompt:
            return JSONResponse({**document, "status": "Waiting for the muse"})
        status: str = next((state for word, state in _ENDS.items() if word in task.prompt), "Ready")
        if status == "Ready":
            width, height = task.size
            path = self._shelf.put(width, height, prompt=task.prompt, seed=int(str(id_)[:8]), form=task.form)
            if EXPIRED in task.prompt:
                path = path.partition("?")[0]
            sample = {"sample": incoming.origin + path, "prompt": task.prompt, "seed": 42, "duration": 1.5}
            document["result"] = sample
        return JSONResponse({**document, "status": status}, 503 if status == "Error" else 200)


_ENDS: Final[Mapping[str, str]] = {
    FORBIDDEN_WORD: "Request Moderated",
    GRUESOME: "Content Moderated",
    HOPELESS: "Error",
}


def _is_authorized(incoming: Incoming) -> bool:
    return incoming.path.startswith("/delivery/") or incoming.headers.get("x-key") == KEY


def _unprocessable(found: list[Problem]) -> RefusedError:
    return refuse(422, detail=[{"loc": ["body", each.name], "msg": each.message, "type": each.kind} for each in found])


def _size(fields: Mapping[str, Any]) -> tuple[int, int]:
    sources = [fields[name] for name in ("image", "input_image") if name in fields] or fields.get("images") or []
    if "width" in fields or "height" in fields:
        return fields.get("width", 1024), fields.get("height", 768)
    ratio = fields.get("aspect_ratio", "auto")
    if ratio != "auto":
        return edges(ratio, _TIERS[fields.get("resolution", "1k")])
    return first_size(sources, bare=True) if sources else (1024, 1024)
