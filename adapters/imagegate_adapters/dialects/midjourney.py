"""The dialect of Midjourney proxies (midjourney-proxy, New-API and many relays): a paid submit, then a task."""

from __future__ import annotations

from typing import Final

from imagegate.adapter import ImageReply, ImageRequest, PendingTask, ReplyImage, UpstreamReply, UpstreamRequest, inline
from imagegate.replies import ProviderError, failure, read_document, read_object, read_reply, refusal, uncertain

TASK_PATH: Final = "/mj/task/{id}/fetch"
_SUBMITTED: Final = ("1", "21", "22")
"""Submitted, there already, queued; every other ``code`` is a refusal."""
_STATUS: Final = {"3": 503, "4": 400, "23": 429}
"""No account for the work, invalid, queue full."""
_BANNED: Final = "24"
"""The prompt has a word that Midjourney does not take."""


def encode(request: ImageRequest) -> UpstreamRequest:
    """Make the ratio a part of the prompt, where Midjourney reads it."""
    prompt, ratio = str(request.fields.get("prompt", "")), request.fields.get("aspect_ratio")
    document = {
        "botType": "MID_JOURNEY",
        "prompt": f"{prompt} --ar {ratio}" if ratio else prompt,
        "base64Array": [inline(image, is_data_url=True) for image in request.images],
    }
    return UpstreamRequest(method="POST", path="/mj/submit/imagine", document=document)


def accepted(reply: UpstreamReply) -> PendingTask:
    """Read ``{code, description, result}``; `result` is the task's id."""
    document = read_object(reply.body)
    if document is None or reply.status >= 400:
        raise failure(max(reply.status, 502 if document is None else 400), document)
    code, id_ = document.get("code"), document.get("result")
    word = str(code) if type(code) is int or isinstance(code, str) else ""
    if word in _SUBMITTED and isinstance(id_, (str, int)) and not isinstance(id_, bool) and id_:
        return PendingTask(id=str(id_))
    if not word.isdecimal() or word in _SUBMITTED:
        raise uncertain("The provider's reply names no task.")
    message = str(document.get("description") or "")
    found = ProviderError(message=message, code="content_policy_violation" if word == _BANNED else f"midjourney_{word}")
    raise refusal(found, status=_STATUS.get(word))


def result(task: PendingTask, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
    """Read ``{id, status, progress, imageUrl, failReason}``, in the words of all relays."""
    document = read_object(reply.body) if reply.status < 400 else None
    if document is None:
        return read_reply(reply, now=now)
    link = document.get("imageUrl")
    if document.get("status") == "SUCCESS" and isinstance(link, str) and link.strip():
        return ImageReply(images=(ReplyImage(url=link),), created=now)
    word = {"MODAL": "pending", "CANCEL": "cancelled"}.get(str(document.get("status")), document.get("status"))
    reason = {"fail_reason": document["failReason"]} if document.get("failReason") else {}
    return read_document({"id": task.id, "status": word, "progress": document.get("progress"), **reason}, now=now)
