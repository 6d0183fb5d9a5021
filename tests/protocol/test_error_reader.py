"""What an error says, whatever its shape: arrays, nesting, printed structures, any usual member."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagegate.errors import UpstreamError
from imagegate.protocol.error_reader import digest, provider_error, read_error, read_text
from imagegate.protocol.provider_errors import failure

SENTENCE = "The size 9x9 is not one of those that the model has."
HOLLOW = [
    "Bad Request",
    "error",
    "Provider returned error",
    "500 Internal Server Error",
    "Something went wrong.",
    "Upstream request failed",
    "Traceback (most recent call last): it is long, and says nothing to a client of the gateway",
]


@pytest.mark.parametrize(
    "document",
    [
        {"error_message": SENTENCE},
        {"errorMessage": SENTENCE, "errorType": "ValueError"},
        {"Error": {"Code": "X", "Message": SENTENCE}},
        {"Response": {"Error": {"Code": "X", "Message": SENTENCE}, "RequestId": "1"}},
        {"ResponseMetadata": {"Error": {"CodeN": 1, "Code": "X", "Message": SENTENCE}}},
        {"fault": {"faultstring": SENTENCE, "detail": {"errorcode": "policies.x"}}},
        {"error": "invalid_request", "error_description": SENTENCE},
        {"message": ["A bad one.", SENTENCE], "statusCode": 400},
        {"error": {"message": "Provider returned error", "metadata": {"raw": json.dumps({"message": SENTENCE})}}},
        {"error": {"message": f"400 Bad Request: {json.dumps({'error': {'message': SENTENCE}})}"}},
        {"error": f"Error code: 400 - {{'error': {{'message': '{SENTENCE}', 'code': 'x'}}}}"},
        {"error": f'upstream said {{"error": {{"message": "{SENTENCE} And mo'},
        {"errors": {"size": [SENTENCE]}},
        {"errors": [{"extensions": {"code": 7}, "message": SENTENCE}]},
        {"success": False, "result": {"reason": SENTENCE}},
        [[{"error": {"error": {"error": {"msg": SENTENCE}}}}]],
        {"detail": {"error": {"message": SENTENCE}}},
        {"detail": f"<?xml version='1.0'?><Error><Message>{SENTENCE}</Message></Error>"},
        {"err": {"msg": SENTENCE}},
        {"status": {"code": 3, "message": SENTENCE}},
    ],
)
def test_the_sentence_is_found(document: Any) -> None:
    found = read_error(document)
    assert found is not None
    assert SENTENCE in found.message
    assert not set("{[<") & set(found.message)


@pytest.mark.parametrize("hollow", HOLLOW)
@pytest.mark.parametrize("outer", [True, False])
def test_the_sentence_that_says_most_wins(hollow: str, outer: bool) -> None:
    first, second = ("Not enough credit", hollow) if outer else (hollow, "Not enough credit")
    found = read_error({"error": {"message": first, "details": [{"message": second}]}})
    assert found is not None
    assert found.message == "Not enough credit"


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ([{"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}], "UNAVAILABLE"),
        ({"errorCode": "E7", "errorMessage": "m"}, "E7"),
        ({"errno": 1001, "errmsg": "m"}, "1001"),
        ({"statusCode": 400, "error": "Bad Request", "message": "m"}, None),
        ({"error": {"message": "outer", "error": {"code": "inner"}}}, "inner"),
        ({"status": "FAILED", "message": "m"}, None),
        ({"error": "invalid_grant", "error_description": "m n"}, "invalid_grant"),
        ({"errors": [{"code": 7003, "message": "m"}]}, "7003"),
    ],
)
def test_codes(document: Any, code: str | None) -> None:
    found = read_error(document)
    assert found is not None
    assert found.code == code


def test_where_to_wait() -> None:
    """Google says it among the details."""
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "33.5s"}]
    found = read_error({"error": {"code": 429, "message": "Quota exceeded.", "details": details}})
    assert found is not None
    assert (found.message, found.retry_after) == ("Quota exceeded.", 33.5)


@pytest.mark.parametrize(
    "document",
    [
        {"code": 10000, "message": "Success", "data": {}},
        {"code": 1, "description": "Submit success", "result": "7"},
        {"code": "00000", "msg": "ok"},
        {"status": 200, "message": "Request successful"},
        {"error": "none", "data": []},
        {"data": {"code": 0, "msg": ""}},
    ],
)
def test_what_is_no_error_in_a_success(document: Any) -> None:
    assert provider_error(document) is None


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"code": 1001, "msg": "insufficient balance", "data": None}, None),
        ({"ok": False, "description": "no"}, None),
        ({"code": 7, "message": "not successful"}, None),
        ({"statusCode": 429, "message": "slow down"}, 429),
        ({"data": {"error_code": 8, "error_msg": "no"}}, None),
        ({"result": {"error": {"message": "no"}}}, None),
    ],
)
def test_errors_in_a_success(document: Any, status: int | None) -> None:
    found = provider_error(document)
    assert found is not None
    assert found.status == status


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("404 page not found", "404 page not found"),
        (" error code: 1015\n", "error code: 1015"),
        ("<!DOCTYPE html><html><body>No</body></html>", None),
        ("<html><head><title>504</title></head></html>", None),
        ("<Error><Code>SlowDown</Code><Message>Slow down, please.</Message></Error>", "Slow down, please."),
        ("<Error/>", None),
        ("", None),
        ('upstream: {"message": "no credit"', "no credit"),
    ],
)
def test_bodies_that_are_no_json(text: str, message: str | None) -> None:
    found = read_text(text)
    assert (found.message if found else None) == message


@pytest.mark.parametrize(
    ("status", "text", "outcome", "message"),
    [
        (404, "404 page not found", "rejected", "404 page not found"),
        (429, "error code: 1015", "rejected", "error code: 1015"),
        (400, "<html>no</html>", "rejected", "The provider answered 400 without a reason."),
        # A gateway in front of the provider may say so of a request that is being worked on.
        (503, "no healthy upstream", "uncertain", "no healthy upstream"),
        (500, "Internal Server Error", "uncertain", "Internal Server Error"),
        (503, "<Error><Code>SlowDown</Code><Message>Wait.</Message></Error>", "rejected", "Wait."),
    ],
)
def test_text_of_a_refusal(status: int, text: str, outcome: str, message: str) -> None:
    error = failure(status, None, text=text)
    assert (error.outcome, error.message, error.status) == (outcome, message, 502 if outcome == "uncertain" else status)


def test_what_has_no_usual_member_is_told_in_short() -> None:
    document = {"size": ["not one of 1024x1024"], "trace": "x" * 1000, "n": {"max": 4}}
    assert failure(400, document).message == "size: not one of 1024x1024; max: 4"
    assert failure(500, document).outcome == "uncertain"
    assert digest({}) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 600) | st.text(max_size=30) | st.sampled_from(HOLLOW),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "errors", "detail", "code", "status", "data", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@example(["\r"], 500)
@given(JSON, st.sampled_from([200, 400, 429, 500, 504]))
def test_any_document(document: Any, status: int) -> None:
    """Nothing raises, and what is found says something."""
    for found in (read_error(document), provider_error(document) if isinstance(document, dict) else None):
        assert found is None or found.message
    if isinstance(document, (dict, list)):
        error = failure(max(status, 400), document)
        assert isinstance(error, UpstreamError)
        assert error.message


@given(JSON, st.lists(st.sampled_from(["error", "errors", "detail", "data", "message", "0"]), max_size=4))
def test_depth_hides_nothing(beside: Any, path: list[str]) -> None:
    """Wherever the sentence stands within the usual members, it is found."""
    document: Any = {"message": SENTENCE}
    for name in path:
        document = [document] if name == "0" else {name: document, "x": beside}
    found = read_error(document)
    assert found is not None
    assert SENTENCE in found.message


def test_work_is_bounded() -> None:
    """A document of a hundred thousand objects is not looked at to its end."""
    wide = {"errors": [{"message": f"{place}"} for place in range(100_000)]}
    found = read_error(wide)
    assert found is not None
    assert "100" not in found.message
    deep: Any = {"message": SENTENCE}
    for _ in range(5000):
        deep = {"error": deep}
    assert read_error(deep) is None
