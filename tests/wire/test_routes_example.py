"""examples/routes.toml: one public name, and a fallback through four providers that differ in everything."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import openai
import pytest
from PIL import Image
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.simulators import azure, dashscope, fal, ideogram, recraft, stability, xai
from tests.simulators.base import KEY
from tests.wire.edit_support import Part, Post, Tap, mask_for, picture

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.providers import gemini
from imagegate.demo.servers import serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "routes.toml"
PROVIDERS = {"azure": azure, "gemini": gemini, "fal": fal, "dashscope": dashscope}
PATHS = {"azure": "/openai/v1", "dashscope": "/api/v1"}
NAMES = list(PROVIDERS)
HAT: Final = "A hat"
LIMITS: Mapping[str, bytes] = {
    "azure": b'{"error": {"code": "429", "message": "Requests have exceeded the rate limit of your pricing tier."}}',
    "gemini": b'{"error": {"code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED"}}',
    "fal": b'{"detail": "User is rate limited"}',
    "dashscope": b'{"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded.", "request_id": "r"}',
}
"""What each of them says in its 429."""


class Limited:
    """A provider that answers every POST with a 429 while it is at its limit."""

    def __init__(self, app: ASGIApp, message: bytes) -> None:
        self.app, self.message = app, message
        self.is_at_its_limit = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not self.is_at_its_limit:
            await self.app(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 429, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": self.message})


class Providers:
    """The four providers, and a client of the gateway in front of them."""

    def __init__(self, client: openai.OpenAI, taps: Mapping[str, Tap], limits: Mapping[str, Limited]) -> None:
        self.client, self.taps, self.limits = client, taps, limits

    def only(self, name: str) -> None:
        """Let all providers before this one be at their limits."""
        names = list(self.limits)
        for place, (other, limit) in enumerate(self.limits.items()):
            limit.is_at_its_limit = place < names.index(name)
            self.taps[other].posts.clear()

    def posts(self) -> dict[str, Post]:
        """What each provider was sent, which is once or not at all."""
        assert all(len(tap.posts) <= 1 for tap in self.taps.values())
        return {name: tap.posts[0] for name, tap in self.taps.items() if tap.posts}


def started(
    stack: ExitStack, folder: Path, source: str, modules: Mapping[str, Any], said: Mapping[str, bytes]
) -> Providers:
    """Serve the providers of a configuration, which differs from what is said here in the addresses alone."""
    limits = {name: Limited(module.create_app(), said[name]) for name, module in modules.items()}
    taps = {name: Tap(limit) for name, limit in limits.items()}
    for name, tap in taps.items():
        address = f"http://127.0.0.1:{stack.enter_context(serving(tap))}{PATHS.get(name, '')}"
        source = source.replace(f'name = "{name}"', f'name = "{name}"\nbase_url = "{address}"')
    keys = dict.fromkeys(re.findall(r"\$\{(\w+)\}", source), KEY) | {"NAME": ""}
    config = parse_config(f'{source}\n[tasks]\npoll_interval = "20ms"', environment=keys, directory=folder)
    port = stack.enter_context(serving(ImageGateway(config=config, hooks=())))
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0)
    return Providers(stack.enter_context(client), taps, limits)


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Generator[Providers]:
    """The example as it is, but for the addresses."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("routes")
        yield started(stack, folder, EXAMPLE.read_text("utf-8"), PROVIDERS, LIMITS)


def size_of(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as opened:
        return opened.size


GENERATIONS: Mapping[str, Any] = {
    "azure": {"model": "pictures", "prompt": HAT, "size": "1536x1024", "quality": "high"},
    "gemini": {
        "contents": [{"role": "user", "parts": [{"text": HAT}]}],
        "generationConfig": {
            "responseModalities": ["IMAGE"],
            "imageConfig": {"aspectRatio": "3:2", "imageSize": "1K"},
        },
    },
    "fal": {"prompt": HAT, "image_size": {"width": 1536, "height": 1024}},
    "dashscope": {
        "model": "qwen-image-2.0",
        "input": {"messages": [{"role": "user", "content": [{"text": HAT}]}]},
        "parameters": {"n": 1, "size": "1536*1024"},
    },
}
ADDRESSES: Mapping[str, str] = {
    "azure": "/openai/v1/images/generations",
    "gemini": "/v1beta/models/gemini-3.1-flash-image:generateContent",
    "fal": "/fal-ai/flux-2",
    "dashscope": "/api/v1/services/aigc/multimodal-generation/generation",
}
CREDENTIALS: Mapping[str, tuple[str, str]] = {
    "azure": ("api-key", KEY),
    "gemini": ("x-goog-api-key", KEY),
    "fal": ("authorization", f"Key {KEY}"),
    "dashscope": ("authorization", f"Bearer {KEY}"),
}
CHANGES: Mapping[str, str] = {
    "azure": "response_format;dropped",
    "gemini": 'size;from="1536x1024";to="aspect_ratio=3:2,resolution=1K", quality;dropped, response_format;dropped',
    "fal": "quality;dropped, response_format;dropped",
    "dashscope": "quality;dropped, response_format;dropped",
}
"""Without that of the model."""


@pytest.mark.parametrize("form", ["b64_json", "url"])
@pytest.mark.parametrize("name", NAMES)
def test_a_generation_is_fitted_afresh_to_each(providers: Providers, name: str, form: Any) -> None:
    """Those before the one that answers got their own form of it, once; those behind got nothing."""
    providers.only(name)
    answer = providers.client.images.with_raw_response.generate(
        model="picture", prompt=HAT, size="1536x1024", quality="high", response_format=form
    )
    posts = providers.posts()
    assert answer.headers["imagegate-upstream"] == name
    assert answer.headers["imagegate-changes"].endswith(CHANGES[name])
    asked = NAMES[: NAMES.index(name) + 1]
    assert {each: post.json for each, post in posts.items()} == {each: GENERATIONS[each] for each in asked}
    assert {each: post.path for each, post in posts.items()} == {each: ADDRESSES[each] for each in asked}
    for each, post in posts.items():
        header, value = CREDENTIALS[each]
        assert post.headers[header] == value
    data = answer.parse().data
    assert data is not None
    assert (data[0].url is None, data[0].b64_json is None) == (form == "b64_json", form == "url")
    content = base64.b64decode(data[0].b64_json) if data[0].b64_json else httpx.get(data[0].url or "").content
    assert size_of(content) == ((1264, 848) if name == "gemini" else (1536, 1024))


def test_an_edit_is_fitted_afresh_to_each(providers: Providers) -> None:
    """A file of a form, base64 beside its type, data URLs, a part of a message: always the client's own bytes."""
    providers.only("dashscope")
    image = picture(1, 512)
    answer = providers.client.images.edit(
        model="picture", prompt=HAT, image=("hat.png", image, "image/png"), size="1024x1024", response_format="b64_json"
    )
    posts = providers.posts()
    assert list(posts) == NAMES
    encoded = base64.b64encode(image).decode()
    data = f"data:image/png;base64,{encoded}"
    assert posts["azure"].path == "/openai/v1/images/edits"
    assert posts["azure"].fields == {"model": "pictures", "prompt": HAT, "size": "1024x1024"}
    assert posts["azure"].files == [Part("image", "hat.png", "image/png", image)]
    assert posts["gemini"].json["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": encoded}},
        {"text": HAT},
    ]
    assert posts["gemini"].json["generationConfig"]["imageConfig"] == {"aspectRatio": "1:1", "imageSize": "1K"}
    assert posts["fal"].path == "/fal-ai/flux-2/edit"
    assert posts["fal"].json == {
        "prompt": HAT,
        "image_size": {"width": 1024, "height": 1024},
        "image_urls": [data],
    }
    assert posts["dashscope"].json == {
        "model": "qwen-image-2.0",
        "input": {"messages": [{"role": "user", "content": [{"image": data}, {"text": HAT}]}]},
        "parameters": {"n": 1, "size": "1024*1024"},
    }
    assert answer.data
    assert answer.data[0].url is None
    assert size_of(base64.b64decode(answer.data[0].b64_json or "")) == (1024, 1024)


def test_a_mask_goes_to_the_one_that_takes_it(providers: Providers) -> None:
    """The others are never asked for a picture without it; the error is that of the one that was asked."""
    image = ("hat.png", picture(1, 64), "image/png")
    for name in ("azure", "gemini"):
        providers.only(name)
        if name == "gemini":
            with pytest.raises(openai.RateLimitError):
                providers.client.images.edit(model="picture", prompt=HAT, image=image, mask=image)
        else:
            assert providers.client.images.edit(model="picture", prompt=HAT, image=image, mask=image).data
        posts = providers.posts()
        assert list(posts) == ["azure"]
        assert [part.name for part in posts["azure"].files] == ["image", "mask"]


MASKED: Final[Mapping[str, Any]] = {
    "xai": xai,
    "fal": fal,
    "stability": stability,
    "ideogram": ideogram,
    "recraft": recraft,
}
"""In the order of the route; the first one takes no masks."""
MASKED_ROUTE: Final = [
    "xai/grok-imagine-image-2.0",
    "fal/fal-ai/flux-pro/v1/fill",
    "stability/inpaint",
    "ideogram/ideogram-v3",
    "recraft/recraftv3",
]
OPEN_IS: Final = {"fal": 255, "stability": 255, "ideogram": 0, "recraft": 255}
"""What marks the pixels to be changed: white, but black at one of them."""


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Generator[Providers]:
    """Four providers that take masks, each in its own way, behind one that takes none."""
    upstreams = "".join(f'[[upstreams]]\nname = "{name}"\napi_key = "${{KEY}}"\n' for name in MASKED)
    source = f'{upstreams}[routes]\n"masked" = {MASKED_ROUTE}\n[policy]\nretries = 0\n'
    said = dict.fromkeys(MASKED, b'{"error": {"message": "Too many requests."}}')
    with ExitStack() as stack:
        yield started(stack, tmp_path_factory.mktemp("masked"), source, MASKED, said)


@pytest.mark.parametrize("name", OPEN_IS)
def test_a_mask_is_made_anew_for_each(masked: Providers, name: str) -> None:
    """The one that takes none is never asked, and each of the others gets the same area in its own colours."""
    masked.only(name)
    image, mask = picture(1, 64), mask_for(64)
    answer = masked.client.images.with_raw_response.edit(
        model="masked", prompt=HAT, image=("hat.png", image, "image/png"), mask=("mask.png", mask, "image/png")
    )
    posts = masked.posts()
    assert answer.headers["imagegate-upstream"] == name
    assert list(posts) == list(OPEN_IS)[: list(OPEN_IS).index(name) + 1]
    with Image.open(io.BytesIO(mask)) as opened:
        alpha = opened.getchannel("A")
        places = [next((x, y) for x in range(64) for y in range(64) if alpha.getpixel((x, y)) == a) for a in (0, 255)]
    for each, post in posts.items():
        sent = mask_of(post)
        assert [sent.getpixel(place) for place in places] == [OPEN_IS[each], 255 - OPEN_IS[each]]


def mask_of(post: Post) -> Image.Image:
    """The mask of a request, of a form or in a data URL."""
    parts = [part.content for part in post.parts if part.name == "mask"]
    content = parts[0] if parts else base64.b64decode(post.json["mask_url"].partition(",")[2])
    return Image.open(io.BytesIO(content)).convert("L")
