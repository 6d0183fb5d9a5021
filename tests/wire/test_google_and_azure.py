"""Gemini, Vertex and Azure through the whole gateway and the official SDK, against strict simulators."""

from __future__ import annotations

import base64
import io
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from tests.simulators import azure as azure_simulator
from tests.wire.edit_support import mask_for, picture

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.providers import gemini as gemini_simulator
from imagegate.demo.servers import serving


@contextmanager
def gateway(folder: Path, lines: str, rest: str = "") -> Generator[openai.OpenAI]:
    source = f'{lines}\n[delivery]\nstore = "file://{folder / "images"}"\n[policy]\nretries = 0\n{rest}'
    config = parse_config(source, environment={}, directory=folder)
    with (
        serving(ImageGateway(config=config, hooks=())) as port,
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0) as client,
    ):
        yield client


@pytest.fixture
def gemini(tmp_path: Path) -> Generator[openai.OpenAI]:
    app = gemini_simulator.create_app()
    with (
        serving(app) as port,
        gateway(
            tmp_path,
            f'[[upstreams]]\nname = "gemini"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "sk-demo-gemini"',
        ) as client,
    ):
        yield client


def sizes(images: Any) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for image in images.data:
        content = base64.b64decode(image.b64_json) if image.b64_json else httpx.get(image.url).content
        with Image.open(io.BytesIO(content)) as opened:
            found.append(opened.size)
    return found


@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_gemini_in_both_forms(gemini, form):
    """Ratio and tier reach Gemini; three pictures are three requests, and their usage adds up."""
    answer = gemini.images.with_raw_response.generate(
        model="gemini-3-pro-image", prompt="A hat", size="2048x2048", n=3, response_format=form
    )
    images = answer.parse()
    assert sizes(images) == [(2048, 2048)] * 3
    assert {image.b64_json is None for image in images.data} == {form == "url"}
    changes = answer.headers["imagegate-changes"]
    assert 'n;from=3;to="1+1+1"' in changes
    assert 'size;from="2048x2048";to="aspect_ratio=1:1,resolution=2K"' in changes
    assert images.usage.output_tokens == 3 * (1120 + 64)


def test_gemini_edits_with_references(gemini):
    """Files are inline in their order; a mask is refused by name, and nothing is sent."""
    files = [("a.png", picture(1, 64), "image/png"), ("b.png", picture(2, 64), "image/png")]
    images = gemini.images.edit(model="gemini-3.1-flash-image", prompt="A hat", image=files, size="1536x1024")
    assert sizes(images) == [(1264, 848)]
    with pytest.raises(openai.BadRequestError) as caught:
        gemini.images.edit(model="gemini-3.1-flash-image", prompt="A hat", image=files[0], mask=mask_for(64))
    assert caught.value.param == "mask"


def test_gemini_streams_are_made_by_the_gateway(gemini):
    """A client that asks for a stream gets its completed event."""
    events = list(gemini.images.generate(model="gemini-3-pro-image", prompt="A hat", stream=True))
    assert [event.type for event in events] == ["image_generation.completed"]


@pytest.mark.parametrize(
    ("word", "status", "code"),
    [
        (gemini_simulator.FORBIDDEN_WORD, 400, "moderation_blocked"),
        (gemini_simulator.UNSAFE_OUTPUT_WORD, 400, "moderation_blocked"),
        (gemini_simulator.NO_PICTURE_WORD, 502, "no_image"),
    ],
)
def test_gemini_refusals(gemini, word, status, code):
    """What is blocked is a moderation error; words in place of a picture are uncertain, and not to be retried."""
    with pytest.raises(openai.APIStatusError) as caught:
        gemini.images.generate(model="gemini-3-pro-image", prompt=f"A {word} hat")
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.response.headers.get("x-should-retry") == ("false" if status == 502 else None)


@pytest.mark.parametrize(("key", "status"), [("wrong", 400), ("", 403)])
def test_gemini_wrong_and_missing_keys(tmp_path, key, status):
    """Google's own answer, without the key."""
    lines = 'headers = { "x-goog-api-key" = "" }' if not key else f'api_key = "{key}"'
    with (
        serving(gemini_simulator.create_app()) as port,
        gateway(tmp_path, f'[[upstreams]]\nname = "gemini"\nbase_url = "http://127.0.0.1:{port}"\n{lines}') as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client.images.generate(model="gemini-3-pro-image", prompt="A hat")
    assert caught.value.status_code == status


AZURE = 'api_key = "sk-demo-azure"\n[upstreams.models]\n' + "\n".join(
    f'"{name}" = {{ family = "{family}" }}'
    for name, family in (("pictures", "azure-gpt-image-2"), ("old-pictures", "azure-gpt-image-1"))
)


@pytest.mark.parametrize("form", ["v1", "deployments"])
def test_azure_in_both_forms(tmp_path, form):
    """Generations, edits with a mask, and streams, by the names of deployments."""
    path = "/openai" if form == "deployments" else "/openai/v1"
    with serving(azure_simulator.create_app()) as port:
        lines = (
            f'[[upstreams]]\nname = "azure"\nbase_url = "http://127.0.0.1:{port}{path}"\n'
            f'options = {{ form = "{form}" }}\n{AZURE}'
        )
        with gateway(tmp_path, lines) as client:
            images = client.images.generate(
                model="pictures", prompt="A hat", size="1920x1080", output_format="webp", response_format="url"
            )
            assert sizes(images) == [(1920, 1088)]
            edited = client.images.edit(
                model="old-pictures", prompt="A hat", image=("a.png", picture(1, 64), "image/png"), mask=mask_for(64)
            )
            assert len(sizes(edited)) == 1
            events = list(client.images.generate(model="pictures", prompt="A hat", stream=True))
            assert events[-1].type == "image_generation.completed"
            for word in (azure_simulator.FORBIDDEN_WORD, azure_simulator.FILTERED_WORD):
                with pytest.raises(openai.BadRequestError) as caught:
                    client.images.generate(model="pictures", prompt=f"A {word} hat")
                assert caught.value.code == "moderation_blocked"
            with pytest.raises(openai.NotFoundError):
                client.images.generate(model="azure/no-such-deployment", prompt="A hat")


def test_azure_by_token_of_entra(tmp_path):
    """A token goes as a bearer token, a key in api-key."""
    with serving(azure_simulator.create_app()) as port:
        lines = (
            f'[[upstreams]]\nname = "azure"\nbase_url = "http://127.0.0.1:{port}/openai/v1"\n'
            f'models = {{ pictures = {{ family = "azure-gpt-image-2" }} }}\n'
            f'[upstreams.credential]\ncommand = ["echo", "sk-demo-token"]'
        )
        with gateway(tmp_path, lines) as client:
            assert sizes(client.images.generate(model="pictures", prompt="A hat", size="1024x1024")) == [(1024, 1024)]


def test_retired_models_are_answered_by_their_successors(tmp_path):
    """Disclosed; `retired = false` leaves a model where it is, and another address has retired nothing by itself."""
    retired = 'models = { "gemini-2.5-flash-image" = { retired = { since = "2026-10-02", '
    retired += 'successor = "gemini-3.1-flash-image", source = "a test" } } }'
    with serving(gemini_simulator.create_app()) as port:
        lines = f'[[upstreams]]\nname = "gemini"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "sk-demo-gemini"\n'
        for more, model, disclosed in (
            (retired, "gemini-3.1-flash-image", True),
            ("", "gemini-2.5-flash-image", False),
            ('models = { "gemini-2.5-flash-image" = { retired = false } }', "gemini-2.5-flash-image", False),
        ):
            with gateway(tmp_path, lines + more) as client:
                answer = client.images.with_raw_response.generate(model="gemini-2.5-flash-image", prompt="A hat")
                shown = client.post(
                    "/images/generations",
                    body={"model": "gemini-2.5-flash-image", "prompt": "A hat"},
                    cast_to=object,
                    options={"headers": {"imagegate-explain": "?1"}},
                )
            assert f"/{model}:generateContent" in str(shown)
            change = 'model;from="gemini-2.5-flash-image";to="gemini-3.1-flash-image"'
            assert (change in answer.headers.get("imagegate-changes", "")) is disclosed
