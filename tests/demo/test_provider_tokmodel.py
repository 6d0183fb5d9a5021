"""The TokModel stand-in: OpenAI's Images API with vendor/model names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.demo.support import client_of, decoded, error_of, image_part, picture_file, size_and_format

from imagegate.demo.providers import tokmodel

PATH = "/v1/images/generations"
DALL_E_3 = {"model": "openai/dall-e-3", "prompt": "a cat"}
DALL_E_2 = {"model": "openai/dall-e-2", "prompt": "a cat"}
GPT = {"model": "openai/gpt-image-2", "prompt": "a cat"}


def post(body: dict[str, Any]) -> Any:
    return client_of(tokmodel.create_app()).post(PATH, json=body)


def post_form(path: str, data: dict[str, Any], *files: tuple[str, Any]) -> Any:
    return client_of(tokmodel.create_app()).post(f"/v1/images/{path}", data=data, files=list(files))


def test_dall_e_3_answers_a_link_that_works_without_a_key() -> None:
    """The default is a temporary link beside the revised prompt; the picture has the size asked for."""
    app = tokmodel.create_app()
    body = client_of(app).post(PATH, json={**DALL_E_3, "size": "1792x1024", "style": "natural", "quality": "hd"}).json()
    assert {"created", "data"} == body.keys()
    assert {"url", "revised_prompt"} == body["data"][0].keys()
    picture = client_of(app, key="").get(body["data"][0]["url"])
    assert picture.headers["content-type"] == "image/png"
    assert size_and_format(picture.content) == (1792, 1024, "PNG")


def test_dall_e_2_answers_n_pictures_in_base64() -> None:
    """`n` pictures of the listed size, each one different, without a revised prompt."""
    body = post({**DALL_E_2, "n": 3, "size": "256x256", "response_format": "b64_json"}).json()
    assert [{"b64_json"}] * 3 == [entry.keys() for entry in body["data"]]
    pictures = [decoded(entry) for entry in body["data"]]
    assert [size_and_format(picture) for picture in pictures] == [(256, 256, "PNG")] * 3
    assert len(set(pictures)) == 3


def test_gpt_image_answers_base64_with_usage() -> None:
    """GPT image models say what they made: size, quality, format, background and tokens."""
    body = post({**GPT, "size": "1024x640", "output_format": "jpeg", "output_compression": 80}).json()
    assert size_and_format(decoded(body["data"][0])) == (1024, 640, "JPEG")
    assert (body["size"], body["output_format"], body["background"]) == ("1024x640", "jpeg", "opaque")
    usage = body["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_null_means_omitted_where_openai_says_so() -> None:
    """Null is no value for n, quality, size, stream and their like."""
    nulls = dict.fromkeys(("n", "quality", "size", "stream", "partial_images", "output_compression"))
    assert post({**DALL_E_2, "n": None, "size": None, "quality": None}).status_code == 200
    assert post({**GPT, **nulls}).json()["size"] == "1024x1024"


REFUSED: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({"prompt": "a cat"}, "model", "missing_required_parameter"),
    ({"model": None, "prompt": "a cat"}, "model", "invalid_type"),
    ({"model": "dall-e-3", "prompt": "a cat"}, "model", "invalid_value"),
    ({"model": "openai/dall-e-3"}, "prompt", "missing_required_parameter"),
    ({**DALL_E_3, "prompt": None}, "prompt", "invalid_type"),
    ({**DALL_E_3, "prompt": ""}, "prompt", "empty_string"),
    ({**DALL_E_3, "prompt": "x" * 4001}, "prompt", "string_above_max_length"),
    ({**DALL_E_2, "prompt": "x" * 1001}, "prompt", "string_above_max_length"),
    ({**DALL_E_3, "n": 2}, None, None),
    ({**DALL_E_2, "n": 0}, "n", "integer_below_min_value"),
    ({**DALL_E_2, "n": 11}, "n", "integer_above_max_value"),
    ({**DALL_E_2, "n": "2"}, "n", "invalid_type"),
    ({**DALL_E_2, "n": 1.5}, "n", "invalid_type"),
    ({**DALL_E_2, "n": True}, "n", "invalid_type"),
    ({**DALL_E_3, "size": "512x512"}, "size", "invalid_value"),
    ({**DALL_E_3, "size": "auto"}, "size", "invalid_value"),
    ({**DALL_E_2, "size": "1792x1024"}, "size", "invalid_value"),
    ({**DALL_E_2, "size": 512}, "size", "invalid_type"),
    ({**DALL_E_3, "quality": "high"}, "quality", "invalid_value"),
    ({**DALL_E_2, "quality": "hd"}, "quality", "invalid_value"),
    ({**DALL_E_3, "style": "bold"}, "style", "invalid_value"),
    ({**DALL_E_2, "style": "vivid"}, "style", "unknown_parameter"),
    ({**DALL_E_3, "response_format": "png"}, "response_format", "invalid_value"),
    ({**DALL_E_3, "response_format": None}, "response_format", "invalid_type"),
    ({**DALL_E_3, "output_format": "png"}, "output_format", "unknown_parameter"),
    ({**DALL_E_3, "aspect_ratio": "16:9"}, "aspect_ratio", "unknown_parameter"),
    ({**GPT, "response_format": "b64_json"}, "response_format", "unknown_parameter"),
    ({**GPT, "response_format": None}, "response_format", "unknown_parameter"),
    ({**GPT, "style": "vivid"}, "style", "unknown_parameter"),
    ({**GPT, "input_fidelity": "high"}, "input_fidelity", "unknown_parameter"),
    ({**GPT, "quality": "hd"}, "quality", "invalid_value"),
    ({**GPT, "output_format": "gif"}, "output_format", "invalid_value"),
    ({**GPT, "output_compression": 50}, None, "invalid_png_output_compression"),
    ({**GPT, "background": "transparent"}, "background", "invalid_value"),
    ({**GPT, "moderation": "none"}, "moderation", "invalid_value"),
    ({**GPT, "partial_images": 4}, "partial_images", "integer_above_max_value"),
    ({**GPT, "stream": "yes"}, "stream", "invalid_type"),
    ({**GPT, "model": "openai/gpt-image-1.5", "size": "1280x720"}, "size", "invalid_value"),
]


@pytest.mark.parametrize(("body", "param", "code"), REFUSED)
def test_what_openai_refuses_is_refused(body: dict[str, Any], param: str | None, code: str | None) -> None:
    """Each refusal is a 400 with the four members, naming field and code."""
    response = post(body)
    assert response.status_code == 400
    error = error_of(response)
    assert {"message", "type", "param", "code"} == error.keys()
    assert (param, code) == (error["param"], error["code"])


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("bogus", "Expected WIDTHxHEIGHT"),
        ("", "Expected WIDTHxHEIGHT"),
        ("0x0", "Expected WIDTHxHEIGHT"),
        ("9x9", "divisible by 16"),
        ("1792x936", "divisible by 16"),
        ("4096x4096", "longest edge must be less than or equal to 3840"),
        ("2304x4096", "longest edge"),
        ("3840x1008", "must not exceed 3:1"),
        ("512x512", "below the current minimum pixel budget"),
        ("3840x3840", "above the current maximum pixel budget"),
    ],
)
def test_flexible_sizes_are_checked_in_openai_s_words(size: str, words: str) -> None:
    """gpt-image-2 takes sizes on a grid of 16 within edge, ratio and area limits."""
    error = error_of(post({**GPT, "size": size}))
    assert (error["type"], error["param"], error["code"]) == ("image_generation_user_error", "size", "invalid_value")
    assert words in error["message"]
    assert size in error["message"]


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (DALL_E_3, "invalid_request_error", "content_policy_violation"),
        (GPT, "image_generation_user_error", "moderation_blocked"),
    ],
)
def test_unsafe_prompts_are_refused(body: dict[str, Any], kind: str, code: str) -> None:
    """The safety system answers 400, with other members for each generation of models."""
    error = error_of(post({**body, "prompt": "A Forbidden thing"}))
    assert (kind, code) == (error["type"], error["code"])


def test_gpt_image_streams_events() -> None:
    """Partial images come first, the picture with its usage last, and nothing ends the stream but its end."""
    response = post({**GPT, "size": "1024x640", "stream": True, "partial_images": 2})
    assert response.headers["content-type"].startswith("text/event-stream")
    frames = [frame.split("\n") for frame in response.text.strip().split("\n\n")]
    events = [frame[0].removeprefix("event: ") for frame in frames]
    documents = [json.loads(frame[1].removeprefix("data: ")) for frame in frames]
    assert events == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert events == [document["type"] for document in documents]
    assert [document["partial_image_index"] for document in documents[:2]] == [0, 1]
    assert "usage" in documents[-1]
    assert size_and_format(decoded(documents[-1])) == (1024, 640, "PNG")


def test_an_edit_with_dall_e_2_follows_the_source_s_size() -> None:
    """A square PNG with alpha, with or without a mask, gives links of the source's size."""
    app = tokmodel.create_app()
    files = [image_part(), image_part("mask")]
    response = client_of(app).post("/v1/images/edits", data={**DALL_E_2, "n": "2"}, files=files)
    urls = [entry["url"] for entry in response.json()["data"]]
    assert len(urls) == 2
    assert "/cdn/images/edited/" in urls[0]
    assert size_and_format(client_of(app).get(urls[1]).content) == (256, 256, "PNG")


BAD_EDITS: list[tuple[dict[str, Any], list[tuple[str, Any]], str | None, str]] = [
    ({}, [], "image", "missing_required_parameter"),
    ({}, [image_part(data=picture_file(mode="RGB"))], "image", "invalid_image_file"),
    ({}, [image_part(data=picture_file(256, 128))], "image", "invalid_image_file"),
    ({}, [image_part(data=picture_file(mode="RGB", form="JPEG"))], "image", "invalid_image_file"),
    ({}, [image_part(data=b"no picture")], "image", "invalid_image_file"),
    ({}, [image_part(data=picture_file() + b"\0" * 4_000_000)], "image", "invalid_image_file"),
    ({}, [image_part(media_type="application/octet-stream")], "image", "unsupported_file_mimetype"),
    ({}, [image_part(media_type="image/jpeg")], "image", "unsupported_file_mimetype"),
    ({}, [image_part("image[]"), image_part("image[]")], "image", "array_above_max_length"),
    ({}, [image_part("images")], "images", "invalid_value"),
    ({}, [image_part("picture")], "picture", "unknown_parameter"),
    ({}, [image_part(), image_part("mask", picture_file(128, 128))], "mask", "invalid_mask_image_format"),
    ({}, [image_part(), image_part("mask", picture_file(mode="RGB"))], "mask", "invalid_mask_image_format"),
    ({}, [image_part(), image_part("mask"), image_part("mask")], "mask", "invalid_value"),
    ({"size": "512x512"}, [image_part()], "size", "invalid_value"),
    ({"n": "abc"}, [image_part()], "n", "invalid_type"),
    ({"quality": "hd"}, [image_part()], "quality", "unknown_parameter"),
    ({"model": "openai/dall-e-3"}, [image_part()], "model", "invalid_value"),
]


@pytest.mark.parametrize(("changes", "files", "param", "code"), BAD_EDITS)
def test_edits_that_dall_e_2_cannot_do_are_refused(
    changes: dict[str, Any], files: list[tuple[str, Any]], param: str, code: str
) -> None:
    """Source and mask are square PNGs with alpha below 4 MB, of one size, and the output has that size."""
    # A form needs one file to be one; the mask of a form without image is refused for the image.
    response = post_form("edits", {**DALL_E_2, **changes}, *(files or [image_part("mask")]))
    assert response.status_code == 400
    assert (param, code) == (error_of(response)["param"], error_of(response)["code"])


def test_gpt_image_edits_several_references() -> None:
    """Up to 16 images of three formats go into one edit, under either part name."""
    jpeg = image_part("image[]", picture_file(40, 30, mode="RGB", form="JPEG"), "image/jpeg")
    webp = image_part("image[]", picture_file(30, 40, form="WEBP"), "image/webp")
    body = post_form("edits", {**GPT, "size": "1024x640"}, jpeg, webp, image_part()).json()
    assert size_and_format(decoded(body["data"][0])) == (1024, 640, "PNG")
    assert body["usage"]["input_tokens_details"]["image_tokens"] > 0


@pytest.mark.parametrize(
    ("changes", "files", "code"),
    [
        ({}, [image_part("image[]")] * 17, "array_above_max_length"),
        ({}, [image_part(data=b"no picture")], "invalid_image_file"),
        ({}, [image_part(media_type="application/octet-stream")], "unsupported_file_mimetype"),
        ({"input_fidelity": "high"}, [image_part()], "invalid_input_fidelity_model"),
        ({"response_format": "url"}, [image_part()], "unknown_parameter"),
    ],
)
def test_edits_that_gpt_image_cannot_do_are_refused(changes: dict[str, Any], files: list[Any], code: str) -> None:
    """Count, readability and media type of files are checked, and input_fidelity is not for this model."""
    assert code == error_of(post_form("edits", {**GPT, **changes}, *files))["code"]


def test_json_edits_are_refused() -> None:
    """TokModel documents forms for edits."""
    response = client_of(tokmodel.create_app()).post("/v1/images/edits", json=GPT)
    assert (response.status_code, error_of(response)["code"]) == (400, "unsupported_content_type")


def test_variations_need_no_prompt_and_no_alpha() -> None:
    """A square PNG gives n links of the listed size."""
    data = {"model": "openai/dall-e-2", "n": "3", "size": "512x512"}
    body = post_form("variations", data, image_part(data=picture_file(mode="RGB"))).json()
    assert [{"url"}] * 3 == [entry.keys() for entry in body["data"]]
    assert "/cdn/images/variations/" in body["data"][0]["url"]


@pytest.mark.parametrize(
    ("changes", "files", "param"),
    [
        ({"prompt": "a cat"}, [image_part()], "prompt"),
        ({"model": "openai/gpt-image-2"}, [image_part()], "model"),
        ({}, [image_part(data=picture_file(256, 128))], "image"),
        ({}, [image_part(), image_part("mask")], "mask"),
        ({"size": "1792x1024"}, [image_part()], "size"),
        ({"n": "11"}, [image_part()], "n"),
    ],
)
def test_variations_that_dall_e_2_cannot_do_are_refused(changes: dict[str, Any], files: list[Any], param: str) -> None:
    """A variation takes one square PNG, no prompt and no mask."""
    response = post_form("variations", {"model": "openai/dall-e-2", **changes}, *files)
    assert (400, param) == (response.status_code, error_of(response)["param"])


def test_models_are_listed() -> None:
    """TokModel lists its models at /v1beta/models."""
    listed = client_of(tokmodel.create_app()).get("/v1beta/models").json()["data"]
    assert set(tokmodel.MODELS) == {model["id"] for model in listed}


def test_a_wrong_method_is_405() -> None:
    """OpenAI tells a wrong method from a wrong path."""
    response = client_of(tokmodel.create_app()).get(PATH)
    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_supported")
