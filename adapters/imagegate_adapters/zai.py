"""Z.ai and BigModel (Zhipu): OpenAI's shapes, and tasks for the models that have them."""

from __future__ import annotations

from typing import Final

from imagegate.adapter import (
    Adapter,
    ImageReply,
    ImageRequest,
    PendingTask,
    UpstreamReply,
    UpstreamRequest,
    native_body,
)
from imagegate.errors import ModerationBlocked, UpstreamRefused

_BLOCKED: Final = "1301"
"""The code of an error about the content of a prompt or a picture."""


class Zai(Adapter):
    """docs.z.ai, "Generate Image", "Generate Image (Async)" and "Errors"."""

    name = "zai"
    base_url = "https://api.z.ai/api/paas/v4"
    task_path = "/v1/async-result/{id}"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        """Ask for a task where the model has them: a lost connection then costs an answer, not a picture."""
        path = "/v1/async/images/generations" if self.expects_task(request) else "/v1/images/generations"
        return UpstreamRequest(method="POST", path=path, document={"model": request.model, **native_body(request)})

    def expects_task(self, request: ImageRequest) -> bool:
        return request.wire.get("tasks") is True

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        try:
            return super().decode(reply, now=now)
        except UpstreamRefused as error:
            if error.code != _BLOCKED:
                raise
            blocked = ModerationBlocked(error.message)
            blocked.ends_task, blocked.details = error.ends_task, error.details
            raise blocked from error
