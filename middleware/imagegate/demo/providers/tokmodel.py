"""TokModel: OpenAI's Images API word for word, with `vendor/model` names.

Sources: TokModel docs, image generation (paths, fields, dall-e-2's file rules, temporary links); where they
say "OpenAI Images API shape", OpenAI's image reference and its measured answers.
"""

from __future__ import annotations

import time
from typing import Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from imagegate.demo.providers.common import (
    USER_ERROR,
    Fields,
    RefusedError,
    listed_size,
    read_integer,
    read_response_format,
    read_text,
    refuse_unknown,
)
from imagegate.demo.providers.frame import build_app
from imagegate.demo.providers.gallery import Gallery, PictureOrder
from imagegate.demo.providers.incoming import Incoming, PictureFacts
from imagegate.demo.providers.openai_models import (
    DALL_E_2_SIZES,
    EDIT_FIELDS,
    GENERATION_FIELDS,
    VARIATION_FIELDS,
    Family,
    ImageCall,
    read_call,
    refuse_unsafe,
)
from imagegate.demo.providers.references import edit_note, read_references, read_square_png
from imagegate.demo.providers.replies import (
    event_stream,
    gpt_image_facts,
    orders_of,
    picture_data,
    revised_prompt,
)

NAME: Final = "TokModel"
LINK_SECONDS: Final = 3600
"""TokModel calls its links temporary without a figure; OpenAI's own DALL-E links lived an hour."""

MODELS: Final[dict[str, Family]] = {
    "openai/dall-e-3": "dall-e-3",
    "openai/dall-e-2": "dall-e-2",
    "openai/gpt-image-2": "gpt-image-2",
    "openai/gpt-image-1.5": "gpt-image-1.5",
}


class TokModelDialect:
    """OpenAI's envelope: always the four members, null where there is nothing to say."""

    request_id_header = "x-request-id"

    def envelope(self, refusal: RefusedError, request_id: str) -> dict[str, object]:
        """See `frame.Dialect`."""
        error = {
            "message": refusal.message,
            "type": refusal.kind,
            "param": refusal.param,
            "code": refusal.code,
        }
        return {"error": {**error, **refusal.extra}}

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        if not key:
            message = "You didn't provide an API key. You need to provide your API key in an Authorization header "
            message += "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
            return RefusedError(message, status=401)
        return RefusedError("Incorrect API key provided.", status=401, code="invalid_api_key")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        if status == 405:
            message = f"Not allowed to {incoming.method} on {incoming.path}."
            return RefusedError(message, status=405, code="method_not_supported")
        return RefusedError(f"Invalid URL ({incoming.method} {incoming.path})", status=404)


def create_app(*, task_seconds: float = 0.3) -> Starlette:
    """Return the stand-in for https://tokmodel.com. It has no tasks; `task_seconds` is unused."""
    return _TokModel().app


class _TokModel:
    def __init__(self) -> None:
        self._gallery = Gallery("/cdn/images", lifetime=LINK_SECONDS)
        self.app = build_app(
            TokModelDialect(),
            {
                ("POST", "/v1/images/generations"): self._generate,
                ("POST", "/v1/images/edits"): self._edit,
                ("POST", "/v1/images/variations"): self._vary,
                ("GET", "/v1beta/models"): self._models,
            },
            open_routes=[self._gallery.route],
        )

    async def _generate(self, incoming: Incoming) -> Response:
        fields = incoming.json_fields()
        model, family = _read_model(fields)
        refuse_unknown(fields, GENERATION_FIELDS[family])
        call = read_call(family, fields)
        refuse_unsafe(family, call.prompt)
        orders = orders_of(call, provider=NAME, model=model)
        if call.stream:
            return event_stream(call, orders, event="image_generation")
        return await self._reply(incoming, call, orders, kind="generated")

    async def _edit(self, incoming: Incoming) -> Response:
        fields = incoming.form_fields()
        model, family = _read_model(fields)
        if family == "dall-e-3":
            message = f"Invalid value: '{model}'. The model does not support image edits."
            raise RefusedError(message, param="model", code="invalid_value")
        refuse_unknown(fields, EDIT_FIELDS[family])
        if family == "dall-e-2":
            return await self._edit_square(incoming, model, fields)
        call = read_call(family, fields)
        note = read_references(incoming.files)
        refuse_unsafe(family, call.prompt)
        orders = orders_of(call, provider=NAME, model=model, note=note)
        references = sum(file.name != "mask" for file in incoming.files)
        if call.stream:
            return event_stream(call, orders, event="image_edit", references=references)
        return await self._reply(incoming, call, orders, kind="edited", references=references)

    async def _edit_square(self, incoming: Incoming, model: str, fields: Fields) -> Response:
        image, masked = read_square_png(incoming.files, editing=True)
        call = read_call("dall-e-2", {**fields, "size": _edit_size(fields, image)})
        refuse_unsafe("dall-e-2", call.prompt)
        orders = orders_of(call, provider=NAME, model=model, note=edit_note(1, masked=masked))
        return await self._reply(incoming, call, orders, kind="edited")

    async def _vary(self, incoming: Incoming) -> Response:
        fields = incoming.form_fields()
        model, family = _read_model(fields)
        if family != "dall-e-2":
            message = f"Invalid value: '{model}'. Only dall-e-2 makes variations."
            raise RefusedError(message, param="model", code="invalid_value")
        refuse_unknown(fields, VARIATION_FIELDS)
        read_square_png(incoming.files, editing=False)
        n = read_integer(fields, "n", 1, 10, default=1)
        width, height = listed_size(fields, DALL_E_2_SIZES, default="1024x1024")
        response_format = read_response_format(fields, default="url")
        call = ImageCall("dall-e-2", "Variation", n, width, height, "standard", response_format=response_format)
        orders = orders_of(call, provider=NAME, model=model, note="variation of 1 image")
        return await self._reply(incoming, call, orders, kind="variations")

    async def _reply(
        self,
        incoming: Incoming,
        call: ImageCall,
        orders: list[PictureOrder],
        *,
        kind: str,
        references: int = 0,
    ) -> Response:
        base64 = call.response_format == "b64_json"
        data = await picture_data(orders, gallery=self._gallery, origin=incoming.origin, base64=base64, kind=kind)
        if call.family == "dall-e-3":
            data = [{**entry, "revised_prompt": revised_prompt(call.prompt)} for entry in data]
        facts = gpt_image_facts(call, references=references) if call.is_gpt_image else {}
        return JSONResponse({"created": int(time.time()), "data": data, **facts})

    async def _models(self, incoming: Incoming) -> Response:
        data = [{"id": model, "object": "model", "owned_by": "openai"} for model in MODELS]
        return JSONResponse({"object": "list", "data": data})


def _read_model(fields: Fields) -> tuple[str, Family]:
    model = read_text(fields, "model")
    if model not in MODELS:
        message = f"The model '{model}' does not exist."
        raise RefusedError(message, kind=USER_ERROR, param="model", code="invalid_value")
    return model, MODELS[model]


def _edit_size(fields: Fields, image: PictureFacts) -> object:
    """Require the source's size; absent, it follows the source (TokModel docs, image editing)."""
    source = f"{image.width}x{image.height}"
    wanted = fields.get("size")
    if wanted is None:
        return source if source in DALL_E_2_SIZES else None
    if wanted in DALL_E_2_SIZES and wanted != source:
        message = f"Invalid value: '{wanted}'. The size must match the source image size, {source}."
        raise RefusedError(message, param="size", code="invalid_value")
    return wanted
