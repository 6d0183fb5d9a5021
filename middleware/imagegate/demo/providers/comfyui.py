"""ComfyUI: a queue of workflows. Pictures are uploaded and fetched as files, and the client may choose a job's id.

Sources: ComfyUI's server.py (paths, replies, checks of `prompt_id`) and comfy_execution/jobs.py (states), 2026-08.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from PIL import Image
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from imagegate.demo.pictures import draw_picture
from imagegate.demo.providers.comfyui_nodes import (
    NODES,
    Canvas,
    ExecutionError,
    check_graph,
    run_graph,
)
from imagegate.demo.providers.common import RefusedError
from imagegate.demo.providers.frame import Handler, build_app, has_bearer_key, is_open
from imagegate.demo.providers.incoming import Incoming

NAME: Final = "ComfyUI"
KEPT_JOBS: Final = 10_000
"""As many as ComfyUI keeps in its history."""

_NO_ROUTE: Final = {404: "404: Not Found", 405: "405: Method Not Allowed"}


class ComfyDialect:
    """aiohttp's plain texts for paths, `{"error": ...}` for the rest, where `error` is an object or a string."""

    request_id_header = "x-request-id"

    def envelope(self, refusal: RefusedError, request_id: str) -> Mapping[str, object] | str:
        """See `frame.Dialect`."""
        return refusal.extra or refusal.message

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`. ComfyUI has no keys; this is a proxy's answer in front of it."""
        return RefusedError("401: Unauthorized", status=401)

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return RefusedError(_NO_ROUTE.get(status, _NO_ROUTE[404]), status=status)


def create_app(*, task_seconds: float = 0.3, has_jobs_api: bool = True, has_proxy: bool = False) -> Starlette:
    """Return the stand-in for a ComfyUI on this machine.

    Args:
        task_seconds: that a job takes; jobs run one after the other.
        has_jobs_api: whether it has ``/api/jobs`` and checks ``prompt_id``, as versions of 2026 do.
        has_proxy: whether a proxy in front of it wants a bearer key.
    """
    return _ComfyUI(task_seconds, has_jobs_api=has_jobs_api, has_proxy=has_proxy).app


@dataclass(slots=True)
class Job:
    """A queued workflow; the clock says where it is."""

    id: str
    number: float
    graph: Mapping[str, Any]
    extra: dict[str, Any]
    outputs: list[str]
    starts: float
    ends: float
    interrupted: bool = False
    saved: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    done: bool = field(default=False)

    def queue_item(self) -> list[Any]:
        return [self.number, self.id, self.graph, self.extra, self.outputs]


class _ComfyUI:
    def __init__(self, seconds: float, *, has_jobs_api: bool, has_proxy: bool) -> None:
        self._seconds = seconds
        self._has_jobs_api = has_jobs_api
        self._clock: Callable[[], float] = time.monotonic
        self.inputs: dict[str, bytes] = {}
        self._made: dict[tuple[str, str], tuple[Canvas, int, str]] = {}
        self._counters: dict[str, int] = {}
        self._number = 0
        self.jobs: dict[str, Job] = {}
        handlers: dict[tuple[str, str], Handler] = {
            ("POST", "/upload/image"): self._upload,
            ("POST", "/upload/mask"): self._upload_mask,
            ("POST", "/prompt"): self._submit,
            ("GET", "/prompt"): self._remaining,
            ("GET", "/queue"): self._queue,
            ("POST", "/queue"): self._change_queue,
            ("POST", "/interrupt"): self._interrupt,
            ("GET", "/history"): self._whole_history,
            ("GET", "/history/{id}"): self._history,
            ("GET", "/view"): self._view,
            ("GET", "/object_info/{name}"): self._object_info,
        }
        paths = {**handlers, **{(method, f"/api{path}"): handler for (method, path), handler in handlers.items()}}
        if has_jobs_api:
            paths[("GET", "/api/jobs/{id}")] = self._job
            paths[("POST", "/api/jobs/{id}/cancel")] = self._cancel
        is_authorized = has_bearer_key if has_proxy else is_open
        self.app = build_app(ComfyDialect(), paths, is_authorized=is_authorized)
        self.app.state.comfyui = self

    def forget(self) -> None:
        """Lose queue and history, as a restart does."""
        self.jobs.clear()

    # Files

    async def _upload(self, incoming: Incoming) -> Response:
        return self._store(incoming, None)

    async def _upload_mask(self, incoming: Incoming) -> Response:
        """Put the mask's alpha into a copy of the picture that `original_ref` names."""
        reference = json.loads(str((incoming.fields or {}).get("original_ref", "null")))
        original = self.inputs.get(str((reference or {}).get("filename")))
        if original is None:
            raise RefusedError("", status=400)
        return self._store(incoming, original)

    def _store(self, incoming: Incoming, original: bytes | None) -> Response:
        file = next((file for file in incoming.files if file.name == "image"), None)
        fields = incoming.fields or {}
        folder, kind = str(fields.get("subfolder", "")), str(fields.get("type", "input"))
        if file is None or not file.filename or ".." in f"{folder}/{file.filename}" or folder.startswith("/"):
            raise RefusedError("", status=400)
        content = file.data if original is None else _with_alpha_of(original, file.data)
        name = file.filename
        path = PurePosixPath(name)
        number = 1
        while fields.get("overwrite") not in ("true", "1"):
            there = self.inputs.get(_path(folder, name))
            if there is None or there == content:
                break
            name = f"{path.stem} ({number}){path.suffix}"
            number += 1
        self.inputs[_path(folder, name)] = content
        return JSONResponse({"name": name, "subfolder": folder, "type": kind})

    async def _view(self, incoming: Incoming) -> Response:
        name, kind = incoming.query.get("filename", ""), incoming.query.get("type", "output")
        if name.startswith("/") or ".." in name or kind not in ("output", "input", "temp"):
            raise RefusedError("", status=400)
        path = _path(incoming.query.get("subfolder", ""), name)
        if kind == "input" and path in self.inputs:
            return Response(self.inputs[path], media_type="image/png")
        if (kind, path) not in self._made:
            raise RefusedError("", status=404)
        canvas, index, model = self._made[kind, path]
        content = await asyncio.to_thread(_draw, canvas, index, model)
        return Response(content, media_type="image/png", headers={"content-disposition": f'filename="{name}"'})

    # Jobs

    async def _submit(self, incoming: Incoming) -> Response:
        body = incoming.fields
        if body is None:
            message = "500 Internal Server Error\n\nServer got itself in trouble"
            raise RefusedError(message, status=500)
        if "prompt" not in body:
            raise _refused_prompt("no_prompt", "No prompt provided", "No prompt provided")
        id_ = self._job_id(body.get("prompt_id"))
        graph = body["prompt"]
        if not isinstance(graph, dict):
            raise RefusedError("500 Internal Server Error\n\nServer got itself in trouble", status=500)
        checked = check_graph(graph, self.inputs)
        if checked.error is not None:
            extra = {"error": checked.error, "node_errors": checked.node_errors}
            raise RefusedError("", extra=extra)
        if self._has_jobs_api and id_ in self.jobs:
            raise RefusedError("", status=409, extra={"error": "prompt_id already exists"})
        starts = max([self._clock(), *(job.ends for job in self.jobs.values() if not job.interrupted)])
        extra_data = {"client_id": body["client_id"]} if "client_id" in body else {}
        extra_data["create_time"] = int(time.time() * 1000)
        job = Job(id_, self._number, graph, extra_data, checked.outputs, starts, starts + self._seconds)
        self._number += 1
        self.jobs[id_] = job
        while len(self.jobs) > KEPT_JOBS:
            del self.jobs[next(iter(self.jobs))]
        return JSONResponse({"prompt_id": id_, "number": job.number, "node_errors": checked.node_errors})

    def _job_id(self, value: object) -> str:
        if value is None:
            return str(uuid.uuid4())
        if not self._has_jobs_api:
            return str(value)
        try:
            if isinstance(value, str) and str(uuid.UUID(value)) == value:
                return value
        except ValueError:
            pass
        details = "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
        details += "omit it to let the server generate one"
        raise _refused_prompt("invalid_prompt_id", "prompt_id must be a valid UUID", details)

    def state_of(self, job: Job) -> str:
        if job.interrupted:
            return "cancelled"
        now = self._clock()
        if now < job.starts:
            return "pending"
        if now < job.ends:
            return "in_progress"
        if not job.done:
            self._finish(job)
        return "failed" if job.failure else "completed"

    def _finish(self, job: Job) -> None:
        job.done, job.saved = True, {}
        for output in job.outputs:
            node = job.graph[output]
            try:
                canvas = run_graph(job.graph, output, self.inputs)
            except ExecutionError as error:
                job.failure = {
                    "prompt_id": job.id,
                    "node_id": output,
                    "node_type": error.node_type,
                    "exception_message": error.message,
                    "exception_type": "torch.OutOfMemoryError",
                    "traceback": ['  File "/opt/ComfyUI/execution.py", line 496, in execute\n'],
                    "timestamp": int(time.time() * 1000),
                }
                return
            job.saved[output] = {"images": self._save(node, canvas)}

    def _save(self, node: Mapping[str, Any], canvas: Canvas) -> list[dict[str, str]]:
        kind = NODES[node["class_type"]].saves
        prefix = str(node["inputs"].get("filename_prefix", "ComfyUI_temp_abcde"))
        folder, _, prefix = prefix.rpartition("/")
        images: list[dict[str, str]] = []
        for index in range(canvas.batch):
            self._counters[f"{folder}/{prefix}"] = number = self._counters.get(f"{folder}/{prefix}", 0) + 1
            name = f"{prefix}_{number:05}_.png"
            self._made[kind, _path(folder, name)] = (canvas, index, node["class_type"])
            images.append({"filename": name, "subfolder": folder, "type": kind})
        return images

    def _find(self, id_: str) -> tuple[Job, str] | None:
        job = self.jobs.get(id_)
        return (job, self.state_of(job)) if job else None

    async def _job(self, incoming: Incoming) -> Response:
        found = self._find(incoming.path_params["id"])
        if found is None:
            raise RefusedError("", status=404, extra={"error": "Job not found"})
        job, state = found
        document: dict[str, Any] = {
            "id": job.id,
            "status": state,
            "priority": job.number,
            "create_time": job.extra["create_time"],
            "outputs_count": sum(len(entry["images"]) for entry in (job.saved or {}).values()),
        }
        if state in ("completed", "failed", "cancelled"):
            document |= {"outputs": job.saved or {}, "execution_status": self._status(job, state)}
        if job.failure:
            document["execution_error"] = job.failure
        document["workflow"] = {"prompt": job.graph, "extra_data": job.extra}
        return JSONResponse(document)

    def _status(self, job: Job, state: str) -> dict[str, Any]:
        messages: list[list[Any]] = [["execution_start", {"prompt_id": job.id, "timestamp": 0}]]
        if job.failure:
            messages.append(["execution_error", job.failure])
        elif state == "cancelled":
            messages.append(["execution_interrupted", {"prompt_id": job.id, "timestamp": 0}])
        else:
            messages.append(["execution_success", {"prompt_id": job.id, "timestamp": 0}])
        is_good = state == "completed"
        return {"status_str": "success" if is_good else "error", "completed": is_good, "messages": messages}

    def _entry(self, job: Job, state: str) -> dict[str, Any]:
        return {"prompt": job.queue_item(), "outputs": job.saved or {}, "status": self._status(job, state), "meta": {}}

    async def _history(self, incoming: Incoming) -> Response:
        found = self._find(incoming.path_params["id"])
        if found is None or found[1] in ("pending", "in_progress"):
            return JSONResponse({})
        return JSONResponse({found[0].id: self._entry(*found)})

    async def _whole_history(self, incoming: Incoming) -> Response:
        found = [(job, self.state_of(job)) for job in self.jobs.values()]
        ended = {job.id: self._entry(job, state) for job, state in found if state not in ("pending", "in_progress")}
        return JSONResponse(ended)

    async def _queue(self, incoming: Incoming) -> Response:
        by_state: dict[str, list[Any]] = {"in_progress": [], "pending": []}
        for job in self.jobs.values():
            by_state.setdefault(self.state_of(job), []).append(job.queue_item())
        return JSONResponse({"queue_running": by_state["in_progress"], "queue_pending": by_state["pending"]})

    async def _remaining(self, incoming: Incoming) -> Response:
        waiting = [job for job in self.jobs.values() if self.state_of(job) in ("pending", "in_progress")]
        return JSONResponse({"exec_info": {"queue_remaining": len(waiting)}})

    def _stop(self, id_: str) -> bool:
        """Take a waiting job out of the queue and forget it; interrupt a running one, which is remembered."""
        found = self._find(id_)
        if found is None or found[1] not in ("pending", "in_progress"):
            return False
        if found[1] == "pending":
            del self.jobs[id_]
        else:
            found[0].interrupted = True
        return True

    async def _cancel(self, incoming: Incoming) -> Response:
        return JSONResponse({"cancelled": self._stop(incoming.path_params["id"])})

    async def _change_queue(self, incoming: Incoming) -> Response:
        deleted = incoming.json_fields().get("delete")
        for id_ in deleted if isinstance(deleted, list) else ():
            found = self._find(str(id_))
            if found and found[1] == "pending":
                self._stop(found[0].id)
        return Response(status_code=200)

    async def _interrupt(self, incoming: Incoming) -> Response:
        wanted = (incoming.fields or {}).get("prompt_id")
        for job in list(self.jobs.values()):
            if self.state_of(job) == "in_progress" and wanted in (None, job.id):
                self._stop(job.id)
        return Response(status_code=200)

    async def _object_info(self, incoming: Incoming) -> Response:
        name = incoming.path_params["name"]
        if name not in NODES:
            return JSONResponse({})
        wanted: dict[str, Any] = {
            key: [list(value.choices) or value.kind, {}] for key, value in NODES[name].inputs.items()
        }
        outputs = list(NODES[name].outputs)
        return JSONResponse({name: {"input": {"required": wanted}, "output": outputs, "name": name}})


def _refused_prompt(kind: str, message: str, details: str) -> RefusedError:
    error = {"type": kind, "message": message, "details": details, "extra_info": {}}
    return RefusedError("", extra={"error": error, "node_errors": {}})


def _path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _with_alpha_of(original: bytes, mask: bytes) -> bytes:
    picture = Image.open(io.BytesIO(original)).convert("RGBA")
    picture.putalpha(Image.open(io.BytesIO(mask)).convert("RGBA").getchannel("A"))
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", compress_level=4)
    return encoded.getvalue()


def _draw(canvas: Canvas, index: int, node: str) -> bytes:
    notes = [f"seed {canvas.seed}"]
    if canvas.sources:
        notes.append(f"edit of {canvas.sources} image{'s' if canvas.sources > 1 else ''}")
    if canvas.repainted is not None:
        notes.append("masked")
    return draw_picture(
        width=canvas.width,
        height=canvas.height,
        prompt=canvas.prompt,
        provider=NAME,
        model=node,
        index=(canvas.seed or 0) + index,
        note=", ".join(notes),
    )
