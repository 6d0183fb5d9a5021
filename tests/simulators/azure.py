"""Azure OpenAI in both of its forms: ``/openai/v1`` with the deployment as ``model``, and a path for each deployment.

Sources: Microsoft's how-to for image models (2026-03: paths, versions, content filter, no webp, edits as forms only);
the models' own rules are OpenAI's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import Simulator, TextDialect, picture_base64, refuse

from imagegate.demo.providers.common import FORBIDDEN_WORD, RefusedError, invalid_value, refuse_unknown
from imagegate.demo.providers.frame import KEY_PREFIX, has_bearer_key
from imagegate.demo.providers.incoming import Incoming
from imagegate.demo.providers.openai_models import (
    EDIT_FIELDS,
    GENERATION_FIELDS,
    Family,
    ImageCall,
    read_call,
)
from imagegate.demo.providers.references import read_references, split_files
from imagegate.demo.providers.replies import event_stream, gpt_image_facts, orders_of

DEPLOYMENTS: Final[Mapping[str, Family]] = {"pictures": "gpt-image-2", "old-pictures": "gpt-image-1.5"}
"""Names that an administrator gave, and the models behind them."""
VERSION: Final = "2025-04-01-preview"
FILTERED_WORD: Final = "gruesome"
"""A prompt with this word passes, and its picture is withheld."""

_INPUT: Final = "Your task failed as a result of our safety system."
_OUTPUT: Final = "Generated image was filtered as a result of our safety system."


class _Dialect(TextDialect):
    """OpenAI's envelope; the service's own complaints have a code and a message only."""

    request_id_header = "apim-request-id"

    def envelope(self, refusal: RefusedError, request_id: str) -> Mapping[str, object] | str:
        """See `frame.Dialect`."""
        if refusal.extra or not refusal.message:
            return refusal.extra or refusal.message
        names = {"message": refusal.message, "type": refusal.kind, "param": refusal.param, "code": refusal.code}
        return {"error": names}

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        message = (
            "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key "
        )
        message += "for an active subscription and use a correct regional API endpoint for your resource."
        return refuse(401, error={"code": "401", "message": message})

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(404, error={"code": "404", "message": "Resource not found"})


def create_app() -> Starlette:
    """One resource with two deployments."""
    return _Azure().app


class _Azure(Simulator):
    def __init__(self) -> None:
        by_path, v1 = "/openai/deployments/{deployment}/images/", "/openai/v1/images/"
        super().__init__(
            {
                ("POST", f"{v1}generations"): self._generate,
                ("POST", f"{v1}edits"): self._edit,
                ("POST", f"{by_path}generations"): self._generate,
                ("POST", f"{by_path}edits"): self._edit,
            },
            dialect=_Dialect(),
            is_authorized=_is_authorized,
        )

    async def _generate(self, incoming: Incoming) -> Response:
        fields = incoming.json_fields()
        family, fields = self._deployment(incoming, fields)
        refuse_unknown(fields, GENERATION_FIELDS[family])
        return await self._answer(_checked(family, fields))

    async def _edit(self, incoming: Incoming) -> Response:
        fields = incoming.form_fields()
        family, fields = self._deployment(incoming, fields)
        refuse_unknown(fields, EDIT_FIELDS[family])
        images, _ = split_files(incoming.files)
        read_references(incoming.files)
        return await self._answer(_checked(family, fields), references=len(images))

    def _deployment(self, incoming: Incoming, fields: dict[str, Any]) -> tuple[Family, dict[str, Any]]:
        by_path = incoming.path_params.get("deployment")
        version = incoming.query.get("api-version")
        if by_path is not None and not version:
            raise refuse(404, error={"code": "404", "message": "Resource not found"})
        if by_path is None and version not in (None, "preview", "latest"):
            raise refuse(400, error={"code": "BadRequest", "message": "API version not supported"})
        name = by_path if by_path is not None else fields.get("model")
        if name not in DEPLOYMENTS:
            message = (
                "The API deployment for this resource does not exist. If you created the deployment within the last "
            )
            message += "5 minutes, please wait a moment and try again."
            raise refuse(404, error={"code": "DeploymentNotFound", "message": message})
        return DEPLOYMENTS[str(name)], fields

    async def _answer(self, call: ImageCall, *, references: int = 0) -> Response:
        for word, message in ((FORBIDDEN_WORD, _INPUT), (FILTERED_WORD, _OUTPUT)):
            if word in call.prompt.lower():
                error = {"code": "contentFilter", "message": message}
                raise refuse(400, created=int(time.time()), error=error)
        if call.stream:
            orders = orders_of(call, provider="Azure", model=call.family)
            event = "image_edit" if references else "image_generation"
            return event_stream(call, orders, event=event, references=references)
        data = [
            {"b64_json": picture_base64(call.width, call.height, prompt=call.prompt, seed=i, form=call.image_format)}
            for i in range(call.n)
        ]
        facts = gpt_image_facts(call, references=references)
        return JSONResponse({"created": int(time.time()), "data": data, **facts})


def _checked(family: Family, fields: dict[str, Any]) -> ImageCall:
    if fields.get("output_format") == "webp":
        raise invalid_value("output_format", "webp", ("png", "jpeg"))
    return read_call(family, fields)


def _is_authorized(incoming: Incoming) -> bool:
    """A key in a header of its own, or a token of Microsoft Entra."""
    return incoming.headers.get("api-key", "").startswith(KEY_PREFIX) or has_bearer_key(incoming)
