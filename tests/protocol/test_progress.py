"""Replies to questions about a task that do not name it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from imagegate.adapter import PendingTask, UpstreamReply
from imagegate.protocol.replies import read_progress

TASK = PendingTask(id="t", poll_url="/t")


def read(document: Any, status: int = 200) -> PendingTask | None:
    return read_progress(TASK, UpstreamReply(status=status, headers={}, body=msgspec.json.encode(document)))


@pytest.mark.parametrize(
    "document",
    [
        {"status": "Pending"},
        {"status": "Warming up"},
        {"data": {"state": "running"}},
        {"output": {"task_status": "RUNNING"}},
        {"status": "processing", "output": None, "error": None},
    ],
)
def test_it_goes_on(document: Any) -> None:
    """Under its own id and address, whatever the provider calls its state."""
    assert read(document) == TASK


def test_progress() -> None:
    """It is kept."""
    assert read({"status": "running", "progress": "40%"}) == msgspec.structs.replace(TASK, progress=40.0)


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"status": "running", "id": "t"}, 200),
        ({"status": "failed"}, 200),
        ({"status": "succeeded", "url": "https://a.example/1.png"}, 200),
        ({"status": "Approved", "url": "https://a.example/1.png"}, 200),
        ({"status": "Oh no", "error": {"message": "It broke."}}, 200),
        ({"status": "running"}, 500),
        ({"data": []}, 200),
        (["running"], 200),
        ({"status": "running", "logs": "x" * 65_536}, 200),
    ],
)
def test_others_are_read_like_any_reply(document: Any, status: int) -> None:
    assert read(document, status) is None
