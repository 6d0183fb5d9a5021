"""The TokenBay stand-in: a relay with its own list of fields."""

from __future__ import annotations

from typing import Any

import pytest
from tests.demo.support import client_of, decoded, error_of, image_part, size_and_format

from imagegate.demo.providers import tokenbay

GPT = {"model": "gpt-image-2", "prompt": "a cat"}
DALL_E_3 = {"model": "dall-e-3", "prompt": "a cat"}


def post(body: dict[str, Any]) -> Any:
    return client_of(tokenbay.create_app()).post("/v1/images/generations", json=body)


def edit(data: dict[str, Any], *files: tuple[str, Any]) -> Any:
    return client_of(tokenbay.create_app()).post("/v1/images/edits", data=data, files=list(files))


def test_gpt_image_answers_base64() -> None:
    """GPT image models answer b64_json in the format asked for."""
    body = post({**GPT, "size": "1024x640", "output_format": "webp", "user": "u"}).json()
    assert size_and_format(decoded(body["data"][0])) == (1024, 640, "WEBP")


def test_a_transparent_picture_comes_from_the_older_model() -> None:
    """gpt-image-1.5 makes transparent backgrounds, gpt-image-2 does not."""
    wanted = {"background": "transparent", "prompt": "a cat"}
    assert post({**wanted, "model": "gpt-image-1.5"}).json()["background"] == "transparent"
    assert post({**wanted, "model": "gpt-image-2"}).status_code == 400


def test_dall_e_3_answers_a_link() -> None:
    """dall-e-3 answers url unless b64_json is asked for."""
    app = tokenbay.create_app()
    url = client_of(app).post("/v1/images/generations", json=DALL_E_3).json()["data"][0]["url"]
    assert size_and_format(client_of(app, key="").get(url).content) == (1024, 1024, "PNG")
    assert "b64_json" in post({**DALL_E_3, "response_format": "b64_json"}).json()["data"][0]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({**GPT, "response_format": "url"}, 400, "unknown_parameter"),
        ({**GPT, "style": "vivid"}, 400, "unknown_parameter"),
        ({**GPT, "stream": True}, 400, "unknown_parameter"),
        ({**GPT, "partial_images": 1}, 400, "unknown_parameter"),
        ({**GPT, "safety_identifier": "u"}, 400, "unknown_parameter"),
        ({**GPT, "aspect_ratio": "1:1"}, 400, "unknown_parameter"),
        ({**GPT, "size": "512x512"}, 400, "invalid_value"),
        ({**GPT, "quality": "standard"}, 400, "invalid_value"),
        ({**GPT, "background": "transparent", "output_format": "jpeg"}, 400, "invalid_value"),
        ({**DALL_E_3, "style": "vivid"}, 400, "unknown_parameter"),
        ({**DALL_E_3, "output_format": "png"}, 400, "unknown_parameter"),
        ({**DALL_E_3, "n": 2}, 400, None),
        ({**GPT, "prompt": "forbidden"}, 400, "moderation_blocked"),
        ({**GPT, "model": "nobody-has-this"}, 503, "model_not_found"),
        ({"prompt": "a cat"}, 400, "missing_required_parameter"),
    ],
)
def test_what_tokenbay_refuses_is_refused(body: dict[str, Any], status: int, code: str | None) -> None:
    """Errors have message, type and code, and never `param`."""
    response = post(body)
    error = error_of(response)
    assert (status, code) == (response.status_code, error["code"])
    assert {"message", "type", "code"} == error.keys()


def test_a_failure_may_hide_in_a_200() -> None:
    """A failed task is told by the body alone."""
    response = post({**GPT, "prompt": "please fail-in-body"})
    assert response.status_code == 200
    assert (response.json()["status"], response.json()["data"]) == ("failed", [])
    assert error_of(response)["code"] == "task_failed"


@pytest.mark.parametrize("part", ["image", "image[]"])
def test_edits_take_files(part: str) -> None:
    """One or several images and a mask in a form give base64."""
    response = edit({**GPT, "size": "1024x640"}, image_part(part), image_part(part), image_part("mask"))
    assert size_and_format(decoded(response.json()["data"][0])) == (1024, 640, "PNG")


@pytest.mark.parametrize(
    ("changes", "files"),
    [
        ({}, [image_part("mask")]),
        ({"input_fidelity": "low"}, [image_part()]),
        ({"response_format": "b64_json"}, [image_part()]),
        ({"model": "dall-e-3"}, [image_part()]),
        ({"prompt": "forbidden"}, [image_part()]),
    ],
)
def test_edits_that_tokenbay_cannot_do_are_refused(changes: dict[str, Any], files: list[Any]) -> None:
    """An edit needs an image, an editing model and TokenBay's fields."""
    assert edit({**GPT, **changes}, *files).status_code == 400


def test_json_edits_are_refused() -> None:
    """TokenBay documents forms for edits."""
    response = client_of(tokenbay.create_app()).post("/v1/images/edits", json=GPT)
    assert response.status_code == 400
