"""The simulators of hosting providers refuse what their contracts do not allow, whoever asks."""

from __future__ import annotations

from typing import Any

import pytest
from tests.demo.support import picture_file
from tests.simulators import bedrock, deepinfra, fireworks, huggingface, ideogram, recraft, stability, together
from tests.simulators.base import KEY
from tests.simulators.support import client_of, mask

PROMPT = {"prompt": "a cat"}
IMAGE = ("image", ("in.png", picture_file(64, 32), "image/png"))
SMALL = ("image", ("in.png", picture_file(64, 64), "image/png"))
PRO = {"model": "black-forest-labs/FLUX.2-pro", **PROMPT}
TOGETHER, RECRAFT = "/v1/images/generations", "/v1/images"
DEEPINFRA = "/v1/inference/black-forest-labs/FLUX-1-dev"
HUGGINGFACE = "/hf-inference/models/black-forest-labs/FLUX.1-dev"
ROOT = "/inference/v1/workflows/accounts/fireworks/models"
SCHNELL, KONTEXT = f"{ROOT}/flux-1-schnell-fp8/text_to_image", f"{ROOT}/flux-kontext-pro"
SDXL = "/inference/v1/image_generation/accounts/fireworks/models/SSD-1B"
STABILITY, IDEOGRAM = "/v2beta/stable-image", "/v1"


def sent(app: Any, path: str, body: dict[str, Any], **headers: str) -> Any:
    return client_of(app, authorization=f"Bearer {KEY}", **headers).post(path, json=body)


def form(app: Any, path: str, data: dict[str, Any], *files: Any, **headers: str) -> Any:
    parts = list(files) or [("", ("", b"", ""))]
    client = client_of(app, **{"authorization": f"Bearer {KEY}", "api_key": KEY, **headers})
    if files:
        return client.post(path, data=data, files=parts)
    return client.post(path, files=[(name, (None, value)) for name, value in data.items()])


@pytest.mark.parametrize(
    ("app", "path", "body", "accept"),
    [
        (together.create_app, TOGETHER, {**PRO, "width": 512, "height": 512, "n": 2}, ""),
        (deepinfra.create_app, DEEPINFRA, {**PROMPT, "width": 512, "height": 512}, ""),
        (huggingface.create_app, HUGGINGFACE, {"inputs": "a cat", "parameters": {"seed": 1}}, "image/png"),
        (fireworks.create_app, SCHNELL, {**PROMPT, "aspect_ratio": "5:4"}, "image/png"),
        (fireworks.create_app, SDXL, {**PROMPT, "width": 1024, "height": 1024}, "image/jpeg"),
        (fireworks.create_app, KONTEXT, {**PROMPT, "output_format": "png"}, ""),
        (bedrock.create_app, "/model/stability.sd3-5-large-v1:0/invoke", {**PROMPT, "mode": "text-to-image"}, ""),
        (recraft.create_app, f"{RECRAFT}/generations", {"model": "recraftv3", **PROMPT, "size": "16:9"}, ""),
    ],
)
def test_json_that_is_right(app: Any, path: str, body: dict[str, Any], accept: str) -> None:
    """It is answered; with an unknown member, a number in a string, or a wrong key it is not."""
    more = {"accept": accept} if accept else {}
    assert sent(app(), path, body, **more).status_code == 200
    assert sent(app(), path, {**body, "quality": "high"}, **more).status_code in (400, 422)
    name = next(iter(body))
    assert sent(app(), path, {**body, name: 5}, **more).status_code in (400, 404, 422)
    assert sent(app(), path, {key: value for key, value in body.items() if key != name}, **more).status_code >= 400
    assert client_of(app()).post(path, json=body).status_code == 401
    assert form(app(), path, {key: str(value) for key, value in body.items()}, **more).status_code in (400, 422)
    assert sent(app(), f"{path}/more", body, **more).status_code == 404


@pytest.mark.parametrize(
    ("app", "path", "body"),
    [
        (together.create_app, TOGETHER, {**PRO, "response_format": "b64_json"}),
        (together.create_app, TOGETHER, {**PRO, "width": "512"}),
        (together.create_app, TOGETHER, {**PRO, "reference_images": ["no"]}),
        (together.create_app, TOGETHER, {**PRO, "model": "black-forest-labs/FLUX.1-schnell", "width": 512}),
        (deepinfra.create_app, DEEPINFRA, {**PROMPT, "width": "512", "height": "512"}),
        (deepinfra.create_app, DEEPINFRA, {**PROMPT, "size": "512x512"}),
        (huggingface.create_app, HUGGINGFACE, {"inputs": "a cat", "parameters": {"width": 511}}),
        (huggingface.create_app, HUGGINGFACE, {"inputs": "a cat", "width": 512}),
        (huggingface.create_app, "/together/v1/images/generations", {"model": "m", **PROMPT}),
        (huggingface.create_app, "/nscale/v1/images/generations", {"model": "m", **PROMPT, "size": "wide"}),
        (bedrock.create_app, "/model/stability.sd3-5-large-v1:0/invoke", {**PROMPT, "mode": "image-to-image"}),
        (bedrock.create_app, "/model/stability.stable-image-core-v1:1/invoke", {**PROMPT, "strength": 0.5}),
        (bedrock.create_app, "/model/stability.stable-image-core-v1:1/invoke", {**PROMPT, "output_format": "webp"}),
        (bedrock.create_app, "/model/amazon.nova-canvas-v1:0/invoke", PROMPT),
        (fireworks.create_app, SDXL, {**PROMPT, "width": 1000, "height": 1000}),
        (fireworks.create_app, KONTEXT, {**PROMPT, "aspect_ratio": "1:5"}),
        (fireworks.create_app, KONTEXT, {**PROMPT, "input_image": "no"}),
        (fireworks.create_app, KONTEXT, {**PROMPT, "output_format": "webp"}),
        (recraft.create_app, f"{RECRAFT}/generations", {"model": "recraftv4_1", **PROMPT, "size": "1000x1000"}),
        (recraft.create_app, f"{RECRAFT}/generations", {"model": "recraftv4_1", **PROMPT, "style": "icon"}),
        (recraft.create_app, f"{RECRAFT}/generations", {"model": "recraftv3", **PROMPT, "n": 7}),
        (recraft.create_app, f"{RECRAFT}/generations", {"model": "recraftv3", **PROMPT, "style": "vivid"}),
    ],
)
def test_json_that_is_wrong(app: Any, path: str, body: dict[str, Any]) -> None:
    """A word that another provider has, a size that is none, a type that is another."""
    assert sent(app(), path, body, accept="image/png").status_code in (400, 422)


def part(name: str, content: bytes) -> Any:
    return (name, (f"{name}.png", content, "image/png"))


WHITE, TRANSPARENT = part("mask", mask(by="white")), part("mask", mask(by="alpha"))


@pytest.mark.parametrize(
    ("app", "path", "data", "files"),
    [
        (stability.create_app, f"{STABILITY}/generate/core", {**PROMPT, "aspect_ratio": "16:9"}, []),
        (stability.create_app, f"{STABILITY}/edit/inpaint", PROMPT, [SMALL, WHITE]),
        (ideogram.create_app, f"{IDEOGRAM}/ideogram-v3/generate", {**PROMPT, "aspect_ratio": "16x9"}, []),
        (ideogram.create_app, f"{IDEOGRAM}/ideogram-v3/inpaint", PROMPT, [SMALL, WHITE]),
        (ideogram.create_app, f"{IDEOGRAM}/ideogram-v4/remix", {"text_prompt": "a cat"}, [IMAGE]),
        (recraft.create_app, f"{RECRAFT}/imageToImage", {"model": "recraftv4_1", **PROMPT, "strength": "0.5"}, [IMAGE]),
        (recraft.create_app, f"{RECRAFT}/inpaint", {"model": "recraftv3", **PROMPT}, [SMALL, WHITE]),
        (deepinfra.create_app, "/v1/openai/images/edits", {**PROMPT, "model": "Qwen/Qwen-Image-Edit"}, [IMAGE, IMAGE]),
    ],
)
def test_forms_that_are_right(app: Any, path: str, data: dict[str, str], files: list[Any]) -> None:
    """They are answered; with an unknown part or file, without a prompt, as JSON, or with a wrong key they are not."""
    accept = {"accept": "application/json"}
    assert form(app(), path, data, *files, **accept).status_code == 200
    assert form(app(), path, {**data, "quality": "high"}, *files, **accept).status_code == 400
    assert form(app(), path, data, *files, part("image[]", picture_file(8, 8)), **accept).status_code == 400
    assert form(app(), path, {"model": "recraftv3"}, *files, **accept).status_code == 400
    assert sent(app(), path, data, api_key=KEY, **accept).status_code == 400
    wrong = {"authorization": "Bearer no", "api_key": "no"}
    assert form(app(), path, data, *files, **accept, **wrong).status_code == 401


@pytest.mark.parametrize(
    ("app", "path", "data", "files"),
    [
        (stability.create_app, f"{STABILITY}/generate/core", {**PROMPT, "aspect_ratio": "16x9"}, []),
        (stability.create_app, f"{STABILITY}/generate/core", PROMPT, [IMAGE]),
        (stability.create_app, f"{STABILITY}/generate/sd3", {**PROMPT, "mode": "image-to-image"}, [IMAGE]),
        (stability.create_app, f"{STABILITY}/generate/ultra", PROMPT, [IMAGE]),
        (stability.create_app, f"{STABILITY}/edit/erase", PROMPT, [IMAGE]),
        (ideogram.create_app, f"{IDEOGRAM}/ideogram-v3/generate", {**PROMPT, "aspect_ratio": "16:9"}, []),
        (
            ideogram.create_app,
            f"{IDEOGRAM}/ideogram-v3/generate",
            {**PROMPT, "aspect_ratio": "1x1", "resolution": "1024x1024"},
            [],
        ),
        (ideogram.create_app, f"{IDEOGRAM}/ideogram-v3/inpaint", {**PROMPT, "resolution": "1024x1024"}, [SMALL, WHITE]),
        (ideogram.create_app, f"{IDEOGRAM}/ideogram-v4/generate", {"text_prompt": "a", "rendering_speed": "FLASH"}, []),
        (recraft.create_app, f"{RECRAFT}/imageToImage", {"model": "recraftv4_1", **PROMPT}, [IMAGE]),
        (recraft.create_app, f"{RECRAFT}/inpaint", {"model": "recraftv4_1", **PROMPT}, [SMALL, WHITE]),
        (recraft.create_app, f"{RECRAFT}/inpaint", {"model": "recraftv3", **PROMPT}, [IMAGE, WHITE]),
        (
            deepinfra.create_app,
            "/v1/openai/images/edits",
            {**PROMPT, "model": "Qwen/Qwen-Image-Edit"},
            [part("image[]", picture_file(8, 8))],
        ),
    ],
)
def test_forms_that_are_wrong(app: Any, path: str, data: dict[str, str], files: list[Any]) -> None:
    """A ratio in another spelling, an image without its strength, a name in brackets, sizes where there are none."""
    assert form(app(), path, data, *files, accept="application/json").status_code == 400


def test_masks_by_their_meaning() -> None:
    """Stability and Recraft paint what is white, Ideogram what is black, DeepInfra what is transparent."""
    for app, path, data, own, painted in (
        (stability.create_app(), f"{STABILITY}/edit/inpaint", PROMPT, WHITE, True),
        (recraft.create_app(), f"{RECRAFT}/inpaint", {"model": "recraftv3", **PROMPT}, WHITE, True),
        (ideogram.create_app(), f"{IDEOGRAM}/ideogram-v3/inpaint", PROMPT, WHITE, False),
        (
            deepinfra.create_app(),
            "/v1/openai/images/edits",
            {**PROMPT, "model": "Qwen/Qwen-Image-Edit"},
            TRANSPARENT,
            True,
        ),
    ):
        assert form(app, path, data, SMALL, own, accept="application/json").status_code == 200
        assert [each.at(0.5, 0) for each in app.state.repainted] == [painted]


def test_a_result_is_the_models_own() -> None:
    """Fireworks finds a task below the path that it was made at, and with nothing but its id."""
    app = fireworks.create_app()
    id_ = sent(app, KONTEXT, PROMPT).json()["request_id"]
    for path, body, status in (
        (f"{ROOT}/flux-kontext-max/get_result", {"id": id_}, "Task not found"),
        (f"{KONTEXT}/get_result", {"id": id_, "more": 1}, "Task not found"),
        (f"{KONTEXT}/get_result", {"id": id_}, "Pending"),
        (f"{KONTEXT}/get_result", {"id": id_}, "Ready"),
    ):
        assert sent(app, path, body).json()["status"] == status
