"""Replicate's predictions: an input for each model, a reply that may wait, and pictures as a text or a list.

Sources: replicate.com, "HTTP API" (predictions, `Prefer: wait`, errors as RFC 7807 has them) and the models' pages
(inputs, outputs); replicate 1.4.0 (states, addresses).
"""

from __future__ import annotations

import re
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
from imagegate.demo.providers.frame import has_bearer_key
from imagegate.demo.providers.incoming import Incoming

QUICK: Final = "quick"
"""A prompt with this word makes a picture within any time that a reply waits."""
_FORMATS: Final = Member(values=("webp", "jpg", "png"))
_QUALITY: Final = Member("integer", low=0, high=100)
_RATIOS: Final = ("1:1", "16:9", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21")
_KONTEXT: Final = ("match_input_image", "1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3", "4:5", "5:4", "21:9", "9:21")
_GEMINI: Final = ("match_input_image", "1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_COMMON: Final[Mapping[str, Member]] = {"prompt": Member(required=True), "seed": Member("integer")}
MODELS: Final[Mapping[str, Mapping[str, Member]]] = {
    "black-forest-labs/flux-dev": {
        **_COMMON,
        "aspect_ratio": Member(values=_RATIOS),
        "image": Member(check=is_source),
        "prompt_strength": Member("number", low=0, high=1),
        "num_outputs": Member("integer", low=1, high=4),
        "num_inference_steps": Member("integer", low=1, high=50),
        "output_format": _FORMATS,
        "output_quality": _QUALITY,
    },
    "black-forest-labs/flux-2-pro": {
        **_COMMON,
        "input_images": Member("array", check=are_sources(8)),
        "aspect_ratio": Member(values=("match_input_image", "custom", *_RATIOS)),
        "width": Member("integer", low=256, high=2048, multiple=16),
        "height": Member("integer", low=256, high=2048, multiple=16),
        "output_format": _FORMATS,
        "output_quality": _QUALITY,
    },
    "black-forest-labs/flux-kontext-pro": {
        **_COMMON,
        "input_image": Member(check=is_source),
        "aspect_ratio": Member(values=_KONTEXT),
        "safety_tolerance": Member("integer", low=0, high=6),
        "output_format": Member(values=("jpg", "png")),
    },
    "black-forest-labs/flux-fill-pro": {
        **_COMMON,
        "image": Member(required=True, check=is_source),
        "mask": Member(check=is_source),
        "output_format": Member(values=("jpg", "png")),
    },
    "google/nano-banana-2": {
        "prompt": Member(required=True),
        "image_input": Member("array", check=are_sources(14)),
        "aspect_ratio": Member(values=_GEMINI),
        "resolution": Member(values=("1K", "2K", "4K")),
        "output_format": Member(values=("jpg", "png")),
    },
}
VERSIONED: Final = "studio/paintings"
VERSION: Final = "0123456789abcdef"


@dataclass(slots=True)
class _Prediction:
    model: str
    fields: dict[str, Any]
    asked: int = 0
    cancelled: bool = False

    @property
    def prompt(self) -> str:
        return str(self.fields["prompt"])


class _Dialect(TextDialect):
    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        return _problem(401, "Unauthenticated", "You did not pass a valid authentication token")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return _problem(status, "Not found", "The requested resource could not be found.")


def create_app() -> Starlette:
    """api.replicate.com."""
    return _Replicate().app


class _Replicate(Simulator):
    def __init__(self) -> None:
        self._predictions: dict[str, _Prediction] = {}
        self._shelf = Shelf()
        super().__init__(
            {
                ("POST", "/v1/models/{owner}/{name}/predictions"): self._of_model,
                ("POST", "/v1/predictions"): self._of_version,
                ("GET", "/v1/predictions/{id}"): self._ask,
                ("POST", "/v1/predictions/{id}/cancel"): self._cancel,
                ("GET", "/delivery/{name}"): self._shelf.get,
            },
            dialect=_Dialect(),
            is_authorized=lambda incoming: incoming.path.startswith("/delivery/") or _has_key(incoming),
        )

    async def _of_model(self, incoming: Incoming) -> Response:
        model = f"{incoming.path_params['owner']}/{incoming.path_params['name']}"
        if model not in MODELS:
            raise _problem(404, "Not found", "The requested resource could not be found.")
        return self._create(incoming, model, MODELS[model], known=("input",))

    async def _of_version(self, incoming: Incoming) -> Response:
        if (json_of(incoming) or {}).get("version") != VERSION:
            raise _problem(422, "Invalid version or not permitted", "The specified version does not exist")
        return self._create(incoming, VERSIONED, {**_COMMON, "mood": Member()}, known=("input", "version"))

    def _create(
        self, incoming: Incoming, model: str, members: Mapping[str, Member], known: tuple[str, ...]
    ) -> Response:
        document = json_of(incoming)
        fields = document.get("input") if document else None
        if document is None or set(document) != set(known) or not isinstance(fields, dict):
            raise _problem(422, "Input validation failed", "- input is required")
        if found := problems(fields, members):
            said = "".join(f"- input.{each.name}: {each.message}\n" for each in found)
            raise _problem(422, "Input validation failed", said)
        if ("width" in fields) != (fields.get("aspect_ratio") == "custom"):
            raise _problem(422, "Input validation failed", "- input.aspect_ratio: custom needs width and height")
        if BUSY in fields["prompt"]:
            raise refuse(429, detail="Request was throttled. Expected available in 1 second.", status=429)
        if "mask" in fields:
            self.repainted.append(Repainted(source(fields["mask"]) or b"", by="white"))
        prefer = incoming.headers.get("prefer", "")
        if prefer and not re.fullmatch(r"wait(=([1-9]|[1-5][0-9]|60))?", prefer):
            raise _problem(400, "Bad request", "Prefer: wait takes 1 to 60 seconds")
        id_ = f"{len(self._predictions):06}q2w3e4r5t6y7"
        self._predictions[id_] = prediction = _Prediction(model, fields)
        if prefer and QUICK in prediction.prompt:
            prediction.asked = 3
        return JSONResponse(self._document(incoming, id_, prediction), 201)

    async def _ask(self, incoming: Incoming) -> Response:
        id_, prediction = self._prediction(incoming)
        prediction.asked += 1
        if shaken := is_shaken(prediction.prompt, prediction.asked):
            return shaken
        return JSONResponse(self._document(incoming, id_, prediction))

    async def _cancel(self, incoming: Incoming) -> Response:
        id_, prediction = self._prediction(incoming)
        prediction.cancelled = True
        return JSONResponse(self._document(incoming, id_, prediction))

    def _prediction(self, incoming: Incoming) -> tuple[str, _Prediction]:
        id_ = incoming.path_params["id"]
        if id_ not in self._predictions:
            raise _problem(404, "Not found", "Prediction not found")
        return id_, self._predictions[id_]

    def _document(self, incoming: Incoming, id_: str, prediction: _Prediction) -> dict[str, Any]:
        own = f"{incoming.origin}/v1/predictions/{id_}"
        states = ["starting", *(["booting"] if STRANGE in prediction.prompt else []), "processing", "succeeded"]
        state = states[min(prediction.asked, len(states) - 1)]
        error = output = None
        if prediction.cancelled:
            state = "canceled"
        elif state == "succeeded" and (said := _ends(prediction.prompt)):
            state, error = "failed", said
        elif state == "succeeded":
            output = self._output(incoming, id_, prediction)
        return {
            "id": id_,
            "model": prediction.model,
            "version": "hidden",
            "input": {"prompt": prediction.prompt},
            "logs": "",
            "output": output,
            "data_removed": False,
            "error": error,
            "status": state,
            "created_at": "2026-11-29T12:00:00.000Z",
            "urls": {"get": own, "cancel": f"{own}/cancel", "web": f"https://replicate.com/p/{id_}"},
        }

    def _output(self, incoming: Incoming, id_: str, prediction: _Prediction) -> list[str] | str:
        fields = prediction.fields
        width, height = _pixels(fields)
        form = str(fields.get("output_format", "webp")).replace("jpg", "jpeg")
        links: list[str] = []
        for seed in range(fields.get("num_outputs", 1)):
            path = self._shelf.put(width, height, prompt=f"{prediction.prompt} {id_}", seed=seed, form=form)
            path = path.partition("?")[0] if EXPIRED in prediction.prompt else path
            links.append(incoming.origin + path)
        return links if "flux-dev" in prediction.model else links[0]


def _ends(prompt: str) -> str:
    if FORBIDDEN_WORD in prompt:
        return "The input or output was flagged as sensitive. Please try again with different inputs. (E005)"
    if GRUESOME in prompt:
        return "NSFW content detected. Try running it again, or try a different prompt."
    return "Prediction interrupted; please retry (code: PA)" if HOPELESS in prompt else ""


def _has_key(incoming: Incoming) -> bool:
    return has_bearer_key(incoming) and incoming.key == KEY


def _problem(status: int, title: str, detail: str) -> RefusedError:
    return refuse(status, title=title, detail=detail, status=status)


def _pixels(fields: Mapping[str, Any]) -> tuple[int, int]:
    if "width" in fields:
        return fields["width"], fields["height"]
    sources = fields.get("input_images") or fields.get("image_input") or []
    sources = [*sources, *(fields[name] for name in ("image", "input_image") if name in fields)]
    ratio = fields.get("aspect_ratio", "match_input_image" if sources else "1:1")
    if ratio == "match_input_image":
        return first_size(sources) if sources else (1024, 1024)
    return edges(ratio, {"1K": 1024.0, "2K": 2048.0, "4K": 4096.0}[fields.get("resolution", "1K")])
