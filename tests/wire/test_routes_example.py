"""examples/routes.toml: one public name, and a fallback through four providers that differ in everything."""

from __future__ import annotations

import base64
import re
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.simulators import bfl, fal, replicate, xai
from tests.simulators.base import KEY
from tests.wire.edit_support import Tap, picture

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "routes.toml"
CREATE = {"xai": xai.create_app, "bfl": bfl.create_app, "replicate": replicate.create_app, "fal": fal.create_app}
NAMES = list(CREATE)


class Limited:
    """A provider that answers every POST with a 429 while it is at its limit."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.is_at_its_limit = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not self.is_at_its_limit:
            await self.app(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 429, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"detail": "Too many requests", "status": 429}'})


class Providers:
    """The four providers, and a client of the gateway in front of them."""

    def __init__(self, client: openai.OpenAI, taps: Mapping[str, Tap], limits: Mapping[str, Limited]) -> None:
        self.client, self.taps, self.limits = client, taps, limits

    def only(self, name: str) -> None:
        """Let all providers before this one be at their limits."""
        for place, (other, limit) in enumerate(self.limits.items()):
            limit.is_at_its_limit = place < NAMES.index(name)
            self.taps[other].posts.clear()

    def sent(self) -> list[Any]:
        """The body that each provider was sent, in the order of the route."""
        bodies = [[post.json for post in tap.posts] for tap in self.taps.values()]
        assert all(len(each) <= 1 for each in bodies)
        return [body for each in bodies for body in each]


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Generator[Providers]:
    """The example as it is, but for the addresses."""
    folder, source = tmp_path_factory.mktemp("routes"), EXAMPLE.read_text("utf-8")
    with ExitStack() as stack:
        limits = {name: Limited(create()) for name, create in CREATE.items()}
        taps = {name: Tap(limit) for name, limit in limits.items()}
        for name, tap in taps.items():
            port = stack.enter_context(serving(tap))
            source = source.replace(f'name = "{name}"', f'name = "{name}"\nbase_url = "http://127.0.0.1:{port}"')
        keys = dict.fromkeys(re.findall(r"\$\{(\w+)\}", source), KEY)
        config = parse_config(f'{source}\n[tasks]\npoll_interval = "20ms"', environment=keys, directory=folder)
        port = stack.enter_context(serving(ImageGateway(config=config, hooks=())))
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0)
        yield Providers(stack.enter_context(client), taps, limits)


GENERATIONS: list[Any] = [
    {
        "model": "grok-imagine-image-2.0",
        "prompt": "A hat",
        "aspect_ratio": "16:9",
        "resolution": "1k",
        "quality": "medium",
        "response_format": "b64_json",
    },
    {"prompt": "A hat", "width": 1792, "height": 1024},
    {"input": {"prompt": "A hat", "aspect_ratio": "16:9", "resolution": "1K"}},
    {"prompt": "A hat", "image_size": "1536x1024", "quality": "high"},
]


@pytest.mark.parametrize("name", NAMES)
def test_a_request_is_fitted_afresh_to_each(providers: Providers, name: str) -> None:
    """Those before the one that answers got their own form of it, once; those behind got nothing."""
    providers.only(name)
    answer = providers.client.images.with_raw_response.generate(
        model="picture", prompt="A hat", size="1792x1024", quality="high", response_format="b64_json"
    )
    assert answer.headers["imagegate-upstream"] == name
    assert providers.sent() == GENERATIONS[: NAMES.index(name) + 1]
    data = answer.parse().data
    assert data is not None
    assert base64.b64decode(data[0].b64_json or "")


def test_references_are_written_for_each(providers: Providers) -> None:
    """An object, plain base64, data URLs, under each provider's own names."""
    providers.only("fal")
    image = picture(1, 64)
    answer = providers.client.images.edit(model="picture", prompt="A hat", image=("a.png", image, "image/png"))
    assert answer.data
    encoded = base64.b64encode(image).decode()
    data = f"data:image/png;base64,{encoded}"
    grok, flux, gemini, gpt = providers.sent()
    assert grok["image"] == {"url": data, "type": "image_url"}
    assert flux == {"prompt": "A hat", "input_image": encoded}
    assert gemini == {"input": {"prompt": "A hat", "image_input": [data]}}
    assert gpt == {"prompt": "A hat", "image_urls": [data]}
