"""Models that OpenAI has switched off, answered by their successors: programs written for them go on, and are told."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from tests.conftest import Running
from tests.wire.edit_support import Tap, mask_for, picture, taps

from imagegate import Config, ImageGateway
from imagegate.config.loader import load_config
from imagegate.config.schema import DeliveryConfig, Duration, TasksConfig, UpstreamConfig
from imagegate.demo.servers import serving

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = load_config(
    ROOT / "examples" / "imagegate.toml",
    environment=dict.fromkeys(("TOKENLAB_API_KEY", "ONETOKEN_API_KEY", "TOAPIS_API_KEY", "CLIENT_KEY"), "any"),
)
RETIRED = ("dall-e-2", "dall-e-3", "gpt-image-1")


@pytest.fixture(scope="module")
def client(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """The SDK in front of a gateway with the routes of the example, and the strict local providers."""
    upstreams = tuple(
        UpstreamConfig(name=name, base_url=f"http://127.0.0.1:{running.ports[name]}", api_key=f"sk-demo-{name}")
        for name in (upstream.name for upstream in EXAMPLE.upstreams)
    )
    config = Config(
        upstreams=upstreams,
        routes={model: EXAMPLE.routes[model] for model in RETIRED},
        delivery=DeliveryConfig(store=f"file://{tmp_path_factory.mktemp('retired')}"),
        tasks=TasksConfig(poll_interval=Duration(0.05)),
    )
    with (
        serving(ImageGateway(config=config, hooks=())) as port,
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0) as client,
    ):
        yield client


@pytest.fixture
def tapped(running: Running) -> Iterator[Mapping[str, Tap]]:
    with taps(running.providers) as found:
        yield found


def bytes_of(image: Any, form: str) -> bytes:
    """A picture in the form that was asked for, and in no other."""
    if form == "url":
        assert image.b64_json is None
        return httpx.get(image.url).content
    assert image.url is None
    return base64.b64decode(image.b64_json)


@pytest.mark.parametrize(
    ("asked", "form", "sent", "changes"),
    [
        (
            {"model": "dall-e-3", "size": "1792x1024", "quality": "hd", "style": "vivid"},
            "url",
            {"size": "1792x1024", "quality": "high", "response_format": "url"},
            'model;from="dall-e-3";to="gpt-image-2", quality;from="hd";to="high", style;dropped',
        ),
        (
            {"model": "dall-e-3", "size": "1024x1792", "quality": "standard", "style": "natural"},
            "b64_json",
            {"size": "1024x1792", "quality": "medium", "response_format": "b64_json"},
            'model;from="dall-e-3";to="gpt-image-2", quality;from="standard";to="medium", style;dropped',
        ),
        (
            {"model": "dall-e-3", "size": "1024x1024"},
            "url",
            {"size": "1024x1024"},
            'model;from="dall-e-3";to="gpt-image-2"',
        ),
        (
            {"model": "dall-e-2", "size": "256x256", "n": 2, "user": "u-1"},
            "url",
            {"size": "816x816", "n": 2, "user": "u-1"},
            'model;from="dall-e-2";to="gpt-image-2", size;from="256x256";to="816x816"',
        ),
        (
            {"model": "dall-e-2", "size": "512x512"},
            "b64_json",
            {"size": "816x816", "response_format": "b64_json"},
            'model;from="dall-e-2";to="gpt-image-2", size;from="512x512";to="816x816"',
        ),
        (
            {"model": "gpt-image-1", "size": "1536x1024", "quality": "high", "background": "opaque"},
            "b64_json",
            {"size": "1536x1024", "quality": "high", "background": "opaque"},
            'model;from="gpt-image-1";to="gpt-image-2"',
        ),
    ],
)
def test_generations(
    client: openai.OpenAI,
    tapped: Mapping[str, Tap],
    asked: Mapping[str, Any],
    form: str,
    sent: Mapping[str, Any],
    changes: str,
) -> None:
    """Quality, size and style become the successor's, pictures come as the retired model gave them, all is told."""
    chosen = {"response_format": form} if "response_format" in sent else {}
    reply = client.images.with_raw_response.generate(prompt="A kite", **chosen, **asked)
    (post,) = tapped["tokenlab"].posts
    assert post.json == {"model": "gpt-image-2", "prompt": "A kite", **sent}
    assert changes == reply.headers["imagegate-changes"]
    images = reply.parse().data or []
    assert len(images) == asked.get("n", 1)
    for image in images:
        made = Image.open(io.BytesIO(bytes_of(image, form)))
        assert f"{made.width}x{made.height}" == sent["size"]


def test_edits_with_a_mask(client: openai.OpenAI, tapped: Mapping[str, Tap]) -> None:
    """dall-e-2's edits: the picture and its mask arrive, the size becomes one that the successor has."""
    source, mask = picture(1, size=512), mask_for(512)
    reply = client.images.with_raw_response.edit(
        model="dall-e-2",
        image=("a.png", source, "image/png"),
        mask=("m.png", mask, "image/png"),
        prompt="A kite",
        size="512x512",
        response_format="url",
    )
    (post,) = tapped["tokenlab"].posts
    assert {part.name: part.content for part in post.files} == {"image": source, "mask": mask}
    assert (post.fields["model"], post.fields["size"]) == ("gpt-image-2", "816x816")
    assert reply.headers["imagegate-changes"].startswith('model;from="dall-e-2";to="gpt-image-2", size;from="512x512"')
    (image,) = reply.parse().data or []
    assert bytes_of(image, "url")


def test_variations(client: openai.OpenAI, tapped: Mapping[str, Tap]) -> None:
    """The retired endpoint of the retired model: an edit that asks for a variation, and the reply says so."""
    with pytest.warns(DeprecationWarning, match="deprecated"):
        reply = client.images.with_raw_response.create_variation(
            model="dall-e-2", image=("a.png", picture(2, size=256), "image/png"), n=1, size="256x256"
        )
    (post,) = tapped["tokenlab"].posts
    assert post.path == "/v1/images/edits"
    assert 'endpoint;from="variations";to="edits"' in reply.headers["imagegate-changes"]
    (image,) = reply.parse().data or []
    assert bytes_of(image, "url")


def test_an_unknown_quality_is_still_an_error(client: openai.OpenAI, tapped: Mapping[str, Tap]) -> None:
    """Translation is no licence: what neither model had is refused before anything is sent."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model="dall-e-3", prompt="A kite", quality="ultra")  # type: ignore[call-overload]
    assert caught.value.param == "quality"
    assert tapped["tokenlab"].posts == []
