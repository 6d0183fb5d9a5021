"""Recraft: OpenAI's generations with a size that may be a ratio, and forms for image to image, inpainting, backgrounds.

Source: www.recraft.ai/docs/api-reference (endpoints, appendix, image to image, inpainting, background).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import Repainted, Simulator, TextDialect, picture_base64, refuse, size_of
from tests.simulators.strict import BUSY, EXPIRED, GRUESOME, Member, Shelf, edges, form_of, json_of, problems

from imagegate.demo.providers.common import FORBIDDEN_WORD, RefusedError, parse_pixels
from imagegate.demo.providers.frame import has_bearer_key
from imagegate.demo.providers.incoming import Incoming

_ROWS: Final = [
    line.split(",")
    for line in (Path(__file__).parent.parent / "data" / "sizes_published.csv").read_text("utf-8").splitlines()
    if line.startswith("recraft,")
]
RATIOS: Final = (
    *("1:1", "2:1", "1:2", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5", "6:10", "14:10", "10:14", "16:9"),
    *("9:16",),
)


def _sizes(models: str) -> tuple[str, ...]:
    return (*(f"{row[4]}x{row[5]}" for row in _ROWS if row[1] == models), *RATIOS)


_COMMON: Final[Mapping[str, Member]] = {
    "prompt": Member(required=True, check=lambda value: "" if len(value) <= 10_000 else "is too long"),
    "model": Member(required=True),
    "n": Member("integer", low=1, high=6),
    "response_format": Member(values=("url", "b64_json")),
}
_THIRD: Final[Mapping[str, Member]] = {
    **_COMMON,
    "prompt": Member(required=True, check=lambda value: "" if len(value) <= 1000 else "is too long"),
    "style": Member(values=("realistic_image", "digital_illustration", "vector_illustration", "icon")),
    "substyle": Member(),
    "style_id": Member(),
    "negative_prompt": Member(),
}
_MORE: Final = {"controls": Member("object"), "text_layout": Member("array")}
GENERATIONS: Final[Mapping[str, Mapping[str, Member]]] = {
    "recraftv4_1": {**_COMMON, "controls": Member("object"), "size": Member(values=_sizes("recraftv4|v4_1"))},
    "recraftv4_pro": {
        **_COMMON,
        "controls": Member("object"),
        "size": Member(values=_sizes("recraftv4_pro|v4_1_pro")),
    },
    "recraftv3": {**_THIRD, **_MORE, "size": Member(values=_sizes("recraftv2|v3"))},
}
_STRENGTH: Final = {"strength": Member("number", low=0, high=1, required=True)}


def create_app() -> Starlette:
    """external.api.recraft.ai."""
    return _Recraft().app


def _bad(status: int, code: str, message: str) -> RefusedError:
    return refuse(status, code=code, message=message)


class _Dialect(TextDialect):
    """Plain texts."""

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(401, "request unauthorized")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(status, "404 page not found")


class _Recraft(Simulator):
    def __init__(self) -> None:
        self._random = itertools.count(1)
        self._shelf = Shelf()
        super().__init__(
            {
                ("POST", "/v1/images/generations"): self._generate,
                ("POST", "/v1/images/imageToImage"): self._from_image,
                ("POST", "/v1/images/inpaint"): self._masked,
                ("POST", "/v1/images/replaceBackground"): self._background,
                ("POST", "/v1/images/generateBackground"): self._masked,
                ("GET", "/delivery/{name}"): self._shelf.get,
            },
            dialect=_Dialect(),
            is_authorized=lambda incoming: incoming.path.startswith("/delivery/") or has_bearer_key(incoming),
        )

    async def _generate(self, incoming: Incoming) -> Response:
        fields = json_of(incoming)
        if fields is None:
            raise _bad(400, "invalid_request_parameter", "The body must be JSON")
        members = GENERATIONS.get(str(fields.get("model")))
        if members is None:
            raise _bad(400, "invalid_request_parameter", f"model {fields.get('model')} is not known")
        _check(fields, problems(fields, members))
        size = fields.get("size", "1:1")
        return self._answer(incoming, fields, parse_pixels(size) or edges(size))

    async def _from_image(self, incoming: Incoming) -> Response:
        third = str(dict(incoming.texts).get("model")) == "recraftv3"
        return self._edit(incoming, {**(_THIRD if third else _COMMON), **_STRENGTH}, {"image": (1, 1)})

    async def _background(self, incoming: Incoming) -> Response:
        return self._edit(incoming, _THIRD, {"image": (1, 1)})

    async def _masked(self, incoming: Incoming) -> Response:
        return self._edit(incoming, _THIRD, {"image": (1, 1), "mask": (1, 1)})

    def _edit(
        self, incoming: Incoming, members: Mapping[str, Member], named: Mapping[str, tuple[int, int]]
    ) -> Response:
        fields, files, found = form_of(incoming, members, named)
        _check(fields, found)
        if members is _THIRD and fields["model"] != "recraftv3":
            raise _bad(400, "invalid_request_parameter", "model must be recraftv3")
        size = size_of(files["image"][0])
        for mask in files.get("mask", []):
            painted = Repainted(mask, by="white")
            if painted.size != size or not painted.is_two_valued:
                raise _bad(400, "invalid_request_parameter", "mask must have the image's size, and no grey")
            self.repainted.append(painted)
        return self._answer(incoming, fields, size)

    def _answer(self, incoming: Incoming, fields: Mapping[str, Any], size: tuple[int, int]) -> Response:
        first, prompt = next(self._random) * 100, fields["prompt"]
        data: list[dict[str, Any]] = []
        for place in range(fields.get("n", 1)):
            item: dict[str, Any] = {"image_id": f"image-{place}"}
            if fields.get("response_format") == "b64_json":
                item["b64_json"] = picture_base64(*size, prompt=prompt, seed=first + place)
            else:
                path = self._shelf.put(*size, prompt=prompt, seed=first + place)
                item["url"] = incoming.origin + (path.partition("?")[0] if EXPIRED in prompt else path)
            data.append(item)
        return JSONResponse({"created": int(time.time()), "credits": 40 * len(data), "data": data})


def _check(fields: Mapping[str, Any], found: list[Any]) -> None:
    if found:
        raise _bad(400, "invalid_request_parameter", f"{found[0].name}: {found[0].message}")
    if BUSY in fields["prompt"]:
        raise _bad(429, "rate_limit_exceeded", "Too many images in a minute")
    if FORBIDDEN_WORD in fields["prompt"] or GRUESOME in fields["prompt"]:
        raise _bad(400, "content_policy_violation", "The prompt was rejected")
