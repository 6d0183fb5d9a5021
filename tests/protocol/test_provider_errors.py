"""Providers' errors in OpenAI's envelope: every shape that they come in, and what may be tried again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.errors import ModerationBlocked, UpstreamError, UpstreamRefused, UpstreamUncertain
from imagegate.protocol.error_reader import ProviderError, provider_error
from imagegate.protocol.provider_errors import failure, refusal, shorten, uncertain
from imagegate.protocol.replies import UpstreamReply, read_reply

DATA = Path(__file__).parent.parent / "data" / "errors.jsonl"
FIXTURES = {
    line["id"]: line
    for line in map(
        json.loads, (Path(__file__).parent.parent / "data" / "errors.jsonl").read_text("utf-8").splitlines()
    )
}

EXPECTED: dict[str, tuple[type[UpstreamError], int, str | None, str | None]] = {
    # fixture: class, status, code, param
    "openai-unknown-parameter": (UpstreamRefused, 400, "unknown_parameter", "response_format"),
    "openai-size-multiple": (UpstreamRefused, 400, "invalid_value", "size"),
    "openai-size-too-small": (UpstreamRefused, 400, "invalid_value", "size"),
    "openai-moderation": (ModerationBlocked, 400, "moderation_blocked", None),
    "openai-empty-404": (UpstreamRefused, 404, "not_found", None),
    "azure-prompt-filtered": (ModerationBlocked, 400, "moderation_blocked", None),
    "azure-image-filtered": (ModerationBlocked, 400, "moderation_blocked", None),
    "gemini-not-found": (UpstreamRefused, 404, "NOT_FOUND", None),
    "gemini-prompt-blocked": (ModerationBlocked, 400, "moderation_blocked", None),
    "gemini-image-blocked": (ModerationBlocked, 400, "moderation_blocked", None),
    "xai-error-string": (UpstreamRefused, 400, "400", None),
    "xai-withheld": (ModerationBlocked, 400, "moderation_blocked", None),
    "bfl-request-moderated": (ModerationBlocked, 400, "moderation_blocked", None),
    "bfl-content-moderated": (ModerationBlocked, 400, "moderation_blocked", None),
    "bfl-task-not-found": (UpstreamRefused, 404, "task_not_found", None),
    "bfl-detail-list": (UpstreamRefused, 422, "...", "width"),
    "fal-detail-moderation": (ModerationBlocked, 422, "content_policy_violation", "prompt"),
    "fal-detail-text": (UpstreamRefused, 401, "invalid_api_key", None),
    "replicate-problem": (UpstreamRefused, 422, "...", None),
    "replicate-failed": (UpstreamRefused, 502, "generation_failed", None),
    "stability-moderation": (ModerationBlocked, 403, "moderation_blocked", None),
    "stability-filtered": (ModerationBlocked, 400, "moderation_blocked", None),
    "ideogram-unsafe": (ModerationBlocked, 400, "moderation_blocked", None),
    "seedream-unauthorized": (UpstreamRefused, 401, "AuthenticationError", None),
    "seedream-partial": (UpstreamUncertain, 400, "moderation_blocked", None),
    "dashscope-code-beside-message": (UpstreamRefused, 400, "InvalidParameter", None),
    "dashscope-moderation": (ModerationBlocked, 400, "moderation_blocked", None),
    "dashscope-unknown-task": (UpstreamRefused, 404, "task_not_found", None),
    "openrouter-number-code": (UpstreamRefused, 400, "400", None),
    "toapis-task-not-found": (UpstreamRefused, 404, "404", None),
    "toapis-failed": (UpstreamRefused, 502, "generation_failed", None),
    "tokenlab-task-not-found": (UpstreamRefused, 404, "task_not_found", None),
    "tokenlab-cancelled": (UpstreamRefused, 502, "task_cancelled", None),
    "newapi-task-not-exist": (UpstreamRefused, 404, "task_not_exist", None),
    "newapi-failure": (UpstreamRefused, 502, "generation_failed", None),
    "minimax-nothing-made": (UpstreamUncertain, 502, "no_image", None),
    "relay-html": (UpstreamUncertain, 502, "upstream_uncertain", None),
    "relay-error-in-200": (UpstreamRefused, 502, "upstream_error", None),
}


def raised_by(status: int, body: Any, headers: dict[str, str] | None = None) -> UpstreamError:
    """The error of a whole HTTP reply."""
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    with pytest.raises(UpstreamError) as caught:
        read_reply(UpstreamReply(status=status, headers=headers or {}, body=raw), now=1)
    return caught.value


def check_envelope(error: UpstreamError) -> None:
    """What holds for every error that a client sees."""
    envelope = json.loads(error.body())["error"]
    assert set(envelope) - {"imagegate"} == {"message", "type", "param", "code"}
    assert isinstance(envelope["message"], str)
    assert envelope["message"]
    assert isinstance(envelope["type"], str)
    assert envelope["type"]
    assert isinstance(envelope["param"], (str, type(None)))
    assert isinstance(envelope["code"], (str, type(None)))
    assert 400 <= error.status <= 599


# Fixtures


def test_every_fixture_is_expected_to_be_something():
    """All 38 replies of providers are in the table."""
    assert list(EXPECTED) == list(FIXTURES)
    assert len(EXPECTED) == 38


@pytest.mark.parametrize("name", EXPECTED)
def test_a_providers_error_becomes_the_right_one(name):
    """Each provider's error has the class, status, code and parameter that it means."""
    fixture = FIXTURES[name]
    error = raised_by(fixture["status"], fixture["body"])
    assert EXPECTED[name] == (type(error), error.status, error.code, error.param)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_providers_error_has_openais_envelope(name):
    """All four members are there, the message says something, and the code is text or null."""
    check_envelope(raised_by(FIXTURES[name]["status"], FIXTURES[name]["body"]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openai-unknown-parameter", "Unknown parameter: 'response_format'."),
        ("azure-prompt-filtered", "Your task failed as a result of our safety system."),
        ("gemini-prompt-blocked", "The provider blocked the request: PROHIBITED_CONTENT"),
        ("xai-error-string", "Argument not supported: size"),
        ("xai-withheld", "The provider withheld the image for its content."),
        ("bfl-request-moderated", "The provider answered: Request Moderated."),
        ("stability-moderation", "Your request was flagged by our content moderation system..."),
        ("dashscope-code-beside-message", "Field required: input.messages"),
        ("toapis-task-not-found", "Task not found"),
        ("seedream-partial", "1 of 2 images were made, then: ..."),
        ("openai-empty-404", "The provider answered 404 without a reason."),
        ("relay-html", "The provider answered 200 with a body that is not JSON."),
        ("minimax-nothing-made", "The provider's reply contains no image."),
    ],
)
def test_the_providers_own_words_reach_the_client(name, message):
    """The message is the provider's, or says what its reply lacks."""
    assert message == raised_by(FIXTURES[name]["status"], FIXTURES[name]["body"]).message


# Shapes


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, None),
        ({"error": None, "created": 1}, None),
        ({"error": ""}, None),
        ({"error": {}}, None),
        ({"code": "success", "message": "ok"}, None),
        ({"code": 0, "message": "fine"}, None),
        ({"code": 200, "data": []}, None),
        ({"message": "hello"}, None),
        ({"success": True, "message": "hello"}, None),
        ({"detail": []}, None),
        ({"errors": []}, None),
        ({"base_resp": {"status_code": 0, "status_msg": "success"}}, None),
        ({"data": {"status": "SUCCESS"}}, None),
        ({"error": "text"}, ProviderError(message="text")),
        ({"error": "text", "code": "E1"}, ProviderError(message="text", code="E1")),
        (
            {"error": {"message": "m", "type": "t", "param": "p", "code": "c", "retry_after": 3}},
            ProviderError(message="m", type="t", param="p", code="c", retry_after=3.0),
        ),
        ({"error": {"message": "m", "retry_after": -1}}, ProviderError(message="m")),
        (
            {"error": "Model o/n is currently loading", "estimated_time": 8.0},
            ProviderError(message="Model o/n is currently loading", retry_after=8.0),
        ),
        ({"error": {"message": "m", "retry_after": 10**9}}, ProviderError(message="m")),
        ({"error": {"message": "m", "code": 404}}, ProviderError(message="m", code="404")),
        ({"error": {"code": 429, "message": "m", "status": "EXHAUSTED"}}, ProviderError(message="m", code="EXHAUSTED")),
        ({"error": {"code": "own", "message": "m", "status": "X"}}, ProviderError(message="m", code="own")),
        ({"error": {"code": "only_code"}}, ProviderError(message="only_code", code="only_code")),
        ({"error": {"message": "m", "param": "", "code": ""}}, ProviderError(message="m")),
        ({"error": {"message": "m", "retry_after": "3"}}, ProviderError(message="m")),
        ({"detail": "text"}, ProviderError(message="text")),
        ({"title": "T", "detail": "text", "status": 422}, ProviderError(message="text", code="T", status=422)),
        (
            {"title": "Input validation failed", "detail": "- input: bad\n", "status": 422},
            ProviderError(message="- input: bad", status=422),
        ),
        (
            {"title": "The seed is too large.", "detail": "Bad request", "status": 400},
            ProviderError(message="The seed is too large.", status=400),
        ),
        (
            {"detail": [{"loc": ["body"], "msg": "It broke.", "type": "internal_server_error"}]},
            ProviderError(message="It broke.", code="internal_server_error"),
        ),
        (
            {"detail": [{"loc": ["body", "a", 0], "msg": "bad", "type": "v"}, {"loc": ["body", "b"], "msg": "worse"}]},
            ProviderError(message="bad; worse", param="0", code="v"),
        ),
        ({"detail": ["plain"]}, ProviderError(message="plain")),
        ({"name": "n", "errors": ["a", "b"]}, ProviderError(message="a; b", code="n")),
        ({"code": "E1", "message": "m"}, ProviderError(message="m", code="E1")),
        ({"code": "E1"}, ProviderError(message="E1", code="E1")),
        ({"output": {"code": "E1", "message": "m"}}, ProviderError(message="m", code="E1")),
        ({"data": {"fail_reason": "why", "status": "FAILURE"}}, ProviderError(message="why")),
        ({"fail_reason": "why", "code": "success"}, ProviderError(message="why")),
        ({"base_resp": {"status_code": 1026, "status_msg": "no"}}, ProviderError(message="no", code="1026")),
        ({"success": False, "message": "m"}, ProviderError(message="m")),
        ({"success": False}, ProviderError(message="The provider reports no success.")),
    ],
)
def test_errors_are_found_in_every_shape(document, expected):
    """Strings, objects, lists, problems, codes beside messages, and things that only look like errors."""
    assert expected == provider_error(document)


def test_hints_of_tokenlab_do_not_hide_the_error():
    """Members that are more than OpenAI's are no hindrance."""
    document = {
        "error": {
            "message": "Unknown model.",
            "type": "model_not_found",
            "code": "model_not_found",
            "did_you_mean": "gpt-image-2",
            "retryable": False,
        },
        "validation_errors": [],
    }
    error = failure(404, document)
    assert (
        error.status,
        error.code,
        error.type,
        error.message,
    ) == (404, "model_not_found", "model_not_found", "Unknown model.")


# Moderation


@pytest.mark.parametrize(
    "document",
    [
        {"error": {"message": "x", "code": "moderation_blocked"}},
        {"error": {"message": "x", "code": "content_policy_violation"}},
        {"error": {"message": "x", "code": "contentFilter"}},
        {"error": {"message": "x", "code": "content_filter"}},
        {"error": {"message": "x", "type": "content_policy_violation"}},
        {"error": {"message": "x", "code": "OutputImageSensitiveContentDetected"}},
        {"error": {"message": "x", "code": "DataInspectionFailed"}},
        {"error": {"message": "x", "code": "SAFETY"}},
        {"code": "IPInfringementSuspect", "message": "x", "request_id": "r"},
        {"error": {"message": 'm requires moderation on p. Your input was flagged for "violence".', "code": 403}},
        {
            "code": "permission-denied",
            "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
        },
        {"error": {"message": "Your request was rejected by the safety system."}},
        {"error": {"message": "This violates our content policy."}},
        {"name": "content_moderation", "errors": ["x"]},
        {"detail": [{"loc": ["body", "prompt"], "msg": "x", "type": "content_policy_violation"}]},
    ],
)
@pytest.mark.parametrize("status", [400, 403, 422])
def test_refusals_for_content_are_told_apart(document, status):
    """A refusal for content has OpenAI's type, one of its two codes, and goes to no other provider."""
    error = failure(status, document)
    assert (ModerationBlocked, status, "image_generation_user_error") == (type(error), error.status, error.type)
    assert error.code in ("moderation_blocked", "content_policy_violation")
    assert not error.allows_fallback


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (
            400,
            {
                "error": {
                    "message": "Unknown parameter: 'moderation'.",
                    "param": "moderation",
                    "code": "unknown_parameter",
                }
            },
        ),
        (400, {"error": {"message": "Invalid type for 'moderation': expected a string.", "code": "invalid_type"}}),
        (400, {"code": "400", "error": "Argument not supported: moderation"}),
        (400, {"error": {"message": "See our content policy.", "param": "moderation", "code": "invalid_value"}}),
        (400, {"error": {"message": "Unknown parameter: 'content_policy'.", "code": "unknown_parameter"}}),
        (429, {"error": {"message": "Rate limit reached for omni-moderation.", "code": "rate_limit_exceeded"}}),
    ],
)
def test_errors_about_the_parameter_moderation_are_no_refusal_for_content(status, document):
    """The word alone proves nothing: `moderation` is the name of a parameter."""
    error = failure(status, document)
    assert (UpstreamRefused, status) == (type(error), error.status)
    assert error.code != "moderation_blocked"


# What may be tried again


@pytest.mark.parametrize(
    ("status", "document", "kind", "outcome", "elsewhere"),
    [
        (400, {"error": {"message": "x"}}, UpstreamRefused, "rejected", False),
        (401, {"error": {"message": "x"}}, UpstreamRefused, "rejected", False),
        (402, {"error": {"message": "x"}}, UpstreamRefused, "rejected", False),
        (404, {"error": {"message": "x"}}, UpstreamRefused, "rejected", False),
        (422, {"detail": "x"}, UpstreamRefused, "rejected", False),
        (408, {"error": {"message": "x"}}, UpstreamRefused, "rejected", True),
        (409, {"error": {"message": "x"}}, UpstreamRefused, "rejected", True),
        (429, {"error": {"message": "x"}}, UpstreamRefused, "rejected", True),
        (429, None, UpstreamRefused, "rejected", True),
        (408, None, UpstreamUncertain, "uncertain", False),
        (409, {}, UpstreamUncertain, "uncertain", False),
        (500, {"error": {"message": "x"}}, UpstreamRefused, "rejected", True),
        (503, {"error": {"message": "x"}}, UpstreamRefused, "rejected", True),
        (500, None, UpstreamUncertain, "uncertain", False),
        (500, {}, UpstreamUncertain, "uncertain", False),
        (503, {"hello": 1}, UpstreamUncertain, "uncertain", False),
        (502, {"error": {"message": "x"}}, UpstreamUncertain, "uncertain", False),
        (504, {"error": {"message": "x"}}, UpstreamUncertain, "uncertain", False),
        (520, None, UpstreamUncertain, "uncertain", False),
        (524, {"error": {"message": "x"}}, UpstreamUncertain, "uncertain", False),
        (529, {"error": {"message": "x"}}, UpstreamUncertain, "uncertain", False),
    ],
)
def test_only_what_the_provider_itself_refused_may_be_tried_again(status, document, kind, outcome, elsewhere):
    """A gateway's page, a 502, 504 or 52x may hide a picture that was made and billed."""
    error = failure(status, document)
    assert (kind, outcome, elsewhere) == (type(error), error.outcome, error.allows_fallback)
    assert (outcome == "uncertain") == ((b"x-should-retry", b"false") in error.headers)


@pytest.mark.parametrize(
    ("status", "answered", "code"),
    [
        (504, 504, "upstream_timeout"),
        (524, 504, "upstream_timeout"),
        (502, 502, "upstream_uncertain"),
        (521, 502, "upstream_uncertain"),
    ],
)
def test_time_outs_are_504_and_everything_else_uncertain_502(status, answered, code):
    """Clients can tell a time-out from a broken reply."""
    error = failure(status, None)
    assert (answered, code) == (error.status, error.code)


@pytest.mark.parametrize(
    ("status", "type_", "code"),
    [
        (400, "invalid_request_error", "invalid_request"),
        (401, "authentication_error", "invalid_api_key"),
        (402, "insufficient_quota", "insufficient_quota"),
        (403, "permission_error", "permission_denied"),
        (404, "invalid_request_error", "not_found"),
        (413, "invalid_request_error", "payload_too_large"),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (418, "upstream_error", "upstream_error"),
        (500, "upstream_error", "upstream_error"),
    ],
)
def test_an_error_without_type_and_code_gets_those_of_its_status(status, type_, code):
    """Clients find the words that they know."""
    error = failure(status, {"error": {"message": "x"}})
    assert (status, type_, code) == (error.status, error.type, error.code)


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (ProviderError(message="x", code="429"), 429),
        (ProviderError(message="x", code="rate_limit_exceeded"), 429),
        (ProviderError(message="x", type="invalid_request_error"), 400),
        (ProviderError(message="x", type="insufficient_balance"), 402),
        (ProviderError(message="x", type="model_not_found", code="m1"), 404),
        (ProviderError(message="x", code="401", type="rate_limit_error"), 401),
        (ProviderError(message="x", code="1026"), 502),
        (ProviderError(message="x", code="4004"), 502),
        (ProviderError(message="x", code="04001"), 502),
        (ProviderError(message="x", code="0500123"), 502),
        (ProviderError(message="x", code="²"), 502),
        (ProviderError(message="x", code="9" * 5000), 502),
        (ProviderError(message="x"), 502),
    ],
)
def test_an_error_in_a_200_has_the_status_of_its_words(found, status):
    """Codes and types say what the status did not, and what is no HTTP status is none."""
    assert status == refusal(found).status


@pytest.mark.parametrize(
    ("found", "status", "code"),
    [
        (ProviderError(message="x", status=504), 504, "upstream_timeout"),
        (ProviderError(message="x", code="524"), 504, "upstream_timeout"),
        (ProviderError(message="x", code="502"), 502, "upstream_uncertain"),
        (ProviderError(message="x", type="520"), 502, "upstream_uncertain"),
        (ProviderError(message="x", code="RequestTimeOut"), 504, "upstream_timeout"),
        (ProviderError(message="x", code="timeout", type="server_error"), 504, "upstream_timeout"),
        (ProviderError(message="x", type="gateway_timeout"), 504, "upstream_timeout"),
        (ProviderError(message="x", type="timed_out"), 504, "upstream_timeout"),
        (ProviderError(message="x", code="DEADLINE_EXCEEDED"), 504, "upstream_timeout"),
    ],
)
def test_an_error_in_a_200_may_say_that_the_provider_gave_up(found, status, code):
    """Then something may have been made, as with that status itself; beside a status, or of a task, nothing goes on."""
    error = refusal(found)
    assert ("uncertain", status, code) == (error.outcome, error.status, error.code)
    assert refusal(found, status=400).outcome == "rejected"
    assert refusal(found, is_over=True).outcome == "rejected"


def test_a_message_alone_is_no_word_of_giving_up():
    """Prompts are quoted in messages, and parameters may be called so."""
    assert refusal(ProviderError(message="Invalid timeout: 504")).outcome == "rejected"
    assert refusal(ProviderError(message="x", code="timeout_too_long", type="invalid_request_error")).status == 400


STATUSES = {
    400: ("invalid_request_error", "image_generation_user_error", "bad_request_error"),
    401: ("authentication_error", "unauthorized", "invalid_api_key"),
    402: ("insufficient_balance", "insufficient_quota"),
    403: ("permission_error",),
    404: ("not_found_error", "model_not_found"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}


@pytest.mark.parametrize(("status", "word"), [(status, word) for status, words in STATUSES.items() for word in words])
def test_words_that_mean_a_status(status, word):
    """Types and codes of OpenAI and its relays say what went wrong, in whichever member they stand."""
    found = (refusal(ProviderError(message="x", type=word)), refusal(ProviderError(message="x", code=word)))
    assert [status, status] == [error.status for error in found]


@pytest.mark.parametrize("status", [400, 404, 429, 500, 502, 503, 504, 524])
@pytest.mark.parametrize(
    "document",
    [
        {"error": {"type": "x"}},
        {"error": {"message": "", "code": ""}},
        {"error": {"message": {"nested": 1}}},
        {"error": {"message": "  \n "}},
        {"detail": [{"loc": ["a"], "msg": ""}]},
        {"errors": [""]},
        {"base_resp": {"status_code": 5}},
        {"data": {"fail_reason": True}},
        {},
        None,
    ],
)
def test_a_message_is_never_empty(status, document):
    """Whatever the provider leaves out, the client is told something."""
    check_envelope(failure(status, document))


@pytest.mark.parametrize(
    "retry_after", [10**400, 1e308, -5, 0, True], ids=["huge", "large", "negative", "zero", "boolean"]
)
def test_an_odd_retry_after_breaks_nothing(retry_after):
    """Whatever a provider asks clients to wait, the header is a number of seconds."""
    error = failure(429, {"error": {"message": "x", "retry_after": retry_after}})
    check_envelope(error)
    waits = [value for name, value in error.headers if name == b"retry-after"]
    assert all(value.isdigit() and len(value) < 12 for value in waits)


# Texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n\n b\t c ", "a b c"),
        ("x" * 1000, "x" * 1000),
        ("x" * 1001, "x" * 997 + "..."),
        ("", ""),
    ],
)
def test_texts_of_providers_are_shortened(text, expected):
    """White space is folded, and a thousand characters are enough."""
    assert expected == shorten(text)


@pytest.mark.parametrize("status", [400, 502, 200])
def test_pages_and_base64_do_not_reach_clients(status):
    """A long text is cut, wherever it stands."""
    assert len(raised_by(status, {"error": {"message": "A" * 100_000}}).message) <= 1000


@pytest.mark.parametrize(
    "document",
    [
        {"promptFeedback": {"blockReason": "A" * 100_000}},
        {"status": "failed", "error": "A" * 100_000},
        {"status": "Request Moderated", "detail": "A" * 100_000},
        {"data": [{"url": "u"}, {"error": {"message": "A" * 100_000}}]},
    ],
)
def test_long_texts_in_a_200_are_cut_too(document):
    """A failure that is hidden in a success is no longer than any other."""
    assert len(raised_by(200, document).message) <= 1100


def test_uncertain_says_that_a_retry_may_cost():
    """The official SDKs repeat 5xx by themselves unless they are told not to."""
    error = uncertain("  The reply was cut.\n", request_id="req_1")
    assert (error.message, error.status, error.headers) == ("The reply was cut.", 502, [(b"x-should-retry", b"false")])
    assert error.details == {"upstream_request_id": "req_1"}


@pytest.mark.parametrize(
    ("headers", "body", "waits"),
    [
        ({"retry-after": "7"}, {"error": {"message": "x"}}, [b"7"]),
        ({"retry-after": "7"}, {"error": {"message": "x", "retry_after": 3}}, [b"3"]),
        (
            {"retry-after": "Fri, 31 Dec 1999 23:59:29 GMT", "date": "Fri, 31 Dec 1999 23:59:59 GMT"},
            {"error": {"message": "x"}},
            [],
        ),
        (
            {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:29 GMT"},
            {"error": {"message": "x"}},
            [b"30"],
        ),
        ({"retry-after": "0.5"}, {"error": {"message": "x"}}, [b"1"]),
        ({"retry-after": "-1"}, {"error": {"message": "x"}}, []),
        ({"retry-after": "٣"}, {"error": {"message": "x"}}, []),
        ({}, {"error": {"message": "x"}}, []),
    ],
)
def test_retry_after_reaches_the_client_once(headers, body, waits):
    """The provider's wish is handed on in whole seconds."""
    error = raised_by(429, body, headers)
    assert waits == [value for name, value in error.headers if name == b"retry-after"]


def test_the_providers_request_id_is_kept_beside_the_error():
    """Operators can ask the provider about it."""
    error = raised_by(400, {"error": {"message": "x"}}, {"x-request-id": "req_9"})
    assert json.loads(error.body())["error"]["imagegate"] == {"upstream_request_id": "req_9"}


KEYS = [
    *("error", "errors", "detail", "message", "code", "type", "param", "status", "title", "name", "loc", "msg", "data"),
    *("output", "base_resp", "status_code", "status_msg", "success", "fail_reason", "retry_after", "request_id"),
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([404, 429, 10**400]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.sampled_from(["404", "04001", "content_policy_violation", "invalid_request_error", "task_not_exist"]),
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(KEYS),
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(st.integers(400, 599), DOCUMENTS)
def test_any_error_reply_becomes_an_upstream_error(status, document):
    """No document is too odd for an envelope, and what is uncertain is never tried again."""
    error = failure(status, document)
    check_envelope(error)
    assert len(error.message) <= 1000
    assert (error.outcome == "uncertain") == ((b"x-should-retry", b"false") in error.headers)
    assert not (error.outcome == "uncertain" and error.allows_fallback)


@given(st.integers(400, 599), st.binary(max_size=60))
def test_any_error_body_becomes_an_upstream_error(status, body):
    """No bytes are too odd either."""
    with pytest.raises(UpstreamError) as caught:
        read_reply(UpstreamReply(status=status, headers={}, body=body), now=1)
    check_envelope(caught.value)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"type": "model_not_found"}, "model_not_found"),
        ({"type": "not_found_error"}, "not_found"),
        ({"type": "model_not_found", "code": "gone"}, "gone"),
    ],
)
def test_a_type_that_is_openais_code(error: dict[str, str], code: str) -> None:
    """TokenLab has no code for a model that it does not know; clients look for one."""
    assert raised_by(404, {"error": {"message": "No.", **error}}).code == code


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"code": "Client specified an invalid argument", "error": "Bad key."}, (400, None, "invalid_request")),
        (401, "request unauthorized", (401, "authentication_error", "invalid_api_key")),
        (403, "no", (403, "permission_error", "permission_denied")),
        (415, {"error": "Send JSON."}, (415, "invalid_request_error", "unsupported_media_type")),
        (
            422,
            {"title": "Input failed", "detail": "- input.width: too large", "status": 422},
            (422, None, "invalid_request"),
        ),
        (400, {"code": "prompt_safety_check_failed", "message": "No."}, (400, None, "moderation_blocked")),
    ],
)
def test_codes_are_words(status: int, body: Any, expected: tuple[int, str | None, str]) -> None:
    """A sentence is no code; without one, status says what it is, also of a body that is text alone."""
    document, text = (None, body) if isinstance(body, str) else (body, "")
    error = failure(status, document, text=text)
    assert (error.status, error.code) == (expected[0], expected[2])
    assert expected[1] in (None, error.type)


def test_a_string_as_json_is_read_as_its_text() -> None:
    """SiliconFlow's keys are refused so; the quotes are JSON's."""
    with pytest.raises(UpstreamRefused, match=r"^Invalid \"token\"$"):
        read_reply(UpstreamReply(status=401, headers={}, body=rb'"Invalid \"token\""'), now=1)


@pytest.mark.parametrize("flag", ["respect_moderation", "is_image_safe"])
def test_what_is_marked_as_withheld_is_no_picture(flag: str) -> None:
    """Also where a picture stands in its place."""
    body = json.dumps({"data": [{flag: False, "url": "https://a.example/blurred.png"}]}).encode()
    with pytest.raises(ModerationBlocked):
        read_reply(UpstreamReply(status=200, headers={}, body=body), now=1)


@pytest.mark.parametrize("text", ["Your prompt 'a kite' was refused", "iVBORw0KGgo" * 40, "a\nb", ""])
def test_a_text_in_place_of_a_name_is_none(text):
    """Codes and types stand in log lines and spans, which have no prompts and no images."""
    error = failure(400, {"error": {"code": text, "type": text, "message": "No."}})
    assert (error.code, error.type) == ("invalid_request", "invalid_request_error")
