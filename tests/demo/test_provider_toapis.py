"""The ToAPIs stand-in: tasks, ratios and reference URLs."""

from __future__ import annotations

import time
from typing import Any

import pytest
from starlette.applications import Starlette
from tests.demo.support import client_of, error_of, image_part, picture_file, size_and_format

from imagegate.demo.providers import toapis
from imagegate.demo.providers.tasks import TaskBoard

PATH = "/v1/images/generations"
REFERENCE = "http://example.com/a.png"


def request_of(model: str = "gpt-image-1.5-official", **fields: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "a cat", **fields}


def post(body: dict[str, Any], path: str = PATH) -> Any:
    return client_of(toapis.create_app()).post(path, json=body)


def finished(app: Starlette, body: dict[str, Any]) -> dict[str, Any]:
    """Create a task on an app whose tasks take no time; returns its state."""
    created = client_of(app).post(PATH, json=body)
    assert created.status_code == 200, created.text
    state: dict[str, Any] = client_of(app).get(f"{PATH}/{created.json()['id']}").json()
    return state


def test_a_task_starts_queued() -> None:
    """The create reply is the documented task object."""
    body = post(request_of()).json()
    created_at = body.pop("created_at")
    assert body.pop("id").startswith("tsk_img_")
    assert abs(time.time() - created_at) < 60
    expected = {"object": "generation.task", "model": "gpt-image-1.5-official", "status": "queued", "progress": 0}
    assert {**expected, "metadata": {}} == body


def test_a_task_runs_from_queued_to_completed() -> None:
    """Progress grows, and the result has links that expire after a day."""
    clock = [100.0]
    app = toapis.create_app(task_seconds=9, clock=lambda: clock[0])
    client = client_of(app)
    task = client.post(PATH, json=request_of(n=2)).json()
    states = []
    for clock[0] in (100.0, 102.9, 103.0, 108.99, 109.0):
        states.append(client.get(f"{PATH}/{task['id']}").json())
    expected = [("queued", 0), ("queued", 0), ("in_progress", 33), ("in_progress", 99), ("completed", 100)]
    assert expected == [(state["status"], state["progress"]) for state in states]
    assert task == states[0]
    assert (
        states[-1]["completed_at"] - task["created_at"],
        states[-1]["expires_at"] - states[-1]["completed_at"],
    ) == (9, 24 * 3600)
    result = states[-1]["result"]
    assert (result["type"], len(result["data"])) == ("image", 2)
    picture = client_of(app, key="").get(result["data"][1]["url"])
    assert size_and_format(picture.content) == (1024, 1024, "PNG")


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (request_of(size="16:9", resolution="4k"), (3840, 2160)),
        (request_of(size="auto", resolution="4k"), (3840, 2160)),
        (request_of(size="auto"), (1024, 1024)),
        (request_of("gpt-image-2", size="9:16", resolution="2k"), (1152, 2048)),
        (request_of("gpt-image-2", size="2:3"), (1024, 1536)),
        (request_of("gpt-image-2-official", size="1:1", resolution="4k"), (2880, 2880)),
        (request_of("gpt-image-2-official", size="7:4"), (1344, 768)),
        (request_of("gpt-image-2-official", size="1:3", resolution="2k"), (1024, 3072)),
        (request_of("gpt-image-2-vip", size="9:21", reference_images=[REFERENCE]), (864, 2016)),
        (request_of("gemini-3-pro-image-preview", size="21:9"), (1584, 672)),
        (request_of("gemini-3-pro-image-preview", size="1:1", metadata={"resolution": "2K"}), (2048, 2048)),
        (request_of("gemini-3.1-flash-image-preview", size="8:1", n=1), (3072, 384)),
        (request_of("gemini-2.5-flash-image-preview", size="4:3"), (1184, 864)),
        (request_of("seedream-4-5", size="3:4", watermark=False), (1728, 2304)),
    ],
)
def test_pictures_have_the_published_size(body: dict[str, Any], size: tuple[int, int]) -> None:
    """Ratio and tier give the pixels of the provider's own tables."""
    app = toapis.create_app(task_seconds=0)
    url = finished(app, body)["result"]["data"][0]["url"]
    width, height, _ = size_and_format(client_of(app).get(url).content)
    assert size == (width, height)


def test_jpeg_takes_a_compression() -> None:
    """output_compression goes with jpeg."""
    app = toapis.create_app(task_seconds=0)
    url = finished(app, request_of(output_format="jpeg", output_compression=60))["result"]["data"][0]["url"]
    assert size_and_format(client_of(app).get(url).content)[2] == "JPEG"


GEMINI, SEEDREAM = "gemini-3-pro-image-preview", "seedream-4-5"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "a cat"}, "model"),
        (request_of("nobody-has-this"), "model"),
        ({"model": "gpt-image-2"}, "prompt"),
        (request_of(size="1024x1024"), "size"),
        (request_of(size="7:4"), "size"),
        (request_of("gpt-image-2-official", size="4:1"), "size"),
        (request_of("gpt-image-2-official", size="1.5:1"), "size"),
        (request_of("gpt-image-2-vip", size="auto"), "size"),
        (request_of(GEMINI, size="9:21"), "size"),
        (request_of(SEEDREAM, size="5:4"), "size"),
        (request_of(resolution="2K"), "resolution"),
        (request_of(resolution="4k"), "resolution"),
        (request_of(size="3:2", resolution="4k"), "resolution"),
        (request_of("gpt-image-2", size="16:9"), "resolution"),
        (request_of("gpt-image-2", size="4:3", resolution="1k"), "resolution"),
        (request_of("gpt-image-2", size="1:1", resolution="4k"), "resolution"),
        (request_of(GEMINI, resolution="1k"), "resolution"),
        (request_of(GEMINI, metadata={"resolution": "2k"}), "metadata.resolution"),
        (request_of(GEMINI, metadata={"size": "2K"}), "metadata.size"),
        (request_of(GEMINI, metadata="2K"), "metadata"),
        (request_of(SEEDREAM, metadata={"resolution": "1K"}), "metadata.resolution"),
        (request_of(metadata={"resolution": "1K"}), "metadata"),
        (request_of(quality="auto"), "quality"),
        (request_of(quality="hd"), "quality"),
        (request_of(output_format="webp"), "output_format"),
        (request_of(output_compression=50), "output_compression"),
        (request_of(output_format="jpeg", output_compression=101), "output_compression"),
        (request_of(n=0), "n"),
        (request_of(n=11), "n"),
        (request_of(n="1"), "n"),
        (request_of(GEMINI, n=2), "n"),
        (request_of(GEMINI, n="1"), "n"),
        (request_of(GEMINI, n=1.0), "n"),
        (request_of(SEEDREAM, n=16), "n"),
        (request_of(SEEDREAM, watermark="no"), "watermark"),
        (request_of(response_format="url"), "response_format"),
        (request_of(background="auto"), "background"),
        (request_of(user="u"), "user"),
        (request_of(image_urls=["data:image/png;base64,AAAA"]), "image_urls[0]"),
        (request_of(image_urls=["iVBORw0KGgo="]), "image_urls[0]"),
        (request_of(image_urls=[1]), "image_urls[0]"),
        (request_of(image_urls=REFERENCE), "image_urls"),
        (request_of(image_urls=[REFERENCE] * 17), "image_urls"),
        (request_of(GEMINI, image_urls=[REFERENCE] * 15), "image_urls"),
        (request_of(image_urls=[REFERENCE], reference_images=[REFERENCE]), "reference_images"),
        (request_of("gpt-image-2-vip", image_urls=[REFERENCE]), "image_urls"),
        (request_of(mask_url=REFERENCE), "mask_url"),
        (request_of(image_urls=[REFERENCE], mask_url="data:image/png;base64,AAAA"), "mask_url"),
        (request_of(GEMINI, image_urls=[REFERENCE], mask_url=REFERENCE), "mask_url"),
        (request_of(client_business_id=7), "client_business_id"),
    ],
)
def test_what_toapis_refuses_is_refused(body: dict[str, Any], param: str) -> None:
    """Every refusal is invalid_request and names the field."""
    response = post(body)
    error = error_of(response)
    assert response.status_code == 400
    assert (error["code"], error["type"]) == ("invalid_request", "invalid_request_error")
    assert param == error["param"]


def test_an_edit_is_a_generation_with_references() -> None:
    """image_urls and mask_url turn a generation into an edit."""
    assert post(request_of(image_urls=[REFERENCE] * 16, mask_url=REFERENCE)).status_code == 200


def test_grok_edits_have_a_path_of_their_own() -> None:
    """Only grok-imagine-1.0-edit is edited at /v1/images/edits."""
    body = request_of("grok-imagine-1.0-edit", image_urls=[REFERENCE])
    assert post(body, "/v1/images/edits").json()["status"] == "queued"
    bad: list[dict[str, Any]] = [{"model": "gpt-image-2"}, {"image_urls": []}, {"size": "1:1"}]
    for changes in bad:
        assert post({**body, **changes}, "/v1/images/edits").status_code == 400


def test_unsafe_prompts_are_422_at_once_or_fail_later() -> None:
    """GPT image models refuse with 422, the others fail their task."""
    response = post(request_of(prompt="forbidden"))
    assert (response.status_code, error_of(response)["code"]) == (422, "content_policy_violation")
    state = finished(toapis.create_app(task_seconds=0), request_of(GEMINI, prompt="forbidden"))
    assert (state["status"], state["error"]["code"]) == ("failed", "generation_failed")
    assert "result" not in state


def test_a_request_without_user_agent_is_403() -> None:
    """The edge turns requests without a User-Agent away before it looks at the key."""
    client = client_of(toapis.create_app(), key="")
    del client.headers["user-agent"]
    response = client.post(PATH, json=request_of())
    assert (response.status_code, error_of(response)["code"]) == (403, 403)


def test_unknown_and_foreign_tasks_are_not_found() -> None:
    """404 has a numeric code; a task belongs to the key that made it."""
    app = toapis.create_app()
    task_id = client_of(app).post(PATH, json=request_of()).json()["id"]
    for key, name in (("sk-demo-tests", "tsk_img_unknown"), ("sk-demo-another", task_id)):
        response = client_of(app, key=key).get(f"{PATH}/{name}")
        expected = {"code": 404, "message": "Task not found", "type": "not_found_error"}
        assert (404, expected) == (response.status_code, error_of(response))


def test_a_task_can_be_found_by_the_client_s_own_id() -> None:
    """client_business_id works in the place of the task id."""
    app = toapis.create_app()
    task_id = client_of(app).post(PATH, json=request_of(client_business_id="order-7")).json()["id"]
    assert task_id == client_of(app).get(f"{PATH}/order-7").json()["id"]
    assert client_of(app, key="sk-demo-another").get(f"{PATH}/order-7").status_code == 404


@pytest.mark.parametrize(
    ("form", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")]
)
def test_uploads_become_urls(form: str, media_type: str) -> None:
    """An upload is answered with a URL that gives the same bytes back."""
    app = toapis.create_app()
    content = picture_file(mode="RGB", form=form)
    body = client_of(app).post("/v1/uploads/images", files=[image_part("file", content)]).json()
    assert (True, media_type, len(content)) == (body["success"], body["data"]["mime_type"], body["data"]["size"])
    served = client_of(app, key="").get(body["data"]["url"])
    assert (content, media_type) == (served.content, served.headers["content-type"])


@pytest.mark.parametrize(
    "part",
    [
        image_part("image"),
        image_part("file", b"no picture"),
        image_part("file", picture_file(mode="RGB", form="BMP")),
        image_part("file", picture_file() + b"\0" * (10 * 1024 * 1024)),
    ],
)
def test_bad_uploads_are_refused(part: tuple[str, Any]) -> None:
    """The part is called file, holds one of four formats, and at most 10 MB."""
    response = client_of(toapis.create_app()).post("/v1/uploads/images", files=[part])
    assert (response.status_code, response.json()["success"]) == (400, False)


def test_old_tasks_are_lost() -> None:
    """The board remembers a bounded number of tasks."""
    board = TaskBoard(1.0, kept=2)
    for name in "abc":
        board.add(name, owner="k", model="m", links=(), failure=None)
    assert [board.find(name, owner="k") is not None for name in "abc"] == [False, True, True]
