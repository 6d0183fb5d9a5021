"""The server of stable-diffusion.cpp: OpenAI's paths, synchronous and forgiving, and its own queue of jobs.

Source: stable-diffusion.cpp, examples/server: routes_openai.cpp, routes_sdcpp.cpp, async_jobs.cpp, api.md (2026-08).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import Repainted, Simulator, TextDialect, decode_base64, is_picture, picture_base64, refuse
from tests.simulators.base import size_of as picture_size

from imagegate.demo.providers.common import RefusedError, names
from imagegate.demo.providers.incoming import Incoming

SEED: Final = 42
"""The server's default where nothing else was given at its start: equal prompts make equal pictures."""
FAILURE_WORD: Final = "no-results"
MOST_JOBS: Final = 2

_EXTRA_ARGS: Final = re.compile(r"<sd_cpp_extra_args>(.*?)</sd_cpp_extra_args>")
_GENERATION: Final = ("prompt", "n", "size", "output_format", "output_compression")
_EDIT_TEXTS: Final = _GENERATION
_EDIT_FILES: Final = ("image", "image[]", "mask")
_NATIVE: Final = names(
    "prompt negative_prompt clip_skip width height strength seed batch_count init_image ref_images mask_image"
    " control_image control_strength ip_adapter_image ip_adapter_strength auto_resize_ref_image"
    " increase_ref_index embed_image_metadata sample_params lora hires vae_tiling_params cache_mode"
    " cache_option scm_mask scm_policy_dynamic output_format output_compression preview preview_interval"
)


class _Dialect(TextDialect):
    """httplib answers unknown paths with nothing."""

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(404)


@dataclass(slots=True)
class Parameters:
    """What is drawn."""

    prompt: str
    width: int = 512
    height: int = 512
    count: int = 1
    seed: int = SEED
    form: str = "png"
    sources: list[bytes] = field(default_factory=list[bytes])


@dataclass(slots=True)
class Job:
    """One of the queue."""

    id: str
    wanted: Parameters
    created: int
    starts: float
    ends: float
    cancelled: bool = False


def create_app(*, job_seconds: float = 0.0, kept_seconds: float = 600.0) -> Starlette:
    """A server with one model.

    Args:
        job_seconds: that one takes; they run one after the other.
        kept_seconds: until a job that has ended is gone (410).
    """
    return _SDCpp(job_seconds, kept_seconds).app


class _SDCpp(Simulator):
    def __init__(self, job_seconds: float, kept_seconds: float) -> None:
        self._job_seconds, self._kept_seconds = job_seconds, kept_seconds
        self._clock: Callable[[], float] = time.monotonic
        self._jobs: dict[str, Job] = {}
        super().__init__(
            {
                ("POST", "/v1/images/generations"): self._generate,
                ("POST", "/v1/images/edits"): self._edit,
                ("GET", "/v1/models"): self._models,
                ("POST", "/sdcpp/v1/img_gen"): self._submit,
                ("GET", "/sdcpp/v1/jobs/{id}"): self._ask,
                ("POST", "/sdcpp/v1/jobs/{id}/cancel"): self._cancel,
                ("GET", "/sdcpp/v1/capabilities"): self._capabilities,
            },
            dialect=_Dialect(),
        )

    async def _models(self, incoming: Incoming) -> Response:
        return JSONResponse({"data": [{"id": "sd-cpp-local", "object": "model", "owned_by": "local"}]})

    async def _capabilities(self, incoming: Incoming) -> Response:
        limits = {"min_width": 64, "max_width": 4096, "min_height": 64, "max_height": 4096, "max_batch_count": 8}
        formats = {"img_gen": ["png", "jpeg", "webp"]}
        more = {"max_queue_size": MOST_JOBS}
        return JSONResponse({"limits": {**limits, **more}, "output_formats_by_mode": formats})

    async def _generate(self, incoming: Incoming) -> Response:
        fields = _json(incoming)
        wanted = Parameters(_typed(fields, "prompt", str, ""), count=max(1, _typed(fields, "n", int, 1)))
        size = _typed(fields, "size", str, "")
        form = _typed(fields, "output_format", str, "png")
        _typed(fields, "output_compression", int, 100)
        if not wanted.prompt:
            raise refuse(400, error="prompt required")
        _check_format(form, ("png", "jpeg", "webp"))
        wanted.form = form
        wanted.width, wanted.height = self._size(size, (512, 512))
        self.drop(fields, _GENERATION)
        return self._answer(wanted)

    async def _edit(self, incoming: Incoming) -> Response:
        if not incoming.is_form:
            raise refuse(400, error="Content-Type must be multipart/form-data")
        texts = dict(incoming.texts)
        if not texts.get("prompt"):
            raise refuse(400, error="prompt required")
        listed = [file.data for file in incoming.files if file.name == "image[]"]
        contents = listed or [file.data for file in incoming.files if file.name == "image"][:1]
        if not contents:
            raise refuse(400, error="at least one image[] required")
        number = re.match(r"\s*[+-]?[0-9]+", texts.get("n", ""))
        form = texts.get("output_format", "png")
        _check_format(form, ("png", "jpeg"))
        wanted = Parameters(texts["prompt"], count=int(number[0]) if number else 1, form=form)
        readable = [content for content in contents if is_picture(content)]
        self.dropped += ["image"] * (len(contents) - len(readable))
        first = picture_size(readable[0]) if readable else (512, 512)
        wanted.width, wanted.height = self._size(texts.get("size", ""), first)
        wanted.sources = readable
        masks = [file.data for file in incoming.files if file.name == "mask"]
        self.repainted += [Repainted(mask, by="white") for mask in masks]
        self.drop(texts, _EDIT_TEXTS)
        self.drop([file.name for file in incoming.files], _EDIT_FILES)
        return self._answer(wanted)

    def _answer(self, wanted: Parameters) -> Response:
        self._take_extra_args(wanted)
        if wanted.width <= 0 or wanted.height <= 0 or wanted.count <= 0:
            raise refuse(400, error="invalid params")
        if FAILURE_WORD in wanted.prompt:
            raise refuse(500, error="generate_image returned no results")
        data = [{"b64_json": text} for text in _pictures(wanted)]
        return JSONResponse({"created": int(time.time()), "data": data, "output_format": wanted.form})

    def _take_extra_args(self, wanted: Parameters) -> None:
        """What a prompt may hold changes anything."""
        found = _EXTRA_ARGS.search(wanted.prompt)
        if found is None:
            return
        wanted.prompt = _EXTRA_ARGS.sub("", wanted.prompt)
        try:
            extra = json.loads(found[1])
        except ValueError:
            raise refuse(400, error="invalid sd_cpp_extra_args") from None
        self._take_native(wanted, extra)

    def _size(self, text: str, default: tuple[int, int]) -> tuple[int, int]:
        """As `std::stoi` reads it: what follows the digits is ignored, and what is none is not read."""
        found = re.match(r"\s*([+-]?[0-9]+)[^x]*x\s*([+-]?[0-9]+)", text)
        if found:
            return int(found[1]), int(found[2])
        if text:
            self.dropped.append("size")
        return default

    # The queue

    async def _submit(self, incoming: Incoming) -> Response:
        fields = _json(incoming, native=True)
        wanted = Parameters("")
        self._take_native(wanted, fields)
        self.drop(fields, _NATIVE)
        wanted.form = _typed(fields, "output_format", str, "png")
        _check_format(wanted.form, ("png", "jpeg", "webp"))
        now = self._clock()
        if sum(job.ends > now and not job.cancelled for job in self._jobs.values()) >= MOST_JOBS:
            raise refuse(429, error="job queue is full")
        starts = max([now, *(job.ends for job in self._jobs.values() if not job.cancelled)])
        id_ = f"job_{int(time.time()):x}_{len(self._jobs):08}"
        self._jobs[id_] = job = Job(id_, wanted, int(time.time()), starts, starts + self._job_seconds)
        document = {"id": id_, "kind": "img_gen", "status": "queued", "created": job.created}
        return JSONResponse({**document, "poll_url": f"/sdcpp/v1/jobs/{id_}"}, 202)

    def _take_native(self, wanted: Parameters, fields: Any) -> None:
        if not isinstance(fields, dict):
            raise refuse(400, error="invalid generation parameters")
        try:
            wanted.prompt = _typed(fields, "prompt", str, wanted.prompt)
            wanted.width = _typed(fields, "width", int, wanted.width)
            wanted.height = _typed(fields, "height", int, wanted.height)
            wanted.count = _typed(fields, "batch_count", int, wanted.count)
            wanted.seed = _typed(fields, "seed", int, wanted.seed)
            images = [fields.get("init_image"), *(_typed(fields, "ref_images", list, []))]
            wanted.sources = [_decoded(image) for image in images if image is not None]
            if fields.get("mask_image") is not None:
                self.repainted.append(Repainted(_decoded(fields["mask_image"]), by="white"))
        except RefusedError:
            raise refuse(400, error="invalid generation parameters") from None
        if not wanted.prompt or min(wanted.width, wanted.height, wanted.count) <= 0:
            raise refuse(400, error="invalid generation parameters")

    def _job(self, incoming: Incoming) -> tuple[Job, str]:
        id_ = incoming.path_params["id"]
        job = self._jobs.get(id_)
        if job is None:
            raise refuse(404, error="job not found")
        now = self._clock()
        if now >= job.ends + self._kept_seconds:
            raise refuse(410, error="job expired")
        if job.cancelled:
            return job, "cancelled"
        if now >= job.ends:
            return job, "failed" if FAILURE_WORD in job.wanted.prompt else "completed"
        return job, "queued" if now < job.starts else "generating"

    async def _ask(self, incoming: Incoming) -> Response:
        job, status = self._job(incoming)
        document: dict[str, Any] = {
            "id": job.id,
            "kind": "img_gen",
            "status": status,
            "created": job.created,
            "started": None if status == "queued" else job.created,
            "completed": job.created if status not in ("queued", "generating") else None,
            "queue_position": 1 if status == "queued" else 0,
            "result": None,
            "error": None,
        }
        if status == "completed":
            images = [{"index": index, "b64_json": text} for index, text in enumerate(_pictures(job.wanted))]
            document["result"] = {"output_format": job.wanted.form, "images": images}
        elif status == "failed":
            document["error"] = {"code": "generation_failed", "message": "generate_image returned no results"}
        elif status == "cancelled":
            document["error"] = {"code": "cancelled", "message": "job cancelled by client"}
        return JSONResponse(document)

    async def _cancel(self, incoming: Incoming) -> Response:
        job, status = self._job(incoming)
        if status == "generating":
            raise refuse(409, error="job is already generating")
        if status == "queued":
            job.cancelled = True
        return await self._ask(incoming)


def _json(incoming: Incoming, *, native: bool = False) -> dict[str, Any]:
    """Its parser's complaint about a body is a 500 on OpenAI's paths and a 400 on its own."""
    if incoming.headers.get("content-length") == "0":
        raise refuse(400, error="empty body")
    if incoming.is_form or incoming.fields is None:
        message = "[json.exception.parse_error.101] parse error at line 1, column 1: syntax error"
        raise refuse(400, error="invalid json", message=message) if native else _server_error(message)
    return incoming.fields


def _server_error(message: str) -> RefusedError:
    return refuse(500, error="server_error", message=message)


def _typed(fields: dict[str, Any], name: str, kind: type[Any], default: Any) -> Any:
    """A value of the wrong type is an exception of the JSON library, null too."""
    value = fields.get(name, default)
    if kind is int and isinstance(value, float):
        return int(value)
    if not isinstance(value, kind):
        words = {int: "number", str: "string", list: "array"}[kind]
        raise _server_error(f"[json.exception.type_error.302] type must be {words}, but is {type(value).__name__}")
    return value


def _check_format(form: str, allowed: tuple[str, ...]) -> None:
    if form not in allowed:
        raise refuse(400, error=f"invalid output_format, must be one of [{', '.join(allowed)}]")


def _decoded(image: Any) -> bytes:
    """Bare base64 or a data URL."""
    text = image.partition(";base64,")[2] if str(image).startswith("data:") else image
    content = decode_base64(str(text))
    if content is None or not is_picture(content):
        raise refuse(400, error="invalid generation parameters")
    return content


def _pictures(wanted: Parameters) -> list[str]:
    return [
        picture_base64(wanted.width, wanted.height, prompt=wanted.prompt, seed=wanted.seed + index, form=wanted.form)
        for index in range(wanted.count)
    ]
