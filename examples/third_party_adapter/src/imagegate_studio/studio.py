"""Studio: JSON of its own, a key in a header of its own, references inline, and a job for each request."""

from __future__ import annotations

from imagegate.adapter import (
    Adapter,
    Authentication,
    ImageReply,
    ImageRequest,
    PendingTask,
    ReplyImage,
    UpstreamReply,
    UpstreamRequest,
    inline,
)
from imagegate.errors import ModerationBlocked, UpstreamRefused
from imagegate.replies import failure, read_object, uncertain


class Studio(Adapter):
    """docs.studio.example, "Jobs"."""

    name = "studio"
    base_url = "https://api.studio.example"
    authentication = Authentication(header="x-studio-key", scheme="")
    task_path = "/jobs/{id}"
    always_tasks = True

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        job = {"style": request.model, "words": request.fields["prompt"], "shape": request.fields.get("aspect_ratio")}
        if request.images:
            job["look_at"] = [inline(image) for image in request.images]
        return UpstreamRequest(method="POST", path="/jobs", document=job)

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        job = read_object(reply.body)
        if job is None or reply.status >= 400:
            raise failure(max(reply.status, 502 if job is None else 400), job)
        if job.get("state") in ("waiting", "painting"):
            return PendingTask(id=str(job["job"]))
        if job.get("state") == "rejected":
            blocked = ModerationBlocked(str(job.get("why")))
            blocked.ends_task = True
            raise blocked
        if job.get("state") == "spoilt":
            spoilt = UpstreamRefused(str(job.get("why")), code="generation_failed")
            spoilt.ends_task = True
            raise spoilt
        if job.get("state") == "hung" and isinstance(job.get("picture"), str):
            return ImageReply(images=(ReplyImage(b64_json=job["picture"]),), created=now)
        raise uncertain("The provider's reply contains no image.")
