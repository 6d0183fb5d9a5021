"""TokenBay: a relay to OpenAI's image models with its own list of fields and a shorter error envelope.

Sources: TokenBay docs, Images (fields, paths, error envelope, status codes); the upstream models' own rules
from OpenAI. The documented forms are JSON for generations and multipart for edits.
"""

from __future__ import annotations

import time
from typing import Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from imagegate.demo.providers.common import Fields, RefusedError, names, read_text, refuse_unknown
from imagegate.demo.providers.frame import build_app
from imagegate.demo.providers.gallery import Gallery
from imagegate.demo.providers.incoming import Incoming
from imagegate.demo.providers.openai_models import (
    EDIT_FIELDS,
    GENERATION_FIELDS,
    Family,
    ImageCall,
    read_call,
    refuse_unsafe,
)
from imagegate.demo.providers.references import read_references
from imagegate.demo.providers.replies import gpt_image_facts, orders_of, picture_data, revised_prompt

NAME: Final = "TokenBay"
LINK_SECONDS: Final = 3600

FIELDS: Final = names(
    "model prompt size quality background n moderation output_compression response_format output_format user"
)
"""TokenBay docs, Images. A member that TokenBay takes may still be refused by the model behind it."""

FAILURE_WORD: Final = "fail-in-body"
"""A prompt with this word fails in its body only: HTTP 200 with `status: "failed"`."""

MODELS: Final[dict[str, Family]] = {
    "gpt-image-2": "gpt-image-2",
    "gpt-image-1.5": "gpt-image-1.5",
    "dall-e-3": "dall-e-3",
}


class TokenBayDialect:
    """`{"error": {message, type, code}}`, without `param`: the message alone names the field."""

    request_id_header = "x-request-id"

    def envelope(self, refusal: RefusedError, request_id: str) -> dict[str, object]:
        """See `frame.Dialect`."""
        return {"error": {"message": refusal.message, "type": refusal.kind, "code": refusal.code}}

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        message = "Invalid API key." if key else "API key is missing."
        return RefusedError(message, status=401, kind="authentication_error", code="invalid_api_key")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        message = f"Route {incoming.method} {incoming.path} not found."
        return RefusedError(message, status=404, kind="not_found_error", code="not_found")


def create_app(*, task_seconds: float = 0.3) -> Starlette:
    """Return the stand-in for https://api.tokenbay.com. It has no tasks; `task_seconds` is unused."""
    return _TokenBay().app


class _TokenBay:
    def __init__(self) -> None:
        self._gallery = Gallery("/files/images", lifetime=LINK_SECONDS)
        self.app = build_app(
            TokenBayDialect(),
            {("POST", "/v1/images/generations"): self._generate, ("POST", "/v1/images/edits"): self._edit},
            open_routes=[self._gallery.route],
        )

    async def _generate(self, incoming: Incoming) -> Response:
        fields = incoming.json_fields()
        family = _read_family(fields)
        refuse_unknown(fields, FIELDS & GENERATION_FIELDS[family])
        return await self._reply(incoming, read_call(family, fields), note="")

    async def _edit(self, incoming: Incoming) -> Response:
        fields = incoming.form_fields()
        family = _read_family(fields)
        if family == "dall-e-3":
            raise RefusedError("The model 'dall-e-3' does not support image edits.", code="invalid_value")
        refuse_unknown(fields, FIELDS & EDIT_FIELDS[family])
        call = read_call(family, fields)
        return await self._reply(incoming, call, note=read_references(incoming.files))

    async def _reply(self, incoming: Incoming, call: ImageCall, *, note: str) -> Response:
        refuse_unsafe(call.family, call.prompt)
        created = int(time.time())
        if FAILURE_WORD in call.prompt.lower():
            error = {
                "message": "The upstream image task failed.",
                "type": "upstream_error",
                "code": "task_failed",
            }
            return JSONResponse({"created": created, "status": "failed", "error": error, "data": []})
        base64 = call.response_format == "b64_json"
        orders = orders_of(call, provider=NAME, model=call.family, note=note)
        data = await picture_data(orders, gallery=self._gallery, origin=incoming.origin, base64=base64)
        if call.family == "dall-e-3":
            data = [{**entry, "revised_prompt": revised_prompt(call.prompt)} for entry in data]
        references = sum(file.name != "mask" for file in incoming.files)
        facts = gpt_image_facts(call, references=references) if call.is_gpt_image else {}
        return JSONResponse({"created": created, "data": data, **facts})


def _read_family(fields: Fields) -> Family:
    model = read_text(fields, "model")
    if model not in MODELS:
        # TokenBay docs, status codes: 503 is "no channel", a relay's code for an unknown model.
        message = f"No available channel for model {model}."
        raise RefusedError(message, status=503, kind="service_unavailable", code="model_not_found")
    return MODELS[model]
