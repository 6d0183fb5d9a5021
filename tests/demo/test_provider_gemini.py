"""The Gemini stand-in: generateContent, pictures inline."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.demo.support import KEY, picture_file, size_and_format

from imagegate.demo.providers import gemini

PATH = "/v1beta/models/gemini-3-pro-image:generateContent"
PICTURE = base64.b64encode(picture_file(64, 32)).decode()
INLINE = {"inlineData": {"mimeType": "image/png", "data": PICTURE}}


def request_of(*parts: Any, prompt: str = "a cat", **config: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": prompt}, *parts]}]}
    return {**body, "generationConfig": {"responseModalities": ["IMAGE"], **config}}


def post(body: Any, path: str = PATH, headers: dict[str, str] | None = None) -> Any:
    client = TestClient(gemini.create_app())
    return client.post(path, json=body, headers={"x-goog-api-key": KEY} if headers is None else headers)


def shown(response: Any) -> tuple[int, int, str | None]:
    """The picture that is no draft."""
    parts = response.json()["candidates"][0]["content"]["parts"]
    data = [part["inlineData"]["data"] for part in parts if "inlineData" in part and not part.get("thought")]
    assert len(data) == 1
    return size_and_format(base64.b64decode(data[0], validate=True))


def error_of(response: Any) -> tuple[int, str]:
    error = response.json()["error"]
    assert error["code"] == response.status_code
    return response.status_code, error["status"]


@pytest.mark.parametrize(
    ("model", "image", "size"),
    [
        ("gemini-3-pro-image", {}, (1024, 1024)),
        ("gemini-3-pro-image", {"aspectRatio": "16:9", "imageSize": "2K"}, (2752, 1536)),
        ("gemini-3.1-flash-image", {"aspectRatio": "1:8", "imageSize": "512"}, (192, 1536)),
        ("gemini-2.5-flash-image", {"aspectRatio": "9:16"}, (768, 1344)),
        ("gemini-3-pro-image", {"aspect_ratio": "3:2", "image_size": "1K"}, (1264, 848)),
    ],
)
def test_sizes_are_googles_own(model: str, image: dict[str, str], size: tuple[int, int]) -> None:
    """Ratio and tier give the published pixels."""
    response = post(request_of(imageConfig=image), f"/v1beta/models/{model}:generateContent")
    assert shown(response) == (*size, "PNG")


def test_models_that_think_show_a_draft_first() -> None:
    """The last picture counts; usage counts thoughts."""
    body = post(request_of()).json()
    parts = body["candidates"][0]["content"]["parts"]
    assert [part.get("thought", False) for part in parts] == [True, True, False]
    assert body["usageMetadata"]["thoughtsTokenCount"]


def test_references_come_inline() -> None:
    """The picture takes the ratio of the first."""
    assert shown(post(request_of(INLINE, INLINE))) == (1376, 768, "PNG")  # 2:1 is nearest to 16:9


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"contents": []}, "contents is not specified"),
        ({"contents": [{"parts": []}]}, "parts must not be empty"),
        ({"contents": [{"parts": [{}]}]}, "oneof field"),
        ({"contents": [{"role": "system", "parts": [{"text": "a"}]}]}, "valid role"),
        ({**request_of(), "prompt": "a"}, 'Unknown name "prompt"'),
        (request_of(size="1024x1024"), "Unknown name \"size\" at 'generation_config'"),
        (request_of(imageConfig={"aspectRatio": "7:4"}), "aspect_ratio"),
        (request_of(imageConfig={"imageSize": "1k"}), "image_size"),
        (request_of(imageConfig={"imageSize": "512"}), "image_size"),
        (request_of(candidateCount=2), "Multiple candidates"),
        (request_of(responseModalities=["PICTURE"]), "response_modalities"),
        (request_of({"inlineData": {"mimeType": "image/gif", "data": PICTURE}}), "Unsupported MIME type"),
        (request_of({"inlineData": {"mimeType": "image/jpeg", "data": PICTURE}}), "Unable to process"),
        (request_of({"inlineData": {"mimeType": "image/png", "data": f"data:image/png;base64,{PICTURE}"}}), "Unable"),
        (request_of(*[INLINE] * 15), "At most 14"),
        ("text", "Expected an object"),
    ],
)
def test_what_google_refuses(body: Any, message: str) -> None:
    """An unknown member is as wrong as a wrong value."""
    response = post(body)
    assert error_of(response) == (400, "INVALID_ARGUMENT")
    assert message in response.json()["error"]["message"]


def test_tiers_are_for_models_that_have_them() -> None:
    """2.5 has none."""
    body = request_of(imageConfig={"imageSize": "1K"})
    assert error_of(post(body, "/v1beta/models/gemini-2.5-flash-image:generateContent"))[0] == 400


@pytest.mark.parametrize("model", ["imagen-4.0-generate-001", "gemini-3-pro-image-preview"])
def test_retired_models_are_gone(model: str) -> None:
    """Imagen and preview ids answer 404."""
    assert error_of(post(request_of(), f"/v1beta/models/{model}:generateContent")) == (404, "NOT_FOUND")
    assert error_of(post(request_of(), "/v1/images/generations")) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, (403, "PERMISSION_DENIED")),
        ({"authorization": f"Bearer {KEY}"}, (403, "PERMISSION_DENIED")),
        ({"x-goog-api-key": "wrong"}, (400, "INVALID_ARGUMENT")),
    ],
)
def test_keys_have_a_header_of_their_own(headers: dict[str, str], status: tuple[int, str]) -> None:
    """A bearer key is none; a wrong key is a 400."""
    assert error_of(post(request_of(), headers=headers)) == status


def test_refusals_hide_in_a_200() -> None:
    """A blocked prompt has no candidates; a withheld picture has a reason; so has an answer in words."""
    assert post(request_of(prompt="forbidden")).json()["promptFeedback"] == {"blockReason": "PROHIBITED_CONTENT"}
    for word, reason in (("gruesome", "IMAGE_SAFETY"), ("wordless", "NO_IMAGE")):
        assert post(request_of(prompt=word)).json()["candidates"][0]["finishReason"] == reason
    assert "inlineData" not in str(post(request_of(responseModalities=["TEXT"])).json())
