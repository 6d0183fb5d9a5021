"""OneToken: gpt-image-2 behind a New-API relay, on paths that end in a slash.

Sources: OneToken docs, text to image and image edits (paths, fields, model, defaults, b64_json); the size
rule of the model from OpenAI, which also refuses the 512x512 that the docs show. The error envelope and the
part names are New-API's, on which OneToken runs: its own pages document neither for images.
"""

from __future__ import annotations

import time
from typing import Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from imagegate.demo.providers.common import Fields, RefusedError, names, read_text, refuse_unknown
from imagegate.demo.providers.frame import build_app
from imagegate.demo.providers.gallery import picture_base64
from imagegate.demo.providers.incoming import Incoming
from imagegate.demo.providers.openai_models import ImageCall, read_call, refuse_unsafe
from imagegate.demo.providers.references import read_references
from imagegate.demo.providers.replies import orders_of

NAME: Final = "OneToken"
MODEL: Final = "gpt-image-2"
FIELDS: Final = names("model prompt n size quality")
NEW_API: Final = "new_api_error"


class OneTokenDialect:
    """New-API: `{"error": {message, type, param, code}}` with the request id at the end of the message."""

    request_id_header = "x-oneapi-request-id"

    def envelope(self, refusal: RefusedError, request_id: str) -> dict[str, object]:
        """See `frame.Dialect`."""
        message = f"{refusal.message} (request id: {request_id})"
        error = {
            "message": message,
            "type": refusal.kind,
            "param": refusal.param or "",
            "code": refusal.code or "",
        }
        return {"error": error}

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        message = "Invalid token" if key else "No token provided"
        return RefusedError(message, status=401, kind=NEW_API)

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return RefusedError(f"Invalid URL ({incoming.method} {incoming.path})", status=404)


def create_app(*, task_seconds: float = 0.3) -> Starlette:
    """Return the stand-in for https://api.onetoken.one. It has no tasks; `task_seconds` is unused."""
    return build_app(
        OneTokenDialect(),
        {("POST", "/v1/images/generations/"): _generate, ("POST", "/v1/images/edits/"): _edit},
    )


async def _generate(incoming: Incoming) -> Response:
    fields = incoming.json_fields()
    read_text(fields, "model")
    call = _read_call(fields)
    return await _reply(call, note="")


async def _edit(incoming: Incoming) -> Response:
    # The documented example sends `image` and `prompt` alone, so `model` has a default here.
    call = _read_call(incoming.form_fields())
    return await _reply(call, note=read_references(incoming.files))


def _read_call(fields: Fields) -> ImageCall:
    model = fields.get("model", MODEL)
    if model != MODEL:
        message = f"No available channel for model {model} under group default"
        raise RefusedError(message, status=503, kind=NEW_API, code="model_not_found")
    refuse_unknown(fields, FIELDS)
    # The docs give quality the default "", which the relay leaves out of its own request.
    kept = {name: value for name, value in fields.items() if (name, value) != ("quality", "")}
    call = read_call(MODEL, kept)
    refuse_unsafe(MODEL, call.prompt)
    return call


async def _reply(call: ImageCall, *, note: str) -> Response:
    orders = orders_of(call, provider=NAME, model=MODEL, note=note)
    data = [{"b64_json": await picture_base64(order)} for order in orders]
    return JSONResponse({"created": int(time.time()), "data": data})
