"""Fireworks: pictures as bytes from its workflows, and FLUX Kontext by tasks that are asked for by POST."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from imagegate.adapter import (
    Adapter,
    ImageReply,
    ImageRequest,
    PendingTask,
    UpstreamReply,
    UpstreamRequest,
    native_body,
    wire_path,
)
from imagegate.replies import read_object, read_reply

_MODELS: Final = "accounts/fireworks/models"
_RESULT: Final = "/get_result"


class Fireworks(Adapter):
    """docs.fireworks.ai, API reference: FLUX.1 FP8, FLUX.1 Kontext, image generation."""

    name = "fireworks"
    base_url = "https://api.fireworks.ai"
    chat_paths = ("/inference/v1",)
    question_suffix = _RESULT
    models_path = "/inference/v1/models"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        """Take the contract's ``path``, which names the model; the picture's encoding is a header, or a member."""
        path = f"/inference/v1/{wire_path(request)}".format(model=f"{_MODELS}/{quote(request.model, safe='')}")
        if self.expects_task(request):
            task_path = f"{path}{_RESULT}"
            return UpstreamRequest(method="POST", path=path, document=native_body(request), task_path=task_path)
        accepted = ("accept", f"image/{request.fields.get('output_format', 'png')}")
        return UpstreamRequest(method="POST", path=path, headers=(accepted,), document=native_body(request))

    def expects_task(self, request: ImageRequest) -> bool:
        return bool(request.wire.get("task"))

    def poll(self, task: PendingTask) -> UpstreamRequest:
        """Return the question; its path is that of the request with ``/get_result``."""
        return UpstreamRequest(method="POST", path=f"/inference/v1/workflows{_RESULT}", document={"id": task.id})

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        document = read_object(reply.body) if reply.status < 300 else None
        id_ = (document or {}).get("request_id")
        return PendingTask(id=id_) if isinstance(id_, str) and id_ else read_reply(reply, now=now)


_: type[Adapter] = Fireworks
