"""Ideogram 3.0 and 4.0: forms only, a key in `Api-Key`, links to pictures, and unsafe ones withheld in a 200.

Sources: developer.ideogram.ai (generate, remix and inpaint with 3.0, remix with 4.0), docs.comfy.org (Ideogram 4.0).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import KEY, Repainted, Simulator, refuse, size_of
from tests.simulators.strict import BUSY, EXPIRED, GRUESOME, Member, Refusals, Shelf, edges, form_of

from imagegate.demo.providers.common import FORBIDDEN_WORD, parse_pixels
from imagegate.demo.providers.incoming import Incoming

_SIZES: Final = Path(__file__).parent.parent / "data" / "sizes_published.csv"
_V4: Final = tuple(
    f"{row[4]}x{row[5]}"
    for row in (line.split(",") for line in _SIZES.read_text("utf-8").splitlines())
    if row[1] == "ideogram-v4"
)
_V3: Final = (
    *("512x1536", "576x1408", "576x1472", "576x1536", "640x1344", "640x1408", "640x1472", "640x1536"),
    *("704x1152", "704x1216", "704x1280", "704x1344", "704x1408", "704x1472", "736x1312", "768x1088"),
    *("768x1216", "768x1280", "768x1344", "800x1280", "832x960", "832x1024", "832x1088", "832x1152"),
    *("832x1216", "832x1248", "864x1152", "896x960", "896x1024", "896x1088", "896x1120", "896x1152"),
    *("960x832", "960x896", "960x1024", "960x1088", "1024x832", "1024x896", "1024x960", "1024x1024"),
    *("1088x768", "1088x832", "1088x896", "1088x960", "1120x896", "1152x704", "1152x832", "1152x864"),
    *("1152x896", "1216x704", "1216x768", "1216x832", "1248x832", "1280x704", "1280x768", "1280x800"),
    *("1312x736", "1344x640", "1344x704", "1344x768", "1408x576", "1408x640", "1408x704", "1472x576"),
    *("1472x640", "1472x704", "1536x512", "1536x576", "1536x640"),
)
_RATIOS: Final = (
    *("1x1", "16x9", "9x16", "10x16", "16x10", "2x3", "3x2", "3x4", "4x3", "4x5", "5x4", "1x2", "2x1"),
    *("1x3", "3x1"),
)
_COMMON: Final[Mapping[str, Member]] = {
    "prompt": Member(required=True),
    "seed": Member("integer", low=0, high=2147483647),
    "rendering_speed": Member(values=("FLASH", "TURBO", "DEFAULT", "QUALITY")),
    "magic_prompt": Member(values=("AUTO", "ON", "OFF")),
    "num_images": Member("integer", low=1, high=8),
    "style_codes": Member("array"),
    "style_type": Member(values=("AUTO", "GENERAL", "REALISTIC", "DESIGN", "FICTION")),
}
_SHAPED: Final[Mapping[str, Member]] = {
    **_COMMON,
    "negative_prompt": Member(),
    "resolution": Member(values=_V3),
    "aspect_ratio": Member(values=_RATIOS),
}
_WEIGHT: Final = {"image_weight": Member("integer", low=1, high=100)}
_FOURTH: Final[Mapping[str, Member]] = {
    "text_prompt": Member(required=True),
    "resolution": Member(values=_V4),
    "rendering_speed": Member(values=("TURBO", "DEFAULT", "QUALITY")),
}
_ONE: Final = {"image": (1, 1)}
PATHS: Final[Mapping[str, tuple[Mapping[str, Member], Mapping[str, tuple[int, int]]]]] = {
    "ideogram-v3/generate": (_SHAPED, {}),
    "ideogram-v3/remix": ({**_SHAPED, **_WEIGHT}, _ONE),
    "ideogram-v3/inpaint": (_COMMON, {**_ONE, "mask": (1, 1)}),
    "ideogram-v4/generate": (_FOURTH, {}),
    "ideogram-v4/remix": ({**_FOURTH, **_WEIGHT}, _ONE),
}


def create_app() -> Starlette:
    """api.ideogram.ai."""
    return _Ideogram().app


class _Ideogram(Simulator):
    def __init__(self) -> None:
        self._random = itertools.count(1)
        self._shelf = Shelf()
        super().__init__(
            {
                ("POST", "/v1/{model}/{action}"): self._make,
                ("GET", "/delivery/{name}"): self._shelf.get,
            },
            dialect=Refusals(wrong_key={"error": "Invalid api token"}, no_route={"error": "Not found"}),
            is_authorized=lambda incoming: (
                incoming.path.startswith("/delivery/") or incoming.headers.get("api-key") == KEY
            ),
        )

    async def _make(self, incoming: Incoming) -> Response:
        path = f"{incoming.path_params['model']}/{incoming.path_params['action']}"
        if path not in PATHS:
            raise refuse(404, error="Not found")
        fields, files, found = form_of(incoming, *PATHS[path])
        if found:
            raise refuse(400, error=f"{found[0].name}: {found[0].message}")
        if "resolution" in fields and "aspect_ratio" in fields:
            raise refuse(400, error="resolution and aspect_ratio cannot be used together")
        if "style_codes" in fields and "style_type" in fields:
            raise refuse(400, error="style_codes and style_type cannot be used together")
        prompt = fields.get("prompt") or fields["text_prompt"]
        if BUSY in prompt:
            raise refuse(429, error="Too many requests in flight")
        if FORBIDDEN_WORD in prompt:
            raise refuse(422, error="Prompt or provided image failed the safety checks")
        size = parse_pixels(fields.get("resolution", "")) or edges(fields.get("aspect_ratio", "1x1").replace("x", ":"))
        if files.get("mask"):
            self.repainted.append(_painted(files["mask"][0]))
            size = size_of(files["image"][0])
        seed = fields.get("seed", next(self._random) * 100)
        data: list[dict[str, Any]] = []
        for place in range(fields.get("num_images", 1)):
            path = self._shelf.put(*size, prompt=prompt, seed=seed + place)
            link = incoming.origin + (path.partition("?")[0] if EXPIRED in prompt else path)
            is_safe = GRUESOME not in prompt
            item = {"prompt": prompt, "resolution": f"{size[0]}x{size[1]}", "seed": seed + place}
            data.append({**item, "is_image_safe": is_safe, "url": link if is_safe else None, "style_type": "GENERAL"})
        return JSONResponse({"created": "2026-11-29T10:00:00.000000+00:00", "data": data})


def _painted(mask: bytes) -> Repainted:
    """Black is painted, and there is no grey."""
    painted = Repainted(mask, by="black")
    if not painted.is_two_valued:
        raise refuse(400, error="mask: must be black and white")
    return painted
