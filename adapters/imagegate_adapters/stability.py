"""Stability: a form for every request, one path for each service, base64 in JSON as the reply."""

from __future__ import annotations

from typing import Final

from imagegate.adapter import (
    Adapter,
    ImageReply,
    ImageRequest,
    PendingTask,
    UpstreamReply,
    UpstreamRequest,
    native_form,
    wire_path,
)
from imagegate.errors import UpstreamError
from imagegate.replies import read_object, read_reply

_ENDS: Final = frozenset((200, 400, 403))
"""Of questions that are answered with an error of the request: its result was withheld, or cannot be made."""


class Stability(Adapter):
    """platform.stability.ai, v2beta; the services that take longer answer 202 with an id."""

    name = "stability"
    base_url = "https://api.stability.ai"
    task_path = "/v2beta/results/{id}"
    picture_members = ("image",)
    models_path = "/v1/user/balance"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        path = f"/v2beta/stable-image/{wire_path(request)}"
        return UpstreamRequest(method="POST", path=path, parts=native_form(request))

    def expects_task(self, request: ImageRequest) -> bool:
        return bool(request.wire.get("task"))

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Read a reply; a result that is not there yet is a 202 like the acceptance."""
        document = read_object(reply.body) if reply.status == 202 else None
        id_ = (document or {}).get("id")
        return PendingTask(id=id_) if isinstance(id_, str) and id_ else read_reply(reply, now=now)

    def decode_task(self, task: PendingTask, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        if reply.status == 202:
            return task
        try:
            return read_reply(reply, now=now)
        except UpstreamError as error:
            error.ends_task = error.outcome == "rejected" and reply.status in _ENDS
            raise


_: type[Adapter] = Stability
