"""ToAPIs: every image is a task, `size` is a ratio, references are URLs.

Sources: ToAPIs docs, gpt-image-1.5 image editing (create, task reply), its pages on task status, uploads and
error codes; the 403 for requests without a User-Agent was seen by its users.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from imagegate.demo.providers.common import FORBIDDEN_WORD, RefusedError
from imagegate.demo.providers.frame import build_app
from imagegate.demo.providers.gallery import Gallery
from imagegate.demo.providers.incoming import Incoming, inspect_picture
from imagegate.demo.providers.tasks import KEPT_TASKS, Task, TaskBoard
from imagegate.demo.providers.toapis_requests import ToApisCall, read_generation, read_grok_edit

LINK_SECONDS: Final = 24 * 3600
UPLOAD_LIMIT: Final = 10 * 1024 * 1024
UPLOAD_TYPES: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}

_STATES: Final = {"waiting": "queued", "running": "in_progress", "finished": "completed"}
_ID_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_UNSAFE: Final = "The prompt was rejected by the content policy."


class ToApisDialect:
    """`code` is a word, but the HTTP status as a number for 401, 403 and 404."""

    request_id_header = "x-request-id"

    def envelope(self, refusal: RefusedError, request_id: str) -> dict[str, object]:
        """See `frame.Dialect`."""
        code: object = refusal.code if refusal.status == 422 else "invalid_request"
        if refusal.status in (401, 403, 404):
            code = refusal.status
        error: dict[str, object] = {"code": code, "message": refusal.message, "type": refusal.kind}
        if refusal.param:
            error["param"] = refusal.param
        return {"error": error}

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        message = "Invalid API key" if key else "Missing API key"
        return RefusedError(message, status=401, kind="authentication_error")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return RefusedError(f"Not found: {incoming.path}", status=404, kind="not_found_error")


def create_app(*, task_seconds: float = 0.3, clock: Callable[[], float] = time.monotonic) -> Starlette:
    """Return the stand-in for https://toapis.com; its tasks take `task_seconds` by `clock`."""
    return _ToApis(task_seconds, clock).app


def _need_user_agent(incoming: Incoming) -> None:
    if not incoming.headers.get("user-agent"):
        raise RefusedError("Forbidden", status=403, kind="permission_error")


class _ToApis:
    def __init__(self, task_seconds: float, clock: Callable[[], float]) -> None:
        self._gallery = Gallery("/files", lifetime=LINK_SECONDS)
        self._tasks = TaskBoard(task_seconds, clock=clock)
        self._business_ids: OrderedDict[tuple[str, str], str] = OrderedDict()
        self.app = build_app(
            ToApisDialect(),
            {
                ("POST", "/v1/images/generations"): self._generate,
                ("POST", "/v1/images/edits"): self._edit,
                ("GET", "/v1/images/generations/{task_id}"): self._poll,
                ("POST", "/v1/uploads/images"): self._upload,
            },
            open_routes=[self._gallery.route],
            edge=_need_user_agent,
        )

    async def _generate(self, incoming: Incoming) -> Response:
        return self._start(incoming, read_generation(incoming.json_fields()))

    async def _edit(self, incoming: Incoming) -> Response:
        return self._start(incoming, read_grok_edit(incoming.json_fields()))

    def _start(self, incoming: Incoming, call: ToApisCall) -> Response:
        failure = _UNSAFE if FORBIDDEN_WORD in call.orders[0].prompt.lower() else None
        if failure is not None and not call.fails_late:
            raise RefusedError(failure, status=422, code="content_policy_violation")
        links = tuple(self._gallery.link(order, kind="generated") for order in call.orders)
        task_id = "tsk_img_01K" + "".join(secrets.choice(_ID_LETTERS) for _ in range(23))
        task = self._tasks.add(task_id, owner=incoming.key, model=call.model, links=links, failure=failure)
        if call.business_id is not None:
            self._business_ids[incoming.key, call.business_id] = task_id
            if len(self._business_ids) > KEPT_TASKS:
                self._business_ids.popitem(last=False)
        return JSONResponse(_head(task, "queued", 0))

    async def _poll(self, incoming: Incoming) -> Response:
        given = incoming.path_params["task_id"]
        task_id = self._business_ids.get((incoming.key, given), given)
        task = self._tasks.find(task_id, owner=incoming.key)
        if task is None:
            raise RefusedError("Task not found", status=404, kind="not_found_error")
        phase = task.phase()
        if phase != "finished":
            # A task that waits has made no progress, one that runs is never quite done.
            progress = 0 if phase == "waiting" else min(99, int(task.done() * 100))
            return JSONResponse(_head(task, _STATES[phase], progress))
        if task.failure is not None:
            error = {"code": "generation_failed", "message": task.failure}
            return JSONResponse({**_head(task, "failed", 100), "error": error})
        completed = task.created + round(task.seconds)
        data = [{"url": incoming.origin + link} for link in task.links]
        body = {
            **_head(task, "completed", 100),
            "completed_at": completed,
            "expires_at": completed + LINK_SECONDS,
            "result": {"type": "image", "data": data},
        }
        return JSONResponse(body)

    async def _upload(self, incoming: Incoming) -> Response:
        files = [file for file in incoming.files if file.name == "file"]
        if len(files) != 1:
            return _upload_failure("Missing file")
        facts = inspect_picture(files[0].data)
        if facts is None or facts.form not in UPLOAD_TYPES:
            return _upload_failure("Unsupported file type. Supported: jpeg, png, webp, gif")
        if len(files[0].data) > UPLOAD_LIMIT:
            return _upload_failure("File too large. Maximum 10MB")
        media_type = UPLOAD_TYPES[facts.form]
        url = incoming.origin + self._gallery.keep(files[0].data, media_type)
        data = {"id": secrets.token_hex(12), "url": url, "mime_type": media_type, "size": len(files[0].data)}
        return JSONResponse({"success": True, "message": "", "data": data})


def _head(task: Task, status: str, progress: int) -> dict[str, object]:
    return {
        "id": task.id,
        "object": "generation.task",
        "model": task.model,
        "status": status,
        "progress": progress,
        "created_at": task.created,
        "metadata": {},
    }


def _upload_failure(message: str) -> Response:
    return JSONResponse({"success": False, "message": message}, 400)
