"""Amazon Bedrock's runtime with Stability's models: JSON, a refusal in a 200, errors by exception.

Sources: docs.aws.amazon.com/bedrock (InvokeModel, Stable Image Core and Ultra, Stable Diffusion 3.5, API keys),
langwatch/langwatch#7804 (a model that is not there).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import Simulator, decode_base64, is_picture, picture_base64, refuse, size_of
from tests.simulators.strict import BUSY, GRUESOME, Member, Refusals, edges, json_of, problems

from imagegate.demo.providers.common import FORBIDDEN_WORD, RefusedError
from imagegate.demo.providers.frame import has_bearer_key
from imagegate.demo.providers.incoming import Incoming

SLOW: Final = "endless"
"""A prompt with this word takes the model longer than it may."""
BROKEN: Final = "broken"
"""A prompt with this word ends in an inference error."""
_TEXT: Final[Mapping[str, Member]] = {
    "prompt": Member(required=True, check=lambda value: "" if len(value) <= 10_000 else "expected maxLength: 10000"),
    "negative_prompt": Member(),
    "aspect_ratio": Member(values=("16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21")),
    "mode": Member(values=("text-to-image",)),
    "output_format": Member(values=("png", "jpeg")),
    "seed": Member("integer", low=0, high=4294967295),
}
_BOTH: Final[Mapping[str, Member]] = {
    **_TEXT,
    "mode": Member(values=("text-to-image", "image-to-image")),
    "image": Member(check=lambda value: "" if is_picture(decode_base64(value) or b"") else "expected an image"),
    "strength": Member("number", low=0, high=1),
}
MODELS: Final[Mapping[str, Mapping[str, Member]]] = {
    "stability.stable-image-core-v1:1": _TEXT,
    "stability.stable-image-ultra-v1:1": _TEXT,
    "stability.sd3-5-large-v1:0": _BOTH,
}


def create_app() -> Starlette:
    """bedrock-runtime.us-west-2.amazonaws.com."""
    return _Bedrock().app


def _invalid(message: str) -> RefusedError:
    return refuse(400, message=message)


class _Bedrock(Simulator):
    def __init__(self) -> None:
        self._random = itertools.count(1)
        super().__init__(
            {("POST", "/model/{model}/invoke"): self._invoke},
            dialect=Refusals(
                wrong_key={"Message": "Authentication failed: Please make sure your API Key is valid."},
                no_route={"message": "UnknownOperationException"},
            ),
            is_authorized=has_bearer_key,
        )

    async def _invoke(self, incoming: Incoming) -> Response:
        members = MODELS.get(unquote(incoming.path_params["model"]))
        if members is None:
            raise _invalid("The provided model identifier is invalid.")
        fields = json_of(incoming)
        if fields is None:
            raise _invalid("The body is not valid JSON")
        if found := problems(fields, members):
            raise _invalid(f"Malformed input request: #/{found[0].name}: {found[0].message}")
        starts = fields.get("mode") == "image-to-image"
        if starts != ("image" in fields) or starts != ("strength" in fields) or (starts and "aspect_ratio" in fields):
            raise _invalid(
                "Malformed input request: image and strength belong to image-to-image, aspect_ratio does not"
            )
        return self._answer(fields)

    def _answer(self, fields: Mapping[str, Any]) -> Response:
        prompt = fields["prompt"]
        if BUSY in prompt:
            raise refuse(429, message="Too many requests, please wait before trying again.")
        if SLOW in prompt:
            raise refuse(408, message="Model has timed out in processing the request. Try your request again.")
        ends = {FORBIDDEN_WORD: "Filter reason: prompt", GRUESOME: "Filter reason: output image"}
        reason = next((each for word, each in {**ends, BROKEN: "Inference error"}.items() if word in prompt), None)
        if reason is not None:
            return JSONResponse({"finish_reasons": [reason]})
        size = edges(fields.get("aspect_ratio", "1:1"))
        if "image" in fields:
            size = size_of(decode_base64(fields["image"]) or b"")
        seed = fields.get("seed", next(self._random))
        content = picture_base64(*size, prompt=prompt, seed=seed, form=fields.get("output_format", "png"))
        return JSONResponse({"seeds": [seed], "finish_reasons": [None], "images": [content]})
