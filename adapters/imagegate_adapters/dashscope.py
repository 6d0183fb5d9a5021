"""DashScope (Alibaba Cloud Model Studio): Qwen-Image and Wan, by two protocols, at once or as tasks."""

from __future__ import annotations

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
from imagegate.replies import read_object

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
"""Statuses that error codes have, up to their first dot, where the reply has a good one."""


class DashScope(Adapter):
    """Model Studio, "Qwen-Image API", "Wan image generation and editing" and "Wan text-to-image V2"."""

    name = "dashscope"
    base_url = "https://dashscope-intl.aliyuncs.com/api/v1"
    models_path = "/v1/tasks?page_size=1"
    """There is no list of models."""

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        """References and prompt as one message, but for the service that takes a prompt alone."""
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
        """An error in a 200, ``{code, message}`` without ``output``, has the status that its code means."""
        document = read_object(reply.body) if reply.status < 300 else None
        code = None if document is None or "output" in document else document.get("code")
        if isinstance(code, str) and (status := _STATUS.get(code.partition(".")[0])):
            reply = msgspec.structs.replace(reply, status=status)
        return super().decode(reply, now=now)


def _service(request: ImageRequest) -> str:
    return str(request.wire.get("service", _AT_ONCE))
