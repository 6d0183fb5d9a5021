"""Together's images API: JSON only, `response_format` with words of its own, references by link or data URL.

Sources: together 3.1.1 (members, reply), docs.together.ai (which model takes which members), @ai-sdk/togetherai 3.0.54
(data URLs, errors).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import Simulator, picture_base64, refuse
from tests.simulators.strict import (
    BUSY,
    GRUESOME,
    Member,
    Refusals,
    Shelf,
    are_sources,
    edges,
    is_source,
    json_of,
    problems,
)

from imagegate.demo.providers.common import FORBIDDEN_WORD, RefusedError
from imagegate.demo.providers.frame import has_bearer_key
from imagegate.demo.providers.incoming import Incoming

_COMMON: Final[Mapping[str, Member]] = {
    "prompt": Member(required=True),
    "model": Member(required=True),
    "n": Member("integer", low=1, high=4),
    "seed": Member("integer"),
    "response_format": Member(values=("base64", "url")),
    "output_format": Member(values=("jpeg", "png")),
    "disable_safety_checker": Member("boolean"),
}
_PIXELS: Final[Mapping[str, Member]] = {
    "width": Member("integer", low=64, high=2048, multiple=8),
    "height": Member("integer", low=64, high=2048, multiple=8),
}
_RATIO: Final = {"aspect_ratio": Member(check=lambda value: "" if ":" in value else "must be W:H")}
_TUNED: Final = {"steps": Member("integer", low=1, high=50), "guidance_scale": Member("number")}
_LIST: Final = {"reference_images": Member("array", check=are_sources(8))}
MODELS: Final[Mapping[str, Mapping[str, Member]]] = {
    "black-forest-labs/FLUX.1-schnell": {**_COMMON, **_RATIO, "steps": Member("integer", low=1, high=12)},
    "black-forest-labs/FLUX.1.1-pro": {**_COMMON, **_PIXELS},
    "black-forest-labs/FLUX.1-kontext-pro": {**_COMMON, **_RATIO, "image_url": Member(check=is_source)},
    "black-forest-labs/FLUX.2-pro": {**_COMMON, **_PIXELS, **_LIST, "image_url": Member(check=is_source)},
    "black-forest-labs/FLUX.2-dev": {**_COMMON, **_PIXELS, **_TUNED, **_LIST},
}


def create_app() -> Starlette:
    """api.together.xyz."""
    return _Together().app


def _error(status: int, message: str, kind: str = "invalid_request_error", param: str | None = None) -> RefusedError:
    return refuse(status, id="o1-2", error={"message": message, "type": kind, "param": param, "code": None})


class _Together(Simulator):
    def __init__(self) -> None:
        self._random = itertools.count(1)
        self._shelf = Shelf()
        refusals = Refusals(
            wrong_key={"error": {"message": "Invalid API key provided", "type": "invalid_request_error"}},
            no_route={"error": {"message": "Not found", "type": "invalid_request_error"}},
        )
        super().__init__(
            {
                ("POST", "/v1/images/generations"): self._generate,
                ("GET", "/delivery/{name}"): self._shelf.get,
            },
            dialect=refusals,
            is_authorized=lambda incoming: incoming.path.startswith("/delivery/") or has_bearer_key(incoming),
        )

    async def _generate(self, incoming: Incoming) -> Response:
        fields = json_of(incoming)
        if fields is None:
            raise _error(400, "The body must be JSON")
        members = MODELS.get(str(fields.get("model")))
        if members is None:
            raise _error(404, f"Unable to access model {fields.get('model')}", "model_not_available", "model")
        if found := problems(fields, members):
            raise _error(422, found[0].message, param=found[0].name)
        prompt = fields["prompt"]
        if BUSY in prompt:
            raise _error(429, "You have reached the rate limit of images", "rate_limit")
        if FORBIDDEN_WORD in prompt or GRUESOME in prompt:
            raise _error(422, f"NSFW content detected in the {'prompt' if FORBIDDEN_WORD in prompt else 'picture'}")
        size = edges(fields["aspect_ratio"]) if "aspect_ratio" in fields else _size(fields)
        seed, form = fields.get("seed", next(self._random) * 100), fields.get("output_format", "jpeg")
        data: list[dict[str, Any]] = []
        for place in range(fields.get("n", 1)):
            drawn = {"prompt": prompt, "seed": seed + place, "form": form}
            if fields.get("response_format", "url") == "base64":
                data.append({"index": place, "type": "b64_json", "b64_json": picture_base64(*size, **drawn)})
            else:
                data.append({"index": place, "type": "url", "url": incoming.origin + self._shelf.put(*size, **drawn)})
        return JSONResponse({"id": "o1-2", "model": fields["model"], "object": "list", "data": data})


def _size(fields: Mapping[str, Any]) -> tuple[int, int]:
    return fields.get("width", 1024), fields.get("height", 1024)
