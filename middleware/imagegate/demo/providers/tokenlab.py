"""TokenLab: many makers' models on one path, each with its own fields; some answers are tasks.

Sources: TokenLab docs, image generation (behaviour notes, task responses), TokenLab's OpenAPI file (task
states, cancelling, files, error envelope).
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from imagegate.demo.providers.common import (
    RefusedError,
    listed_size,
    missing_parameter,
    names,
    read_choice,
    read_integer,
    read_response_format,
)
from imagegate.demo.providers.frame import build_app
from imagegate.demo.providers.gallery import Gallery
from imagegate.demo.providers.incoming import Incoming
from imagegate.demo.providers.openai_models import DALL_E_2_SIZES, VARIATION_FIELDS, ImageCall, refuse_unsafe
from imagegate.demo.providers.references import read_square_png
from imagegate.demo.providers.replies import orders_of, picture_data, revised_prompt, usage_of
from imagegate.demo.providers.tasks import Task, TaskBoard
from imagegate.demo.providers.tokenlab_edits import read_edit
from imagegate.demo.providers.tokenlab_models import MODELS, RECOMMENDED
from imagegate.demo.providers.tokenlab_requests import TokenLabCall, check_fields, find_model, read_generation

NAME: Final = "TokenLab"
LINK_SECONDS: Final = 24 * 3600
KEPT_FILE_BYTES: Final = 32 * 1024 * 1024
_STATES: Final = {"waiting": "pending", "running": "processing", "finished": "completed"}


class TokenLabDialect:
    """`{"error": {message, type, ...}}` where every other member comes only with something to say."""

    request_id_header = "x-request-id"

    def envelope(self, refusal: RefusedError, request_id: str) -> dict[str, object]:
        """See `frame.Dialect`."""
        error: dict[str, object] = {"message": refusal.message, "type": refusal.kind}
        if refusal.code is not None:
            error["code"] = refusal.code
        if refusal.param:
            error["param"] = refusal.param
        return {"error": {**error, **refusal.extra}}

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        if not key:
            return RefusedError("Missing API key.", status=401, kind="unauthorized")
        return RefusedError("Invalid API key.", status=401, kind="invalid_api_key", code="invalid_api_key")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        message = f"{incoming.method} {incoming.path} not found."
        return RefusedError(message, status=404, kind="not_found_error")


def create_app(*, task_seconds: float = 0.3, clock: Callable[[], float] = time.monotonic) -> Starlette:
    """Return the stand-in for https://api.tokenlab.sh; its tasks take `task_seconds` by `clock`."""
    return _TokenLab(task_seconds, clock).app


class _TokenLab:
    def __init__(self, task_seconds: float, clock: Callable[[], float]) -> None:
        self._gallery = Gallery("/cdn/images", lifetime=LINK_SECONDS)
        self._tasks = TaskBoard(task_seconds, clock=clock)
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self.app = build_app(
            TokenLabDialect(),
            {
                ("POST", "/v1/images/generations"): self._generate,
                ("POST", "/v1/images/edits"): self._edit,
                ("POST", "/v1/images/variations"): self._vary,
                ("POST", "/v1/files"): self._upload,
                ("GET", "/v1/tasks/{task_id}"): self._poll,
                ("GET", "/v1/images/{task_id}"): self._poll,
                ("DELETE", "/v1/tasks/{task_id}"): self._cancel,
                ("GET", "/v1/models"): self._models,
            },
            open_routes=[self._gallery.route],
        )

    async def _generate(self, incoming: Incoming) -> Response:
        return await self._answer(incoming, read_generation(incoming))

    async def _edit(self, incoming: Incoming) -> Response:
        return await self._answer(incoming, read_edit(incoming, self._files))

    async def _vary(self, incoming: Incoming) -> Response:
        fields = incoming.form_fields()
        name, _ = find_model(fields, default="dall-e-2")
        if name != "dall-e-2":
            raise RefusedError(f"Model '{name}' does not make variations.", param="model")
        check_fields(name, VARIATION_FIELDS, fields)
        read_square_png(incoming.files, editing=False)
        n = read_integer(fields, "n", 1, 10, default=1)
        width, height = listed_size(fields, DALL_E_2_SIZES, default="1024x1024")
        response_format = read_response_format(fields, default="url")
        call = ImageCall(name, "Variation", n, width, height, "standard", response_format=response_format)
        return await self._answer(incoming, TokenLabCall(name, call, False, 1, "variation of 1 image"))

    async def _answer(self, incoming: Incoming, wanted: TokenLabCall) -> Response:
        call = wanted.call
        if wanted.as_task:
            return self._start(incoming, wanted)
        refuse_unsafe(call.family, call.prompt)
        orders = orders_of(call, provider=NAME, model=wanted.model, note=wanted.note)
        base64 = call.response_format == "b64_json"
        data = await picture_data(orders, gallery=self._gallery, origin=incoming.origin, base64=base64)
        if wanted.model == "dall-e-3" or MODELS[wanted.model].kind == "gemini":
            data = [{**entry, "revised_prompt": revised_prompt(call.prompt)} for entry in data]
        facts = {"usage": usage_of(call, references=wanted.references)} if call.is_gpt_image else {}
        return JSONResponse({"created": int(time.time()), "data": data, **facts})

    def _start(self, incoming: Incoming, wanted: TokenLabCall) -> Response:
        try:
            refuse_unsafe(wanted.call.family, wanted.call.prompt)
            failure = None
        except RefusedError as refusal:
            failure = refusal.message
        orders = orders_of(wanted.call, provider=NAME, model=wanted.model, note=wanted.note)
        links = tuple(self._gallery.link(order) for order in orders)
        task_id = f"ldtask_{secrets.token_hex(16)}"
        task = self._tasks.add(task_id, owner=incoming.key, model=wanted.model, links=links, failure=failure)
        poll_url = f"/v1/tasks/{task_id}"
        body = {
            "created": task.created,
            "status": "pending",
            "task_id": task_id,
            "poll_url": poll_url,
            "data": [],
        }
        return JSONResponse(body)

    async def _poll(self, incoming: Incoming) -> Response:
        return JSONResponse(self._report(self._find(incoming), incoming.origin))

    async def _cancel(self, incoming: Incoming) -> Response:
        task = self._find(incoming)
        if task.phase() != "waiting":
            raise RefusedError("Only queued tasks can be cancelled.", code="task_not_cancellable")
        task.cancelled = True
        return JSONResponse(self._report(task, incoming.origin))

    def _find(self, incoming: Incoming) -> Task:
        task = self._tasks.find(incoming.path_params["task_id"], owner=incoming.key)
        if task is None:
            message = "Task not found or no longer available."
            raise RefusedError(message, status=404, kind="async_task_not_found")
        return task

    def _report(self, task: Task, origin: str) -> dict[str, object]:
        phase = task.phase()
        body: dict[str, object] = {
            "id": task.id,
            "task_id": task.id,
            "created": task.created,
            "model": task.model,
            "status": _STATES[phase],
            "data": [],
        }
        if task.cancelled:
            error = "Task was cancelled."
            return {
                **body,
                "status": "failed",
                "cancelled": True,
                "cancellation_status": "cancelled",
                "error": error,
            }
        if phase != "finished":
            return body
        if task.failure is not None:
            # The OpenAPI file has both forms: a string from task-only makers, an object else.
            code = {"message": task.failure, "type": "upstream_error", "code": "content_policy_violation"}
            return {
                **body,
                "status": "failed",
                "error": task.failure if MODELS[task.model].always_task else code,
            }
        return {**body, "data": [{"url": origin + link} for link in task.links]}

    async def _upload(self, incoming: Incoming) -> Response:
        fields = incoming.form_fields()
        check_fields("", names("purpose model"), fields)
        purpose = read_choice(fields, "purpose", ("batch", "user_data", "vision"), default="user_data")
        files = [file for file in incoming.files if file.name == "file"]
        if len(files) != 1 or len(incoming.files) != 1:
            raise missing_parameter("file")
        file_id = f"file-{secrets.token_hex(12)}"
        self._files[file_id] = files[0].data
        while sum(map(len, self._files.values())) > KEPT_FILE_BYTES and len(self._files) > 1:
            self._files.popitem(last=False)
        facts = {"bytes": len(files[0].data), "filename": files[0].filename, "purpose": purpose}
        return JSONResponse({"id": file_id, "object": "file", "created_at": int(time.time()), **facts})

    async def _models(self, incoming: Incoming) -> Response:
        chosen = RECOMMENDED if incoming.query.get("recommended_for") == "image" else tuple(MODELS)
        data = [{"id": model, "object": "model", "owned_by": "tokenlab"} for model in chosen]
        return JSONResponse({"object": "list", "data": data})
