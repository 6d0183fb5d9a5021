"""The OneToken stand-in: gpt-image-2 behind New-API."""

from __future__ import annotations

from typing import Any

import pytest
from tests.demo.support import client_of, decoded, error_of, image_part, size_and_format

from imagegate.demo.providers import onetoken

BODY = {"model": "gpt-image-2", "prompt": "a cat", "size": "1024x640"}


def post(body: dict[str, Any], path: str = "/v1/images/generations/") -> Any:
    return client_of(onetoken.create_app()).post(path, json=body)


def test_an_image_comes_as_base64() -> None:
    """The reply has created and data[].b64_json, nothing else."""
    body = post({**BODY, "quality": "low", "n": 2}).json()
    assert {"created", "data"} == body.keys()
    assert len(body["data"]) == 2
    assert size_and_format(decoded(body["data"][0])) == (1024, 640, "PNG")


def test_the_documented_default_quality_is_legal() -> None:
    """The docs give quality the default of an empty string."""
    assert post({**BODY, "quality": ""}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/edits"])
def test_paths_without_a_slash_do_not_exist(path: str) -> None:
    """Only the documented spelling is there, and nobody redirects."""
    response = post(BODY, path)
    assert response.status_code == 404
    assert error_of(response)["message"].startswith(f"Invalid URL (POST {path})")


@pytest.mark.parametrize(
    ("changes", "status", "kind", "code"),
    [
        ({"model": "dall-e-3"}, 503, "new_api_error", "model_not_found"),
        ({"model": None}, 400, "invalid_request_error", "invalid_type"),
        ({"prompt": ""}, 400, "invalid_request_error", "empty_string"),
        ({"size": "512x512"}, 400, "image_generation_user_error", "invalid_value"),
        ({"size": "1792x936"}, 400, "image_generation_user_error", "invalid_value"),
        ({"quality": "hd"}, 400, "invalid_request_error", "invalid_value"),
        ({"n": 11}, 400, "invalid_request_error", "integer_above_max_value"),
        ({"response_format": "url"}, 400, "invalid_request_error", "unknown_parameter"),
        ({"output_format": "png"}, 400, "invalid_request_error", "unknown_parameter"),
        ({"user": "u"}, 400, "invalid_request_error", "unknown_parameter"),
        ({"prompt": "forbidden"}, 400, "image_generation_user_error", "moderation_blocked"),
    ],
)
def test_what_onetoken_refuses_is_refused(changes: dict[str, Any], status: int, kind: str, code: str) -> None:
    """New-API's four members, with the request id at the end of the message."""
    response = post({**BODY, **changes})
    error = error_of(response)
    assert {"message", "type", "param", "code"} == error.keys()
    assert (status, kind, code) == (response.status_code, error["type"], error["code"])
    assert f"(request id: {response.headers['x-oneapi-request-id']})" in error["message"]


def test_a_model_is_required_for_generations() -> None:
    """The docs call model required."""
    assert error_of(post({"prompt": "a cat"}))["code"] == "missing_required_parameter"


def edit(data: dict[str, Any], *files: tuple[str, Any]) -> Any:
    return client_of(onetoken.create_app()).post("/v1/images/edits/", data=data, files=list(files))


def test_an_edit_needs_no_model() -> None:
    """The documented example sends image and prompt alone."""
    assert edit({"prompt": "a hat"}, image_part(), image_part("mask")).status_code == 200


@pytest.mark.parametrize("changes", [{"response_format": "url"}, {"background": "auto"}, {"size": "auto", "n": "0"}])
def test_bad_edits_are_refused(changes: dict[str, Any]) -> None:
    """The five documented fields are all there are."""
    assert edit({**BODY, **changes}, image_part()).status_code == 400
    assert edit(BODY, image_part("mask")).status_code == 400
