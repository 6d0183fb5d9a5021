"""fal: a queue for every model, each with members of its own, and a status and a result at addresses that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

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
from imagegate.errors import ModerationBlocked, UpstreamError
from imagegate.replies import address_beside, failure, provider_error, read_document, read_object, refusal

_STATUS = "/status"
_EARLY = "Request is still in progress"
_FAILED = (422, 500)
"""Statuses that results have where the model refused the request, or failed."""


class Fal(Adapter):
    """fal.ai, "Inference API" and "Queue"; the models' members are those of @fal-ai/client."""

    name = "fal"
    base_url = "https://queue.fal.run"
    authentication = Authentication(scheme="Key")
    task_hosts = ("queue.fal.run", "queue.falrun.com")
    """The second one is fal's backup host."""
    task_path = f"/requests/{{id}}{_STATUS}"
    """Never asked: the address of a task is not made from the model's, which loses its last part there."""
    always_tasks = True

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        path = model_path(request.wire.get("path") or request.model)
        return UpstreamRequest(method="POST", path=f"/{path}", document=native_body(request))

    def decode_task(self, task: PendingTask, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Read a status, or the result behind it: what a model did not take or could not do comes with the result."""
        document = read_object(reply.body) or {}
        if document.get("status") == "COMPLETED" and not document.get("error"):
            result = document.get("response_url")
            if not isinstance(result, str) or not result:
                result = address_beside(task.poll_url or self.poll(task).path, "", instead_of=_STATUS)
            return PendingTask(id=task.id, poll_url=result, is_over=True)
        if task.is_over and reply.status == 400 and document.get("detail") == _EARLY:
            return task
        if _is_of_the_model(task, reply.status, document.get("detail")):
            raise _ended(reply.status, document)
        if reply.status < 300 and document.get("has_nsfw_concepts"):
            try:
                return read_document(_without_withheld(document), now=now)
            except UpstreamError as error:
                error.ends_task = error.outcome == "rejected" or bool(error.made)
                raise
        return super().decode_task(task, reply, now=now)

    def cancel(self, task: PendingTask) -> UpstreamRequest:
        """Return the request that takes a task out of the queue; one that is being made goes on."""
        link = task.poll_url or self.poll(task).path
        url = task.cancel_url or address_beside(link, "/cancel", instead_of=_STATUS)
        return UpstreamRequest(method="PUT", path="/", url=url)


def _is_of_the_model(task: PendingTask, status: int, detail: Any) -> bool:
    """Return whether an error is that of the model, which ends the task: a list, and with a result a sentence too."""
    if isinstance(detail, list):
        return status >= 400
    return task.is_over and status in _FAILED and isinstance(detail, str)


def _ended(status: int, document: Mapping[str, Any]) -> UpstreamError:
    """Return the model's own error. One with the status of a time-out leaves open what is charged."""
    error = failure(status, document)
    found = provider_error(document)
    if found is not None and error.outcome == "rejected" and (status >= 500 or isinstance(error, ModerationBlocked)):
        error = refusal(found)  # the status is the one of a result
    error.ends_task = True
    return error


def _without_withheld(document: Mapping[str, Any]) -> dict[str, Any]:
    """Mark the pictures that the safety checker has made black, by a flag for each, or by one for all."""
    flags, images = document["has_nsfw_concepts"], document.get("images")
    if not isinstance(images, list):
        image, is_black = document.get("image"), flags is True or (isinstance(flags, list) and True in flags)
        return {**document, "image": None, "images": [_marked(image)]} if is_black and image else dict(document)
    black = flags if isinstance(flags, list) else [flags] * len(images)
    marked = [_marked(image) if flag is True else image for image, flag in zip_longest(images, black[: len(images)])]
    return {**document, "images": marked}


def _marked(image: Any) -> dict[str, Any]:
    return {**(image if isinstance(image, Mapping) else {"url": image}), "respect_moderation": False}


_: type[Adapter] = Fal
