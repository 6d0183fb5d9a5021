"""Replies of providers: pictures, tasks and failures in the dialects that relays speak."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.errors import ModerationBlocked, UpstreamError, UpstreamRefused, UpstreamUncertain
from imagegate.protocol.messages import ImageReply, ReplyImage
from imagegate.protocol.parsers.lenient_json import read_object
from imagegate.protocol.replies import UpstreamReply, is_ambiguous, read_document, read_reply, read_upload
from imagegate.protocol.reply_tasks import PendingTask
from imagegate.registry import load_adapter


def read(document: Any) -> ImageReply | PendingTask:
    return read_document(document, now=99)


def refusal(document: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        read(document)
    return caught.value


def urls(document: Any) -> list[str | None]:
    reply = read(document)
    assert isinstance(reply, ImageReply)
    return [image.url for image in reply.images]


# Pictures


def test_openais_reply_is_read_whole():
    """Pictures keep their own members, the reply keeps usage and everything else that is not null."""
    document = {
        "created": 1706000000,
        "data": [
            {"b64_json": "AAAA", "revised_prompt": "a hat"},
            {"url": "https://cdn.example/2.png", "revised_prompt": None},
        ],
        "usage": {"total_tokens": 5},
        "size": "1024x1024",
        "background": None,
    }
    expected = ImageReply(
        images=(
            ReplyImage(b64_json="AAAA", fields={"revised_prompt": "a hat"}),
            ReplyImage(url="https://cdn.example/2.png"),
        ),
        created=1706000000,
        fields={"usage": {"total_tokens": 5}, "size": "1024x1024"},
    )
    assert expected == read(document)


@pytest.mark.parametrize(
    ("document", "created"),
    [
        ({"created": 5}, 5),
        ({"created_at": 6}, 6),
        ({"created": 5, "created_at": 6}, 5),
        ({"created": 5.9}, 5),
        ({"created": "2026-01-01"}, 99),
        ({"created": True}, 99),
        ({"created": None}, 99),
        ({"created": -1}, 99),
        ({"created": 1e30, "created_at": 7}, 7),
        ({}, 99),
    ],
)
def test_a_reply_has_a_time(document, created):
    """The provider's own, where it is a number, else ours."""
    assert created == read({**document, "data": [{"url": "u"}]}).created


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"data": [{"url": "a"}, {"url": "b"}]}, ["a", "b"]),
        ({"data": ["a", "b"]}, ["a", "b"]),
        ({"data": [{"url": ["a", "b"]}, {"url": "c"}]}, ["a", "b", "c"]),
        ({"data": {"url": "a"}}, ["a"]),
        ({"data": {"image_url": "a"}}, ["a"]),
        ({"images": [{"url": "a", "width": 8}]}, ["a"]),
        ({"images": ["a", "b"]}, ["a", "b"]),
        ({"output": ["a", "b"]}, ["a", "b"]),
        ({"result": {"type": "image", "data": [{"url": "a"}]}}, ["a"]),
        ({"data": {"result": {"images": [{"url": ["a", "b"]}]}}}, ["a", "b"]),
        ({"data": {"result_url": "a", "data": {}}}, ["a"]),
        ({"output": {"results": [{"url": "a"}, {"url": "b"}]}}, ["a", "b"]),
        ({"url": "a"}, ["a"]),
        ({"data": [], "result": {"data": [{"url": "a"}]}}, ["a"]),
        ({"data": [{"url": ""}, {"url": "a"}, {"other": 1}, 5, None]}, ["a"]),
    ],
)
def test_links_are_found_wherever_relays_put_them(document, expected):
    """Lists and single links, objects and strings, at any of the usual places, in order."""
    assert expected == urls(document)


@pytest.mark.parametrize(
    "item",
    [
        {"b64_json": "AAAA"},
        {"b64_json": "AAAA", "url": None},
        {"b64_json": "AAAA", "url": ""},
        {"b64_json": "AAAA", "url": "https://cdn.example/1.png"},
        {"url": "data:image/png;base64,AAAA"},
        {"b64_json": "", "url": "data:image/webp;base64,AAAA"},
        {"b64_json": "data:image/png;base64,AAAA"},
        {"b64_json": "AA\r\nAA\n"},
        {"url": "data:image/png;base64,AA\nAA"},
    ],
)
def test_base64_is_found_in_both_forms(item):
    """`b64_json` and data URLs are the same, and a picture has exactly one form."""
    assert (ReplyImage(b64_json="AAAA"),) == read({"data": [item]}).images


@pytest.mark.parametrize(
    "item",
    [
        {"url": "data:image/png,AAAA"},
        {"url": "data:"},
        {"url": "data:image/png;base64,"},
        {"b64_json": "data:image/png;base64,"},
        {"b64_json": " \n"},
        {"url": 5},
        {"b64_json": 5},
        {},
        "",
        [],
    ],
)
def test_what_is_no_picture_is_none(item):
    """Empty and odd items make no picture."""
    error = refusal({"data": [item]})
    assert (UpstreamUncertain, "no_image") == (type(error), error.code)


@pytest.mark.parametrize(
    "document",
    [
        {"images": [{"b64_json": "AAAA"}]},
        {"images": [{"url": "https://cdn.example/1.png"}]},
        {"b64_json": "AAAA", "created": 5},
        {"url": "https://cdn.example/1.png"},
        {"output": ["https://cdn.example/1.png"]},
        {"result": {"data": [{"b64_json": "AAAA"}]}},
        {"data": [], "images": [{"b64_json": "AAAA"}]},
    ],
)
def test_pictures_are_not_repeated_beside_the_data(document):
    """Pictures that were found elsewhere stand in `data` alone: what asked for links gets no base64 beside them."""
    assert read({**document, "usage": {"total_tokens": 1}}).fields == {"usage": {"total_tokens": 1}}
    sent = json.loads(read(document).encode())
    assert set(sent) == {"created", "data"}


def test_a_reply_is_written_as_openai_writes_it():
    """What is read is written again as `created`, members and `data`."""
    document = {
        "created": 5,
        "usage": {"total_tokens": 1},
        "data": [{"url": "a", "revised_prompt": "x"}, {"b64_json": "AA"}],
    }
    assert document == json.loads(read(document).encode())


# Tasks


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {"created": 1, "task_id": "ldtask_1", "status": "pending", "poll_url": "/v1/tasks/ldtask_1", "data": []},
            PendingTask(id="ldtask_1", poll_url="/v1/tasks/ldtask_1"),
        ),
        ({"id": "ldtask_1", "status": "processing"}, PendingTask(id="ldtask_1")),
        (
            {
                "id": "tsk_img_1",
                "object": "generation.task",
                "model": "gpt-image-2",
                "status": "queued",
                "progress": 0,
                "created_at": 1703884800,
                "metadata": {},
            },
            PendingTask(id="tsk_img_1", progress=0.0),
        ),
        ({"id": "tsk_img_1", "status": "in_progress", "progress": 40}, PendingTask(id="tsk_img_1", progress=40.0)),
        ({"task_id": "task_1", "status": "queued"}, PendingTask(id="task_1")),
        (
            {
                "code": "success",
                "message": "",
                "data": {"task_id": "task_1", "status": "IN_PROGRESS", "progress": "50%", "fail_reason": ""},
            },
            PendingTask(id="task_1", progress=50.0),
        ),
        ({"code": 200, "data": [{"status": "submitted", "task_id": "t1"}]}, PendingTask(id="t1")),
        ({"output": {"task_id": "t1", "task_status": "RUNNING"}, "request_id": "r1"}, PendingTask(id="t1")),
        (
            {"id": "b1", "status": "Pending", "polling_url": "https://eu.bfl.ai/get?id=b1"},
            PendingTask(id="b1", poll_url="https://eu.bfl.ai/get?id=b1"),
        ),
        ({"id": "t1", "status": "pending", "poll_url": ""}, PendingTask(id="t1")),
        ({"id": "t1", "status": "queued", "progress": "soon"}, PendingTask(id="t1")),
        ({"id": "t1", "status": "queued", "progress": True}, PendingTask(id="t1")),
        ({"id": "t1", "status": "queued", "progress": 101}, PendingTask(id="t1")),
        ({"id": "t1", "status": "queued", "url": "https://a.example/t1"}, PendingTask(id="t1")),
        ({"id": "t1", "status": "processing", "data": [{"url": "preview"}]}, PendingTask(id="t1")),
        ({"id": "t1", "status": "queued", "result": None, "error": None}, PendingTask(id="t1")),
    ],
)
def test_tasks_that_are_at_work_are_waited_for(document, expected):
    """TokenLab, ToAPIs, New-API, APIMart and others: the id, where to ask, and how far it is."""
    assert expected == read(document)


PENDING = "queued pending submitted starting PENDING QUEUED IN_QUEUE NOT_START Pending in_progress processing running"
WORDS = [
    *((word, "pending") for word in PENDING.split()),
    *((word, "pending") for word in ("RUNNING", "IN_PROGRESS", "Reasoning", "Generating", "Generating...")),
    *((word, "pending") for word in ("finalizing", "", " ", "完成")),
    *((word, "done") for word in ("completed", "succeeded", "SUCCEEDED", "SUCCESS", "COMPLETED", "Ready")),
    *((word, "generation_failed") for word in ("failed", "FAILED", "FAILURE", "Error", "Failed", "failure")),
    *((word, "task_cancelled") for word in ("canceled", "cancelled", "CANCELED")),
    *((word, "moderation_blocked") for word in ("Request Moderated", "Content Moderated")),
    *((word, "task_not_found") for word in ("Task not found", "UNKNOWN", "task_not_exist")),
]


@pytest.mark.parametrize(("word", "meaning"), [(word, meaning) for word, meaning in WORDS if word.strip()])
@pytest.mark.parametrize(
    "place",
    [
        lambda word: {"id": "t1", "status": word},
        lambda word: {"code": "success", "data": {"task_id": "t1", "status": word}},
        lambda word: {"output": {"task_id": "t1", "task_status": word}},
    ],
    ids=["top", "data", "output"],
)
def test_status_words_mean_the_same_everywhere(word, meaning, place):
    """Each provider's words fall into six kinds; a word that nobody knows means that the task is at work."""
    document = place(word)
    if meaning == "pending":
        assert PendingTask(id="t1") == read(document)
        return
    error = refusal(document)
    assert error.code == ("no_image" if meaning == "done" else meaning)


@pytest.mark.parametrize("word", [word for word, meaning in WORDS if meaning == "done"])
def test_words_of_success_come_with_pictures(word):
    """A task that is done is answered like a request that was answered at once."""
    assert urls({"id": "t1", "status": word, "data": [{"url": "a"}]}) == ["a"]


@pytest.mark.parametrize(
    "document",
    [
        {"created": 5, "task_id": "t1", "status": "completed", "data": [{"url": "a", "revised_prompt": "x"}]},
        {
            "id": "t1",
            "object": "generation.task",
            "status": "completed",
            "progress": 100,
            "created_at": 5,
            "completed_at": 6,
            "expires_at": 7,
            "result": {"type": "image", "data": [{"url": "a", "revised_prompt": "x"}]},
        },
        {
            "code": "success",
            "created": 5,
            "message": "",
            "data": {"task_id": "t1", "status": "SUCCESS", "data": {"data": [{"url": "a", "revised_prompt": "x"}]}},
        },
    ],
)
def test_a_finished_task_is_a_reply_like_any_other(document):
    """What describes the task is left out: clients asked for pictures."""
    expected = ImageReply(images=(ReplyImage(url="a", written="a", fields={"revised_prompt": "x"}),), created=5)
    assert expected == read(document)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"id": "t1", "status": "completed", "url": "a"}, ["a"]),
        ({"code": "success", "data": {"task_id": "t1", "status": "SUCCESS", "result_url": "a", "data": {}}}, ["a"]),
        (
            {"code": 200, "data": {"id": "t1", "status": "completed", "result": {"images": [{"url": ["a", "b"]}]}}},
            ["a", "b"],
        ),
        ({"code": 200, "data": [{"status": "completed", "result": {"images": [{"url": ["a"]}]}}]}, ["a"]),
        ({"output": {"task_status": "SUCCEEDED", "results": [{"url": "a"}]}}, ["a"]),
        ({"status": "succeeded", "output": ["a", "b"]}, ["a", "b"]),
    ],
)
def test_finished_tasks_of_other_dialects(document, expected):
    """Links may stand under other names and in lists of lists."""
    assert expected == urls(document)


def test_a_finished_task_keeps_what_describes_its_pictures():
    """Usage and size are OpenAI's own members and go through."""
    reply = read(
        {"id": "t1", "status": "completed", "usage": {"total_tokens": 1}, "size": "1:1", "data": [{"url": "a"}]}
    )
    assert reply.fields == {"usage": {"total_tokens": 1}, "size": "1:1"}


@pytest.mark.parametrize(
    ("document", "message", "code"),
    [
        ({"status": "failed", "error": "No luck."}, "No luck.", "generation_failed"),
        ({"status": "failed", "error": {"message": "No luck.", "code": "E1"}}, "No luck.", "E1"),
        ({"id": "t1", "status": "failed", "fail_reason": "No luck."}, "No luck.", "generation_failed"),
        ({"status": "failed"}, "The provider could not make the image.", "generation_failed"),
        ({"status": "failed", "error": {}}, "The provider could not make the image.", "generation_failed"),
        (
            {"code": "success", "data": {"status": "FAILURE", "fail_reason": "No luck.", "progress": "100%"}},
            "No luck.",
            "generation_failed",
        ),
        (
            {"object": "image.generation.task", "status": "failed", "error": {"code": "E2", "message": "No luck."}},
            "No luck.",
            "E2",
        ),
        (
            {"status": "failed", "cancelled": True, "cancellation_status": "cancelled", "error": "Stopped."},
            "Stopped.",
            "task_cancelled",
        ),
        ({"status": "canceled"}, "The task was cancelled.", "task_cancelled"),
    ],
)
def test_tasks_that_failed_say_why(document, message, code):
    """Errors of tasks are text or objects, and a failure that gives no reason has one all the same."""
    error = refusal(document)
    assert (UpstreamRefused, 502, message, code) == (type(error), error.status, error.message, error.code)


@pytest.mark.parametrize(
    "document",
    [
        {"status": "failed", "error": {"code": "content_policy_violation", "message": "x"}},
        {"status": "failed", "error": "Your request was rejected by the safety system."},
        {"output": {"task_status": "FAILED", "code": "DataInspectionFailed", "message": "x"}},
        {"id": "t1", "status": "Request Moderated", "result": None},
        {"promptFeedback": {"blockReason": "SAFETY"}},
        {"candidates": [{"content": {}, "finishReason": "IMAGE_SAFETY"}]},
        {"candidates": [{"finishReason": "STOP"}, {"finishReason": "PROHIBITED_CONTENT"}]},
        {"image": "AAAA", "finish_reason": "CONTENT_FILTERED"},
        {"data": [{"respect_moderation": False, "url": "https://x.example/placeholder.png"}]},
        {"data": [{"is_image_safe": False, "url": None}]},
    ],
)
def test_moderation_is_seen_behind_a_200(document):
    """Refusals for content that come as a success are refusals."""
    error = refusal(document)
    assert (ModerationBlocked, 400, False) == (type(error), error.status, error.allows_fallback)


@pytest.mark.parametrize(
    "word", ["SAFETY", "RECITATION", "BLOCKLIST", "SPII", "IMAGE_RECITATION", "IMAGE_PROHIBITED_CONTENT"]
)
def test_geminis_words_for_blocked_content(word):
    """Every reason that Google documents as a block is one."""
    assert isinstance(refusal({"candidates": [{"finishReason": word}]}), ModerationBlocked)


@pytest.mark.parametrize("word", ["NO_IMAGE", "IMAGE_OTHER", "STOP", "MAX_TOKENS"])
def test_geminis_other_words_are_no_block(word):
    """Without a picture and without a block nobody knows what happened."""
    error = refusal({"candidates": [{"finishReason": word}]})
    assert (UpstreamUncertain, "no_image") == (type(error), error.code)


# Part of the pictures


A, B = ReplyImage(url="a", written="a"), ReplyImage(url="b", written="b")


@pytest.mark.parametrize(
    ("items", "message", "made"),
    [
        ([{"url": "a"}, {"error": {"message": "No luck."}}], "1 of 2 images were made, then: No luck.", (A,)),
        (
            [{"url": "a"}, {"error": {"message": "First."}}, {"url": "b"}, {"error": {"message": "Second."}}],
            "2 of 4 images were made, then: First.",
            (A, B),
        ),
        (
            [{"url": "a"}, {"respect_moderation": False, "url": ""}],
            "1 of 2 images were made, then: The provider withheld the image for its content.",
            (A,),
        ),
        (
            [{"b64_json": "AA"}, {"error": "No luck."}],
            "1 of 2 images were made, then: No luck.",
            (ReplyImage(b64_json="AA"),),
        ),
        ([{"error": {"message": "No luck."}}], "No luck.", ()),
    ],
)
def test_part_of_the_pictures_is_an_error_that_lists_them(items, message, made):
    """All pictures or an error: it says how many were made, and has them."""
    error = refusal({"data": items})
    assert (message, made) == (error.message, error.made)


@pytest.mark.parametrize(
    "failed",
    [
        {"error": {"code": "InternalServiceError", "message": "x"}},
        {"error": {"message": "x", "type": "rate_limit_exceeded"}},
        {"error": {"code": "429", "message": "x"}},
        {"error": "x"},
        {"is_image_safe": False, "url": None},
    ],
)
@pytest.mark.parametrize("made", [{"url": "a"}, {"b64_json": "AA"}])
def test_part_of_the_pictures_is_never_paid_again(failed, made):
    """What was made was billed: the request goes to no other provider, and clients are told not to repeat it."""
    error = refusal({"data": [made, failed]})
    assert (error.allows_fallback, error.outcome) == (False, "uncertain")
    assert (b"x-should-retry", b"false") in error.headers


# Whole replies


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_reply_below_400_is_read_by_what_it_carries(status):
    """Providers use 200, 201 and 202 alike."""
    reply = UpstreamReply(status=status, headers={}, body=b'{"data":[{"url":"a"}]}')
    assert ImageReply(images=(A,), created=99) == read_reply(reply, now=99)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><html></html>",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe",
        pytest.param(b"[" * 100_000, id="brackets"),
    ],
)
def test_a_reply_that_is_no_json_object_is_uncertain(body):
    """A page with a 200 says nothing about the picture, which may have been made."""
    with pytest.raises(UpstreamUncertain) as caught:
        read_reply(UpstreamReply(status=200, headers={"x-request-id": "req_1"}, body=body), now=99)
    assert caught.value.message == "The provider answered 200 with a body that is not JSON."
    assert caught.value.details == {"upstream_request_id": "req_1"}


@pytest.mark.parametrize("depth", [10, 100, 300, 900, 990, 5000])
@pytest.mark.parametrize("name", ["data", "result", "images"])
def test_deep_replies_break_nothing(depth, name):
    """However deep a reply is nested, it is read or refused."""
    body = f'{{"{name}":' * depth + "1" + "}" * depth
    with pytest.raises(UpstreamUncertain):
        read_reply(UpstreamReply(status=200, headers={}, body=body.encode()), now=99)


@pytest.mark.parametrize(("depth", "is_read"), [(1, True), (200, True), (201, False), (800, False), (100_000, False)])
@pytest.mark.parametrize("kind", ["objects", "arrays"])
def test_objects_are_read_as_deep_as_anybody_needs(depth, is_read, kind):
    """The same on every Python: how deep its decoder goes depends on the version."""
    if kind == "objects":
        body = b'{"a":' * depth + b"1" + b"}" * depth
    else:
        body = b'{"a":' + b"[" * (depth - 1) + b"1" + b"]" * (depth - 1) + b"}"
    assert (read_object(body) is not None) == is_read
    wide = b'{"data":[' + b",".join([b'{"a":[]}'] * 1000) + b"]}"
    assert read_object(wide) is not None


@pytest.mark.parametrize(
    ("document", "link"),
    [
        (
            {"success": True, "message": "", "data": {"id": "1", "url": "https://a.example/1.png"}},
            "https://a.example/1.png",
        ),
        ({"url": "https://a.example/1.png"}, "https://a.example/1.png"),
    ],
)
def test_an_upload_is_answered_with_a_link(document, link):
    """Upload APIs answer at the top or under `data`."""
    assert link == read_upload(UpstreamReply(status=200, headers={}, body=json.dumps(document).encode()))


@pytest.mark.parametrize(
    ("status", "document", "answered"),
    [
        (400, {"success": False, "message": "Too large."}, 400),
        (200, {"success": False, "message": "Too large."}, 400),
        (200, {"data": {}}, 400),
        (413, None, 413),
    ],
)
def test_an_upload_that_failed_is_an_error(status, document, answered):
    """A 200 without a link is a failure like any other."""
    body = json.dumps(document).encode()
    with pytest.raises(UpstreamError) as caught:
        read_upload(UpstreamReply(status=status, headers={}, body=body))
    assert answered == caught.value.status
    assert document is None or document.get("message", "reason") in caught.value.message


# Whatever the document

KEYS = [
    *("data", "result", "images", "output", "results", "result_url", "url", "image_url", "b64_json", "status"),
    *("task_status", "task_id", "id", "request_id", "poll_url", "polling_url", "progress", "error", "errors", "detail"),
    *("message", "code", "type", "param", "base_resp", "status_code", "success", "fail_reason", "cancelled", "usage"),
    *("promptFeedback", "blockReason", "candidates", "finishReason", "finish_reason", "respect_moderation"),
    *("is_image_safe", "created", "created_at", "retry_after"),
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([404, 10**400, 1e308]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.sampled_from(
        ["https://a.example/1.png", "data:image/png;base64,AA", "queued", "completed", "failed", "UNKNOWN"]
    ),
    st.sampled_from(["404", "04001", "50%", "²", "9" * 400, "content_policy_violation", "IMAGE_SAFETY", "success"]),
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(KEYS),
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
        max_leaves=10,
    ),
    max_size=6,
)


@pytest.mark.parametrize("word", ["failed", "canceled", "Content Moderated"])
def test_only_a_word_of_the_end_ends_a_task(word):
    """The provider's own word that there will be no picture is told from everything else that may go wrong."""
    assert refusal({"id": "t1", "status": word}).ends_task is True


@pytest.mark.parametrize(
    "document",
    [
        {"error": {"message": "x"}},
        {"id": "t1", "status": "completed"},
        {},
        {"id": "t1", "status": "task_not_exist"},
        {"output": {"task_id": "t1", "task_status": "UNKNOWN"}},
    ],
)
def test_what_says_nothing_of_an_end_leaves_a_task_open(document):
    """An error of the question is none of the task's."""
    assert refusal(document).ends_task is False


def check(result: ImageReply | PendingTask) -> None:
    if isinstance(result, PendingTask):
        assert result.id
        return
    assert isinstance(result, ImageReply)
    assert result.images
    assert all((image.url is None) != (image.b64_json is None) for image in result.images)
    assert all(image.url or image.b64_json for image in result.images)


def check_error(error: UpstreamError) -> None:
    sent = json.loads(error.body())["error"]
    assert sent["message"]
    assert len(sent["message"]) <= 1100
    assert isinstance(sent["code"], (str, type(None)))
    assert 400 <= error.status <= 599


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize(
    ("document", "is_accepted"),
    [
        ({"id": "t1", "polling_url": "https://bfl.example/1", "status": "Pending", "result": None}, True),
        ({"request_id": "r", "status": "IN_QUEUE", "status_url": "https://fal.example/1"}, True),
        ({"id": "p", "status": "processing", "urls": {"get": "https://replicate.example/1"}}, True),
        ({"id": "p", "status": "succeeded", "output": ["https://replicate.example/1.png"]}, True),
        ({"id": "t1", "polling_url": "https://bfl.example/1"}, True),
        ({"data": [{"b64_json": "iVBORw0KGgoAAAANSUhEUg=="}]}, True),
        ({"id": "t1", "status": "Failed"}, False),
        ({"message": "Too many requests", "url": "https://docs.example/limits"}, False),
        ({"id": "req_1", "status": "rejected", "message": "Slow down"}, False),
        ({"task_id": "t", "code": "InvalidParameter", "message": "No."}, False),
        ({"request_id": "r", "code": "Throttling", "message": "Slow down."}, False),
        ({"image": ["This field is required."], "prompt": ["This field is required."]}, False),
        ({"image_url": ["Enter a valid URL."]}, False),
        ({"url": "https://docs.example/errors#429", "retry_after": 3}, False),
        ({"status": "initializing", "request_id": "r1", "message": "The model is loading, try again."}, False),
        ({"id": "acct_1", "status": "pending", "message": "Your account is pending approval."}, False),
        ({"id": "1", "status": "created", "detail": "The prompt is too long."}, False),
    ],
)
def test_an_error_that_carries_work_may_not_be_sent_again(status, document, is_accepted):
    """A task that goes on, or a picture: the request was accepted, whatever the status says."""
    reply = UpstreamReply(status=status, headers={}, body=json.dumps(document).encode())
    assert is_ambiguous(status, reply.body) is is_accepted
    with pytest.raises(UpstreamError) as caught:
        read_reply(reply, now=1)
    assert caught.value.outcome == "uncertain" or not is_accepted


@given(DOCUMENTS)
def test_any_document_is_pictures_a_task_or_an_upstream_error(document):
    """Whatever a provider answers, nothing else comes out, and every error can be sent."""
    try:
        result = read(document)
    except UpstreamError as error:
        failed = error
    else:
        check(result)
        return
    check_error(failed)


@given(st.integers(200, 599), st.binary(max_size=40) | DOCUMENTS.map(lambda document: json.dumps(document).encode()))
def test_any_reply_is_pictures_a_task_or_an_upstream_error(status, body):
    """The same for the bytes of a whole reply; 400 and more are never pictures."""
    try:
        result = read_reply(UpstreamReply(status=status, headers={}, body=body), now=99)
    except UpstreamError as error:
        failed = error
    else:
        assert status < 400
        check(result)
        return
    check_error(failed)


@pytest.mark.parametrize(
    "document",
    [
        {"candidates": [{"finishReason": ["SAFETY"]}]},
        {"candidates": [{"finishReason": {"reason": "SAFETY"}}]},
        {"candidates": {"finishReason": "SAFETY"}},
        {"promptFeedback": "SAFETY"},
        {"status": "failed", "error": {"retry_after": 10**400}},
        {"id": "t1", "status": "queued", "progress": 10**400},
        {"id": "t1", "status": "queued", "progress": "9" * 5000},
        {"id": 5, "status": "queued"},
        {"status": ["failed"], "data": [{"url": "a"}]},
        {"created": 10**400, "data": [{"url": "a"}]},
        {"data": [{"url": "a", "seed": 10**30}]},
        {"code": "04001", "message": "x"},
    ],
    ids=lambda document: repr(document)[:60],
)
def test_odd_documents_are_read_or_refused(document):
    """Values of another type or size than any provider documents break nothing."""
    try:
        result = read(document)
    except UpstreamError as error:
        failed = error
    else:
        check(result)
        return
    check_error(failed)


@pytest.mark.parametrize(
    "document",
    [{"images": ["imagegate-0-1"]}, {"image": "imagegate-0-1", "seed": 1}, {"data": [{"b64_json": "imagegate-0-1"}]}],
)
def test_a_token_stands_for_a_picture_wherever_base64_may(document):
    """Where the base64 of a large reply was taken out: of a list of strings, or of a member that may hold a link."""
    found = read_document(document, now=1)
    assert [image.b64_json for image in found.images] == ["imagegate-0-1"]


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ({"content": {"parts": [{"text": "I cannot draw this."}]}, "finishReason": "STOP"}, "I cannot draw this."),
        ({"content": {"parts": [{"text": "Hm.", "thought": True}]}, "finishReason": "NO_IMAGE"}, "NO_IMAGE"),
        ({"content": {}, "finishReason": "IMAGE_OTHER", "finishMessage": "Try other words."}, "Try other words."),
        ({"content": {}, "finishReason": "IMAGE_SAFETY", "finishMessage": "It shows blood."}, "It shows blood."),
    ],
)
def test_what_gemini_says_instead_of_a_picture_is_told(candidate, words):
    reply = UpstreamReply(status=200, headers={}, body=json.dumps({"candidates": [candidate]}).encode())
    with pytest.raises(UpstreamError) as caught:
        load_adapter("gemini").decode(reply, now=1)
    assert caught.value.message.endswith(f"It says: {words}")


_ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "url": st.sampled_from(["https://a.example/1.png", "http://a.example/2", "/3.png", "", None, 7]),
        "b64_json": st.sampled_from(["iVBORw0KGgoAAAAN", "imagegate-1-2", "data:image/png;base64,AA==", "", None]),
        "revised_prompt": st.sampled_from(["a cat", None]),
        "error": st.just({"message": "no"}),
    },
)
_DOCUMENTS = st.fixed_dictionaries(
    {"data": st.lists(_ITEMS, max_size=3)},
    optional={
        "created": st.sampled_from([1, 0, -1, "soon", None]),
        "usage": st.just({"total_tokens": 3}),
        "size": st.sampled_from(["1024x1024", None]),
        "status": st.sampled_from(["completed", "failed", "pending"]),
        "id": st.just("task-1"),
    },
)


@given(_DOCUMENTS)
def test_the_short_way_reads_the_same(document: dict[str, Any]) -> None:
    """A byte order mark, which strict JSON does not allow, changes nothing in what is read of a document."""

    def read(body: bytes) -> object:
        try:
            return read_reply(UpstreamReply(status=200, headers={}, body=body), now=5)
        except UpstreamError as error:
            return type(error), error.message, error.code, error.outcome, error.made

    body = msgspec.json.encode(document)
    assert read(body) == read(b"\xef\xbb\xbf" + body)
