"""The TokenLab stand-in: many makers' models, inline answers and tasks."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from starlette.applications import Starlette
from tests.demo.support import client_of, decoded, error_of, image_part, picture_file, size_and_format

from imagegate.demo.providers import tokenlab
from imagegate.demo.providers.pixels import GEMINI_31_FLASH

PATH = "/v1/images/generations"
REFERENCE = "https://example.com/a.png"
EDIT = {"operation": "image-to-image", "image_urls": [REFERENCE]}


def request_of(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "a cat", **fields}


def post(body: dict[str, Any], path: str = PATH) -> Any:
    return client_of(tokenlab.create_app()).post(path, json=body)


def drawn_size(body: dict[str, Any]) -> tuple[int, int]:
    """Pixels of the first picture of a synchronous request."""
    app = tokenlab.create_app()
    response = client_of(app).post(PATH, json=body)
    assert response.status_code == 200, response.text
    width, height, _ = size_and_format(client_of(app, key="").get(response.json()["data"][0]["url"]).content)
    return width, height


@pytest.mark.parametrize(
    ("model", "fields", "size"),
    [
        ("gpt-image-2", {"size": "1280x720"}, (1280, 720)),
        ("gpt-image-2", {"size": "auto", "input_fidelity": "high"}, (1024, 1024)),
        ("dall-e-3", {"size": "1024x1792", "style": "vivid", "quality": "hd"}, (1024, 1792)),
        ("dall-e-2", {"size": "256x256"}, (256, 256)),
        ("gemini-3-pro-image-preview", {"aspect_ratio": "16:9", "resolution": "2k"}, (2752, 1536)),
        ("nano-banana-pro", {"aspect_ratio": "4:5"}, (928, 1152)),
        ("gemini-3.1-flash-image-preview", {"aspect_ratio": "1:8"}, (384, 3072)),
        ("nano-banana-2", {"size": "2048x2048"}, (2048, 2048)),
        ("nano-banana-2", {"size": "1792x1024"}, (1376, 768)),
        ("nano-banana-2", {"size": "1792x1024", "aspect_ratio": "1:1"}, (1024, 1024)),
        ("gemini-2.5-flash-image", {"aspect_ratio": "21:9"}, (1536, 672)),
        ("gemini-2.5-flash-image", {"size": "3840x2160"}, (1344, 768)),
        ("nano-banana", {"aspect_ratio": "3:4", **EDIT}, (864, 1184)),
        ("gemini-3-pro-image-preview", {"image_url": REFERENCE}, (1024, 1024)),
        ("gemini-2.0-flash-preview-image-generation", {}, (1024, 1024)),
        ("grok-imagine-image", {"aspect_ratio": "2:1", "resolution": "2k"}, (2896, 1456)),
        ("grok-imagine-image-pro", {"aspect_ratio": "auto"}, (1024, 1024)),
        ("grok-imagine-image-quality", {"aspect_ratio": "19.5:9"}, (1504, 688)),
        ("flux-schnell", {"size": "768x512", "seed": 7}, (768, 512)),
        ("stable-diffusion-3", {"aspect_ratio": "1:1", "negative_prompt": "dogs"}, (1024, 1024)),
    ],
)
def test_pictures_have_the_size_that_the_model_makes(model: str, fields: dict[str, Any], size: tuple[int, int]) -> None:
    """Pixel sizes, ratios with tiers, and the `size` alias of the Gemini families give published pixel sizes."""
    assert size == drawn_size(request_of(model, **fields))


def test_the_default_is_dall_e_3_with_a_link() -> None:
    """Without a model and a response_format the reply is a link beside the revised prompt."""
    body = post({"prompt": "a cat"}).json()
    assert {"created", "data"} == body.keys()
    assert {"url", "revised_prompt"} == body["data"][0].keys()


def test_base64_is_answered_on_request() -> None:
    """response_format b64_json is fulfilled, in the output format asked for, with usage."""
    fields = {"response_format": "b64_json", "output_format": "jpeg", "compression": 70, "size": "1024x640"}
    body = post(request_of("gpt-image-2", n=2, **fields)).json()
    assert [size_and_format(decoded(entry)) for entry in body["data"]] == [(1024, 640, "JPEG")] * 2
    assert {"created", "data", "usage"} == body.keys()


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gpt-image-2", {"aspect_ratio": "16:9"}, "aspect_ratio"),
    ("gpt-image-2", {"resolution": "1k"}, "resolution"),
    ("gpt-image-2", {"style": "vivid"}, "style"),
    ("gpt-image-2", {"seed": 1}, "seed"),
    ("gpt-image-2", {"negative_prompt": "dogs"}, "negative_prompt"),
    ("gpt-image-2", {"operation": "text-to-image"}, "operation"),
    ("gpt-image-2", {"image_urls": [REFERENCE]}, "image_urls"),
    ("gpt-image-2", {"safety_identifier": "u"}, "safety_identifier"),
    ("gpt-image-2", {"background": "transparent"}, "background"),
    ("gpt-image-2", {"quality": "standard"}, "quality"),
    ("gpt-image-2", {"stream": True}, "stream"),
    ("gpt-image-2", {"size": "512x512"}, "size"),
    ("gpt-image-2", {"size": "1024x1000"}, "size"),
    ("gpt-image-2", {"size": "3840x1264"}, "size"),
    ("gpt-image-2", {"size": "4096x2048"}, "size"),
    ("gpt-image-2", {"size": "3200x3200"}, "size"),
    ("gpt-image-2", {"size": "16:9"}, "size"),
    ("gpt-image-2", {"compression": 1, "output_compression": 1, "output_format": "jpeg"}, "compression"),
    ("gpt-image-2", {"images": [{"image_url": REFERENCE}]}, "images"),
    ("gpt-image-2", {"file_id": "file-1"}, "file_id"),
    ("gpt-image-2", {"n": 11}, "n"),
    ("gpt-image-2", {"response_format": None}, "response_format"),
    ("gpt-image-2", {"async": "yes"}, "async"),
    ("dall-e-3", {"n": 2}, ""),
    ("dall-e-3", {"size": "1536x1024"}, "size"),
    ("dall-e-3", {"quality": "high"}, "quality"),
    ("dall-e-2", {"style": "vivid"}, "style"),
    ("dall-e-2", {"size": "1024x1792"}, "size"),
    ("nano-banana-2", {"quality": "high"}, "quality"),
    ("nano-banana-2", {"resolution": "1K"}, "resolution"),
    ("nano-banana-2", {"resolution": "512"}, "resolution"),
    ("nano-banana-2", {"aspect_ratio": "2:1"}, "aspect_ratio"),
    ("nano-banana-2", {"size": "16:9"}, "size"),
    ("nano-banana-2", {"image_urls": [REFERENCE]}, "operation"),
    ("nano-banana-2", {**EDIT, "resolution": "2k"}, "resolution"),
    ("nano-banana-2", {**EDIT, "operation": "text-to-image"}, "operation"),
    ("nano-banana-2", {"operation": "image-to-image"}, "image_url"),
    ("nano-banana-2", {"operation": "image-to-image", "image_urls": [REFERENCE] * 17}, "image_urls"),
    ("nano-banana-2", {"operation": "image-to-image", "image_urls": REFERENCE}, "image_urls"),
    ("nano-banana-2", {**EDIT, "image_url": "http://example.com/a.png"}, "image_url"),
    ("nano-banana-2", {**EDIT, "image_urls": ["data:image/png;base64,AAAA"]}, "image_urls[0]"),
    ("nano-banana-2", {"images": []}, "images"),
    ("nano-banana-pro", {"aspect_ratio": "1:4"}, "aspect_ratio"),
    ("gemini-3-pro-image-preview", {"aspect_ratio": "1:8"}, "aspect_ratio"),
    ("gemini-3-pro-image-preview", {"image_url": REFERENCE, "resolution": "1k"}, "resolution"),
    ("gemini-2.5-flash-image", {"resolution": "1k"}, "resolution"),
    ("nano-banana", {"resolution": "2k"}, "resolution"),
    ("nano-banana-edit", {"resolution": "2k"}, "resolution"),
    ("gemini-2.0-flash-preview-image-generation", {"aspect_ratio": "1:1"}, "aspect_ratio"),
    ("gemini-2.0-flash-preview-image-generation", {"image_url": REFERENCE}, "image_url"),
    ("grok-imagine-image", {"size": "1024x1024"}, "size"),
    ("grok-imagine-image", {"quality": "high"}, "quality"),
    ("grok-imagine-image", {"style": "vivid"}, "style"),
    ("grok-imagine-image", {"resolution": "4k"}, "resolution"),
    ("grok-imagine-image", {"aspect_ratio": "21:9"}, "aspect_ratio"),
    ("grok-imagine-image-quality", {"image_urls": [REFERENCE] * 4}, "image_urls"),
    ("flux-pro", {"size": "100x100"}, "size"),
    ("flux-schnell", {"aspect_ratio": "8:1"}, "aspect_ratio"),
    ("midjourney", {"style": "vivid"}, "style"),
    ("dall-e-3", {"bogus": 1}, "bogus"),
]


@pytest.mark.parametrize(("model", "fields", "param"), REFUSED)
def test_what_a_model_does_not_take_is_refused(model: str, fields: dict[str, Any], param: str) -> None:
    """Each model's own contract decides, and the refusal names the field."""
    response = post(request_of(model, **fields))
    assert response.status_code == 400
    assert param == error_of(response).get("param", "")


def test_a_wrong_ratio_is_answered_with_the_right_ones() -> None:
    """TokenLab's envelope lists the ratios that the model has."""
    error = error_of(post(request_of("nano-banana-2", aspect_ratio="7:4")))
    assert list(GEMINI_31_FLASH) == error["allowed_aspect_ratios"]


@pytest.mark.parametrize("prompt", ["", "x" * 4001, None, 1])
def test_prompts_have_1_to_4000_characters(prompt: Any) -> None:
    """The prompt is required and limited, whatever the model."""
    assert error_of(post({"model": "gpt-image-2", "prompt": prompt}))["param"] == "prompt"


def test_an_unknown_model_is_404_with_a_hint() -> None:
    """The nearest names are in the envelope."""
    response = post(request_of("gpt-image-9"))
    assert (response.status_code, error_of(response)["type"]) == (404, "model_not_found")
    assert error_of(response)["did_you_mean"] == "gpt-image-2"


@pytest.mark.parametrize(
    ("model", "code"), [("gpt-image-2", "moderation_blocked"), ("nano-banana", "content_policy_violation")]
)
def test_inline_models_refuse_unsafe_prompts(model: str, code: str) -> None:
    """An inline model answers 400 at once."""
    response = post({"model": model, "prompt": "forbidden"})
    assert (400, code) == (response.status_code, error_of(response)["code"])


def start(app: Starlette, body: dict[str, Any]) -> dict[str, Any]:
    """Create a task; returns the reply to the create request."""
    response = client_of(app).post(PATH, json=body)
    assert response.status_code == 200
    created: dict[str, Any] = response.json()
    assert {"created", "status", "task_id", "poll_url", "data"} == created.keys()
    return created


@pytest.mark.parametrize("body", [request_of("flux-pro"), request_of("gpt-image-2", **{"async": True})])
def test_a_task_runs_from_pending_to_completed(body: dict[str, Any]) -> None:
    """Task models and `async: true` answer a relative poll URL that ends in links."""
    clock = [100.0]
    app = tokenlab.create_app(task_seconds=9, clock=lambda: clock[0])
    created = start(app, {**body, "n": 2, "response_format": "b64_json"})
    assert (created["status"], created["data"]) == ("pending", [])
    assert f"/v1/tasks/{created['task_id']}" == created["poll_url"]
    states = []
    for clock[0] in (100.0, 104.0, 109.0):
        states.append(client_of(app).get(created["poll_url"]).json())
    assert [state["status"] for state in states] == ["pending", "processing", "completed"]
    assert [state["data"] for state in states[:2]] == [[], []]
    assert [{"url"}] * 2 == [entry.keys() for entry in states[2]["data"]]
    assert size_and_format(client_of(app).get(states[2]["data"][1]["url"]).content)[2] == "PNG"
    assert states[2] == client_of(app).get(f"/v1/images/{created['task_id']}").json()


def test_task_ids_have_the_documented_form() -> None:
    """An id is ldtask_ and 32 hexadecimal digits."""
    task_id = start(tokenlab.create_app(), request_of("midjourney"))["task_id"]
    assert task_id[:7] == "ldtask_"
    assert len(bytes.fromhex(task_id[7:]).hex()) == 32


@pytest.mark.parametrize(("model", "kind"), [("midjourney", str), ("gpt-image-2", dict)])
def test_an_unsafe_task_fails_with_a_string_or_an_object(model: str, kind: type) -> None:
    """Creation succeeds, the task fails, and `error` has either form."""
    app = tokenlab.create_app(task_seconds=0)
    created = start(app, {"model": model, "prompt": "forbidden", "async": True})
    state = client_of(app).get(created["poll_url"]).json()
    assert (state["status"], state["data"]) == ("failed", [])
    assert isinstance(state["error"], kind)


@pytest.mark.parametrize("key", ["sk-demo-tests", "sk-demo-another"])
def test_unknown_and_foreign_tasks_are_not_found(key: str) -> None:
    """A task belongs to the key that made it."""
    app = tokenlab.create_app()
    created = start(app, request_of("ideogram-v3"))
    path = f"/v1/tasks/ldtask_{'0' * 32}" if key == "sk-demo-tests" else created["poll_url"]
    response = client_of(app, key=key).get(path)
    assert (response.status_code, error_of(response)["type"]) == (404, "async_task_not_found")


def test_queued_tasks_can_be_cancelled() -> None:
    """A cancelled task has failed, and says that it was cancelled; a finished one stays finished."""
    app = tokenlab.create_app(task_seconds=1000)
    created = start(app, request_of("flux-pro"))
    state = client_of(app).delete(created["poll_url"]).json()
    assert (state["status"], state["cancelled"], state["cancellation_status"]) == ("failed", True, "cancelled")
    assert state == client_of(app).get(created["poll_url"]).json()
    done = tokenlab.create_app(task_seconds=0)
    assert client_of(done).delete(start(done, request_of("flux-pro"))["poll_url"]).status_code == 400


def form(path: str, data: dict[str, Any], *files: tuple[str, Any]) -> Any:
    return client_of(tokenlab.create_app()).post(path, data=data, files=list(files))


def test_generations_take_a_form_with_a_reference() -> None:
    """A form has one image part, and URLs in one comma-separated string."""
    data = request_of("nano-banana", operation="image-to-image", image_urls=f"{REFERENCE}, {REFERENCE}")
    assert form(PATH, data, image_part()).status_code == 200


@pytest.mark.parametrize(
    ("model", "files"),
    [
        ("gpt-image-2", [image_part()]),
        ("nano-banana-2", [image_part("image[]")]),
        ("nano-banana-2", [image_part("mask")]),
        ("nano-banana-2", [image_part(data=b"no picture")]),
    ],
)
def test_form_generations_refuse_other_files(model: str, files: list[Any]) -> None:
    """Only a readable `image`, and only for models with references."""
    data = request_of(model) if model == "gpt-image-2" else request_of(model, operation="image-to-image")
    assert form(PATH, data, *files).status_code == 400


DATA_URL = "data:image/png;base64," + base64.b64encode(picture_file(64, 64)).decode()
EDITS = "/v1/images/edits"


@pytest.mark.parametrize(
    "sources",
    [
        {"image_url": REFERENCE},
        {"image_urls": [REFERENCE, REFERENCE]},
        {"images": [{"image_url": REFERENCE}, {"image_url": DATA_URL}]},
        {"images": [{"image_url": DATA_URL}], "mask": {"image_url": DATA_URL}},
        {"images": [{"image_url": "http://127.0.0.1:8000/a.png"}], "async": True},
    ],
)
def test_json_edits_take_references(sources: dict[str, Any]) -> None:
    """gpt-image-2 takes one of the three ways to name references, and a mask."""
    assert post(request_of("gpt-image-2", **sources), EDITS).status_code == 200


WIDE = "data:image/png;base64," + base64.b64encode(picture_file(64, 32)).decode()


@pytest.mark.parametrize(
    ("model", "sources", "param"),
    [
        ("nano-banana-pro", {"images": [{"image_url": REFERENCE}]}, "model"),
        ("dall-e-3", {"images": [{"image_url": REFERENCE}]}, "model"),
        ("gpt-image-2", {}, "images"),
        ("gpt-image-2", {"images": []}, "images"),
        ("gpt-image-2", {"images": {}}, "images"),
        ("gpt-image-2", {"images": [REFERENCE]}, "images[0]"),
        ("gpt-image-2", {"images": [{"image_url": REFERENCE, "file_id": "f"}]}, "images[0]"),
        ("gpt-image-2", {"images": [{"url": REFERENCE}]}, "images[0]"),
        ("gpt-image-2", {"images": [{"image_url": "data:image/png;base64,!!"}]}, "images[0].image_url"),
        ("gpt-image-2", {"images": [{"image_url": "data:image/png,AAAA"}]}, "images[0].image_url"),
        ("gpt-image-2", {"images": [{"image_url": "data:image/png;base64,AAAA"}]}, "images[0]"),
        ("gpt-image-2", {"images": [{"image_url": "ftp://example.com/a"}]}, "images[0].image_url"),
        ("gpt-image-2", {"images": [{"image_url": REFERENCE}] * 17}, "images"),
        ("gpt-image-2", {"image": REFERENCE}, "image"),
        ("gpt-image-2", {"image_url": REFERENCE, "image_urls": [REFERENCE]}, "image_url"),
        ("gpt-image-2", {"image_url": REFERENCE, "mask": REFERENCE}, "mask"),
        ("gpt-image-2", {"image_url": REFERENCE, "mask_url": REFERENCE}, "mask_url"),
        ("gpt-image-2", {"image_url": REFERENCE, "stream": True}, "stream"),
        ("gpt-image-2", {"image_url": REFERENCE, "resolution": "1k"}, "resolution"),
        ("gpt-image-2", {"image_url": DATA_URL, "mask": {"image_url": WIDE}}, "mask"),
        ("grok-imagine-image", {"image_urls": [REFERENCE] * 4}, "image_urls"),
        ("grok-imagine-image", {"image_url": REFERENCE, "mask": {"image_url": REFERENCE}}, "mask"),
    ],
)
def test_json_edits_that_cannot_be_done_are_refused(model: str, sources: dict[str, Any], param: str) -> None:
    """Shape, count, kind and model of references are checked, and the refusal names the place."""
    response = post(request_of(model, **sources), EDITS)
    assert (400, param) == (response.status_code, error_of(response)["param"])


def test_nano_banana_edits_are_sent_elsewhere() -> None:
    """The error says which path takes reference images."""
    error = error_of(form(EDITS, request_of("nano-banana"), image_part()))
    assert error["type"] == "request_shape_channel_mismatch"
    assert PATH in error["message"]


@pytest.mark.parametrize("part", ["image", "image[]"])
def test_form_edits_take_files(part: str) -> None:
    """Repeated image or image[] parts and a mask."""
    data = request_of("gpt-image-2", size="1024x640", response_format="b64_json", input_fidelity="high")
    body = form(EDITS, data, image_part(part), image_part(part), image_part("mask")).json()
    assert size_and_format(decoded(body["data"][0])) == (1024, 640, "PNG")


def test_form_edits_of_grok_have_no_mask() -> None:
    """xAI takes up to three images and no mask."""
    data = request_of("grok-imagine-image", aspect_ratio="1:1")
    assert form(EDITS, data, image_part()).status_code == 200
    assert error_of(form(EDITS, data, image_part(), image_part("mask")))["param"] == "mask"
    assert form(EDITS, data, *[image_part("image[]")] * 4).status_code == 400


def test_uploaded_files_serve_as_references() -> None:
    """A file_id from /v1/files is good for edits, an unknown one is not."""
    app = tokenlab.create_app()
    uploaded = client_of(app).post("/v1/files", data={"purpose": "vision"}, files=[image_part("file")]).json()
    assert ("file", "vision", len(picture_file())) == (uploaded["object"], uploaded["purpose"], uploaded["bytes"])
    for file_id, status in ((uploaded["id"], 200), ("file-unknown", 404)):
        body = request_of("gpt-image-2", images=[{"file_id": file_id}], mask={"file_id": file_id})
        assert status == client_of(app).post(EDITS, json=body).status_code


@pytest.mark.parametrize(("data", "part"), [({"purpose": "fine-tune"}, "file"), ({}, "image"), ({"x": "1"}, "file")])
def test_bad_uploads_are_refused(data: dict[str, Any], part: str) -> None:
    """An upload has one part called file and a known purpose."""
    assert form("/v1/files", data, image_part(part)).status_code == 400


def test_variations_come_from_dall_e_2() -> None:
    """A form with one square PNG gives links; other models make none."""
    path = "/v1/images/variations"
    assert len(form(path, {"n": "2", "size": "256x256"}, image_part()).json()["data"]) == 2
    assert form(path, {"model": "gpt-image-2"}, image_part()).status_code == 400


def test_models_are_listed_and_recommended() -> None:
    """The shortlist for images is part of the whole list."""
    client = client_of(tokenlab.create_app())
    everything = {model["id"] for model in client.get("/v1/models").json()["data"]}
    chosen = {model["id"] for model in client.get("/v1/models?recommended_for=image").json()["data"]}
    assert chosen < everything
