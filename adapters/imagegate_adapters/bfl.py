"""Black Forest Labs: a task for each request, asked for at exactly the address that its submission gave."""

from __future__ import annotations

from imagegate.adapter import (
    Adapter,
    Authentication,
    ImageReply,
    ImageRequest,
    PendingTask,
    UpstreamReply,
    UpstreamRequest,
    model_path,
    native_body,
)
from imagegate.replies import read_document, read_object, uncertain

_LOST = "Task not found"


class BFL(Adapter):
    """docs.bfl.ai, "Image generation", "Errors" and the reference of each model."""

    name = "bfl"
    base_url = "https://api.bfl.ai"
    authentication = Authentication(header="x-key", scheme="")
    task_hosts = ("*.bfl.ai",)
    """The global address gives polling addresses of clusters, such as ``api.eu2.bfl.ai``."""
    task_path = "/v1/get_result?id={id}"
    always_tasks = True
    models_path = "/v1/credits"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        path = f"/v1/{model_path(request.model)}"
        return UpstreamRequest(method="POST", path=path, document=native_body(request))

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Take a submission that names its task alone as accepted, too."""
        document = (read_object(reply.body) if reply.status == 200 else None) or {}
        id_ = document.get("id")
        is_alone = document.keys().isdisjoint(("polling_url", "status", "result", "sample"))
        return PendingTask(id=id_) if isinstance(id_, str) and id_ and is_alone else super().decode(reply, now=now)

    def decode_task(self, task: PendingTask, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Read a task that failed, perhaps in a 500 or 503; one that is not found may have been made all the same."""
        document = read_object(reply.body)
        if document is None or not isinstance(document.get("status"), str):
            return super().decode_task(task, reply, now=now)
        if document["status"] == _LOST:
            lost = uncertain("The provider does not know the task.")
            lost.code = "task_lost"
            raise lost
        return read_document({"id": task.id, **document}, now=now, is_task=True)


_: type[Adapter] = BFL
