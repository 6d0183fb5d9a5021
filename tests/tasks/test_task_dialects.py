"""The task dialects of contracts.md sections 2.4 to 2.6 and 3: created, at work, ended."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.errors import UpstreamError
from imagegate.protocol.messages import ImageReply
from imagegate.protocol.replies import read_document
from imagegate.protocol.reply_tasks import PendingTask

LINK = "https://cdn.example/1.png"
AT_WORK: dict[str, tuple[dict[str, Any], PendingTask]] = {
    "TokenLab, created": (
        {"created": 1, "status": "pending", "task_id": "ldtask_1", "poll_url": "/v1/tasks/ldtask_1", "data": []},
        PendingTask(id="ldtask_1", poll_url="/v1/tasks/ldtask_1"),
    ),
    "ToAPIs, created": (
        {
            "id": "tsk_img_1",
            "object": "generation.task",
            "model": "m",
            "status": "queued",
            "progress": 0,
            "metadata": {},
        },
        PendingTask(id="tsk_img_1", progress=0),
    ),
    "New-API, created": ({"task_id": "task_1", "status": "queued"}, PendingTask(id="task_1")),
    "New-API, at work": (
        {
            "code": "success",
            "message": "",
            "data": {
                "task_id": "t",
                "status": "IN_PROGRESS",
                "progress": "50%",
                "fail_reason": "",
                "data": {"id": "u"},
            },
        },
        PendingTask(id="t", progress=50),
    ),
    "APIMart, created": ({"code": 200, "data": [{"status": "submitted", "task_id": "t"}]}, PendingTask(id="t")),
    "an object in place of the list": ({"data": {"status": "submitted", "task_id": "t"}}, PendingTask(id="t")),
    "evolink, created": ({"id": "e", "object": "image.generation.task", "status": "pending"}, PendingTask(id="e")),
    "BFL, created": (
        {"id": "b", "polling_url": "https://api.bfl.example/get?id=b", "cost": 4},
        PendingTask(id="b", poll_url="https://api.bfl.example/get?id=b"),
    ),
    "fal, created": (
        {"request_id": "r", "status_url": "https://queue.example/r/status", "response_url": "https://queue.example/r"},
        PendingTask(id="r", poll_url="https://queue.example/r/status"),
    ),
    "Replicate, created": (
        {"id": "p", "status": "starting", "urls": {"get": "/v1/predictions/p"}, "output": None, "error": None},
        PendingTask(id="p", poll_url="/v1/predictions/p"),
    ),
    "DashScope, created": ({"output": {"task_id": "d", "task_status": "PENDING"}}, PendingTask(id="d")),
    "a word that nobody has told us": ({"id": "x", "status": "warming_up"}, PendingTask(id="x")),
}
DONE: dict[str, dict[str, Any]] = {
    "TokenLab": {"id": "ldtask_1", "status": "completed", "data": [{"url": LINK}]},
    "ToAPIs": {"id": "t", "status": "completed", "progress": 100, "result": {"type": "image", "data": [{"url": LINK}]}},
    "ToAPIs, at the top": {"id": "t", "status": "completed", "url": LINK},
    "New-API": {
        "code": "success",
        "data": {"task_id": "t", "status": "SUCCESS", "fail_reason": "", "result_url": LINK},
    },
    "APIMart": {"code": 200, "data": {"status": "completed", "result": {"images": [{"url": [LINK]}]}}},
    "evolink": {"id": "e", "status": "completed", "results": [LINK]},
    "BFL": {"id": "b", "status": "Ready", "result": {"sample": LINK}},
    "Replicate": {"id": "p", "status": "succeeded", "output": [LINK], "error": None},
    "Replicate, one": {"id": "p", "status": "succeeded", "output": LINK},
    "DashScope": {"output": {"task_id": "d", "task_status": "SUCCEEDED", "results": [{"url": LINK}]}},
}
FAILED: dict[str, tuple[dict[str, Any], str]] = {
    "TokenLab, text": ({"id": "l", "status": "failed", "error": "boom"}, "boom"),
    "TokenLab, object": ({"id": "l", "status": "failed", "error": {"message": "boom", "type": "x"}}, "boom"),
    "TokenLab, cancelled": ({"id": "l", "status": "failed", "cancelled": True, "error": "gone"}, "gone"),
    "ToAPIs": ({"id": "t", "status": "failed", "error": {"code": "generation_failed", "message": "boom"}}, "boom"),
    "ToAPIs, reason": ({"id": "t", "status": "failed", "fail_reason": "boom"}, "boom"),
    "New-API": ({"code": "success", "data": {"task_id": "t", "status": "FAILURE", "fail_reason": "boom"}}, "boom"),
    "evolink": ({"status": "failed", "error": {"code": "c", "message": "boom"}}, "boom"),
    "fal, completed with an error": ({"request_id": "r", "status": "COMPLETED", "error": "boom"}, "boom"),
    "BFL, moderated": ({"id": "b", "status": "Request Moderated", "result": None}, "Request Moderated"),
}


@pytest.mark.parametrize("name", AT_WORK)
def test_at_work(name: str) -> None:
    """A task is told by its id and where to ask, whatever wraps them."""
    document, expected = AT_WORK[name]
    assert read_document(document, now=1) == expected


@pytest.mark.parametrize("name", DONE)
def test_done(name: str) -> None:
    """The link is found wherever it stands, as text or in a list."""
    reply = read_document(DONE[name], now=1)
    assert isinstance(reply, ImageReply)
    assert [image.url for image in reply.images] == [LINK]


@pytest.mark.parametrize("name", FAILED)
def test_failed(name: str) -> None:
    """The provider's word that a task has ended is told apart from a question that failed."""
    document, text = FAILED[name]
    with pytest.raises(UpstreamError, match=text) as caught:
        read_document(document, now=1)
    assert caught.value.ends_task


@given(st.sampled_from([*AT_WORK, *DONE]), st.dictionaries(st.text(), st.none() | st.booleans() | st.text()))
def test_members_that_nobody_knows_change_nothing(name: str, more: dict[str, Any]) -> None:
    """Whatever else a relay adds."""
    document = AT_WORK[name][0] if name in AT_WORK else DONE[name]
    known = {
        "error",
        "errors",
        "detail",
        "url",
        "image_url",
        "sample",
        "urls",
        "success",
        "fail_reason",
        "code",
        "message",
        "status",
        "finish_reason",
        "base_resp",
        "images",
        "result",
        "results",
        "output",
        "data",
        "result_url",
        "b64_json",
        "task_status",
        "poll_url",
        "polling_url",
        "status_url",
        "candidates",
        "promptFeedback",
        "cancelled",
        "created",
        "created_at",
        "progress",
        "type",
    }
    added = {key: value for key, value in more.items() if key not in known}
    plain, padded = read_document(document, now=1), read_document({**added, **document}, now=1)
    if isinstance(plain, ImageReply):
        assert isinstance(padded, ImageReply)
        assert plain.images == padded.images
    else:
        assert isinstance(padded, PendingTask)
        assert plain.id == padded.id or {"task_id", "id", "request_id"} & set(added)
