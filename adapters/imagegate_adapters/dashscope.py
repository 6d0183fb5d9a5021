"""DashScope (Alibaba Cloud Model Studio): Qwen-Image and Wan, by two protocols, at once or as tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from imagegate.adapter import (
    Adapter,
    ImageReply,
    ImageRequest,
    PendingTask,
    UpstreamReply,
    UpstreamRequest,
    linked,
    native_body,
)
from imagegate.replies import failure, read_object

_SERVICES: Final[Mapping[str, str]] = {
    "multimodal-generation": "/v1/services/aigc/multimodal-generation/generation",
    "image-generation": "/v1/services/aigc/image-generation/generation",
    "text2image": "/v1/services/aigc/text2image/image-synthesis",
}
_AT_ONCE: Final = "multimodal-generation"
_PROMPTS: Final = "text2image"
_STATUS: Final[Mapping[str, int]] = {
    "InvalidParameter": 400,
    "InvalidURL": 400,
    "InvalidApiKey": 401,
    "Arrearage": 402,
    "AccessDenied": 403,
    "ModelNotFound": 404,
    "Throttling": 429,
}
"""Statuses that error codes mean where the reply has a good one, by any of the parts between their dots."""
_INSPECTION: Final = "InvalidParameter.DataInspection"
"""Code of a reference that was refused for its content, and of one that could not be loaded to be looked at."""
_DOWNLOAD: Final = re.compile(r"\bdownload", re.IGNORECASE)


class DashScope(Adapter):
    """Model Studio, "Qwen-Image API", "Wan image generation and editing" and "Wan text-to-image V2"."""

    name = "dashscope"
    base_url = "https://dashscope-intl.aliyuncs.com/api/v1"
    chat_paths = ("/compatible-mode/v1",)
    models_path = "/v1/tasks?page_size=1"
    """There is no list of models."""

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        """Send references and prompt as one message, but for the service that takes a prompt alone."""
        service = _service(request)
        words = msgspec.structs.replace(request, images=())
        document: dict[str, Any] = {"model": request.model, **native_body(words)}
        if service != _PROMPTS:
            content = [*({"image": linked(image)} for image in request.images), {"text": request.fields["prompt"]}]
            document["input"] = {"messages": [{"role": "user", "content": content}]}
        return UpstreamRequest(
            method="POST",
            path=_SERVICES[service],
            headers=(("x-dashscope-async", "enable"),) if self.expects_task(request) else (),
            document=document,
        )

    def expects_task(self, request: ImageRequest) -> bool:
        return _service(request) != _AT_ONCE

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Give an error in a 200, of a request or of a task that has failed, the status that its code means."""
        document = read_object(reply.body) if not 300 <= reply.status < 400 else None
        said, is_task = _said(document or {}, reply.status)
        status = reply.status if reply.status >= 400 else _status_of(said.get("code"))
        if status is None:
            return super().decode(reply, now=now)
        if is_task or _is_not_loaded(said):
            error = failure(status, _without_suspicion(said), request_id=reply.headers.get("x-request-id"))
            error.ends_task = is_task
            raise error
        return super().decode(msgspec.structs.replace(reply, status=status), now=now)


def _said(document: Mapping[str, Any], status: int) -> tuple[Mapping[str, Any], bool]:
    """Return what has ``code`` and ``message``, and whether it is a task that has failed."""
    output = document.get("output")
    if status < 300 and isinstance(output, Mapping) and output.get("task_status") == "FAILED":
        return output, True
    return ({} if output else document), False


def _status_of(code: object) -> int | None:
    """Return the status that a code means by the first of its parts that is known; None: by none."""
    parts = code.split(".") if isinstance(code, str) else []
    return next((_STATUS[part] for part in parts if part in _STATUS), None)


def _is_not_loaded(said: Mapping[str, Any]) -> bool:
    message = said.get("message")
    return said.get("code") == _INSPECTION and isinstance(message, str) and _DOWNLOAD.search(message) is not None


def _without_suspicion(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an error with a code by which a reference that could not be loaded is no refusal for its content."""
    return {**said, "code": _INSPECTION.partition(".")[0]} if _is_not_loaded(said) else said


def _service(request: ImageRequest) -> str:
    return str(request.wire.get("service", _AT_ONCE))
