"""The simulator of AUTOMATIC1111's web interface."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.demo.support import picture_file
from tests.simulators import a1111
from tests.simulators.support import client_of, mask, size_of_base64

PICTURE = base64.b64encode(picture_file(32, 32)).decode()
WHITE_MASK = base64.b64encode(mask(by="white")).decode()


def sent(app: Any, path: str = "txt2img", **body: Any) -> Any:
    return client_of(app).post(f"/sdapi/v1/{path}", json={"prompt": "a cat", **body})


def test_pictures() -> None:
    """Two ways to ask for several; sizes are cut to multiples of 8; `info` is text."""
    app = a1111.create_app()
    reply = sent(app, width=129, height=64, batch_size=2, n_iter=2, seed=7).json()
    assert [size_of_base64(text) for text in reply["images"]] == [(128, 64, "PNG")] * 4
    assert len(set(reply["images"])) == 4
    assert json.loads(reply["info"])["all_seeds"] == [7, 8, 9, 10]
    assert app.state.dropped == []
    assert sent(app).json()["images"] != sent(app).json()["images"]
    assert sent(app, send_images=False).json()["images"] == []


def test_a_grid_comes_first() -> None:
    """Where pictures are saved, unless it is turned off."""
    body: dict[str, Any] = {"batch_size": 2, "save_images": True}
    assert len(sent(a1111.create_app(), **body).json()["images"]) == 3
    assert len(sent(a1111.create_app(), **body, override_settings={"return_grid": False}).json()["images"]) == 2


def test_an_unknown_checkpoint_is_dropped() -> None:
    """Another one draws, and only `info` says which."""
    app = a1111.create_app()
    for name, used in ((a1111.CHECKPOINTS[1], a1111.CHECKPOINTS[1]), ("none", a1111.CHECKPOINTS[0])):
        info = json.loads(sent(app, override_settings={"sd_model_checkpoint": name}).json()["info"])
        assert info["sd_model_name"] == used
    assert app.state.dropped == ["override_settings.sd_model_checkpoint"]
    assert len(client_of(app).get("/sdapi/v1/sd-models").json()) == 2


def test_image_to_image() -> None:
    """One start picture for each picture of a batch; white is painted, or black with an inverted mask."""
    app = a1111.create_app()
    assert sent(app, "img2img", init_images=[PICTURE], mask=WHITE_MASK).status_code == 200
    body = {"init_images": [f"data:image/png;base64,{PICTURE}"], "mask": WHITE_MASK, "inpainting_mask_invert": 1}
    assert sent(app, "img2img", **body).status_code == 200
    assert [painted.at(0.5, 0) for painted in app.state.repainted] == [True, False]
    assert app.state.sources == [picture_file(32, 32)] * 2
    many = sent(app, "img2img", init_images=[PICTURE] * 2)
    assert (many.status_code, many.json()["error"]) == (500, "RuntimeError")
    assert app.state.dropped == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("txt2img", {"width": "wide"}, 422),
        ("txt2img", {"prompt": 1}, 422),
        ("txt2img", {"override_settings": []}, 422),
        ("txt2img", {"sampler_name": "none"}, 404),
        ("txt2img", {"width": 0}, 500),
        ("txt2img", {"prompt": "out-of-memory"}, 500),
        ("img2img", {}, 404),
        ("img2img", {"init_images": PICTURE}, 422),
        ("img2img", {"init_images": ["https://example.com/a.png"]}, 500),
        ("img2img", {"init_images": ["no"]}, 500),
        ("none", {}, 404),
    ],
)
def test_refusals(path: str, body: dict[str, Any], status: int) -> None:
    """A list for what pydantic refuses, else an exception's name and its text."""
    response = sent(a1111.create_app(), path, **body)
    assert response.status_code == status
    assert isinstance(response.json()["detail"], list if status == 422 else str)


def test_what_it_drops() -> None:
    """Members of OpenAI's, and settings that are none."""
    app = a1111.create_app()
    sent(app, size="64x64", n=2, override_settings={"quality": 1})
    assert app.state.dropped == ["size", "n", "override_settings.quality"]
    assert client_of(app).post("/sdapi/v1/txt2img", content=b"[]").status_code == 422


def test_name_and_password() -> None:
    """Basic, where it was started so."""
    app = a1111.create_app(has_key=True)
    assert client_of(app).get("/sdapi/v1/progress").status_code == 401
    basic = base64.b64encode(a1111.USER.encode()).decode()
    client = client_of(app, authorization=f"Basic {basic}")
    assert client.get("/sdapi/v1/progress").json()["progress"] == 0.0
    assert client.post("/sdapi/v1/interrupt").json() == {}
