"""Images in exactly the size and format asked for (``policy.exact_size``, ``exact_format``), on real sockets."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.types import Receive, Scope, Send
from tests.wire.edit_support import until

from imagegate import ExchangeRecord, ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving


def image(width: int, height: int, form: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """Half red, half blue from top to bottom; transparent where the mode has it."""
    colours = {"RGB": ((255, 0, 0), (0, 0, 255)), "RGBA": ((255, 0, 0, 0), (0, 0, 255, 255))}[mode]
    drawn, output = Image.new(mode, (width, height), colours[0]), io.BytesIO()
    drawn.paste(colours[1], (0, height // 2, width, height))
    drawn.save(output, form, **options)
    return output.getvalue()


def moving() -> bytes:
    frames, output = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")], io.BytesIO()
    frames[0].save(output, "WEBP", save_all=True, append_images=frames[1:])
    return output.getvalue()


def noisy(size: int) -> bytes:
    output = io.BytesIO()
    Image.effect_noise((size, size), 90).convert("RGB").save(output, "PNG")
    return output.getvalue()


IMAGES = {
    "as asked": image(1024, 1024),
    "square": image(1254, 1254),
    "wide": image(1536, 1024),
    "clear": image(1254, 1254, mode="RGBA"),
    "large": noisy(1254),
    "broken": image(1254, 1254)[:-2000],
    "moving": moving(),
    "huge": image(7000, 7000),
    "profile": image(1254, 1254, icc_profile=b"a profile of colours"),
}


class Provider:
    """Answers with the image that the prompt names, as base64, or as a link where it says so; counts."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            content = IMAGES[scope["path"].rpartition("/")[2].replace("%20", " ")]
            await self._answer(send, content, b"image/png")
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(json.loads(body))
        name, _, how = self.bodies[-1]["prompt"].partition(" by ")
        if how == "link":
            host = dict(scope["headers"])[b"host"].decode()
            made: dict[str, Any] = {"url": f"http://{host}/{name}"}
        else:
            made = {"b64_json": base64.b64encode(IMAGES[name]).decode()}
        count = self.bodies[-1].get("n", 1)
        if " says " in self.bodies[-1]["prompt"]:
            made |= {"width": 1254, "height": 1254, "content_type": "image/png", "seed": 7}
        document = {"created": 1, "data": [made] * count, "usage": {"total_tokens": 7}}
        if " says " in self.bodies[-1]["prompt"]:
            document |= {"size": "1254x1254", "output_format": "png"}
        await self._answer(send, json.dumps(document).encode(), b"application/json")

    async def _answer(self, send: Send, content: bytes, kind: bytes) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": content})


class Rig:
    def __init__(self, url: str, provider: Provider, folder: Path, records: list[ExchangeRecord]) -> None:
        self.url, self.provider, self.folder, self.records = url, provider, folder, records

    def ask(self, name: str, form: str = "b64_json", **members: Any) -> httpx.Response:
        document = {"model": "openai/gpt-image-2", "prompt": name, "response_format": form, **members}
        return httpx.post(f"{self.url}/v1/images/generations", json=document, timeout=30)

    def images(self, reply: httpx.Response) -> list[bytes]:
        assert reply.status_code == 200, reply.text
        return [
            httpx.get(each["url"]).content if "url" in each else base64.b64decode(each["b64_json"])
            for each in reply.json()["data"]
        ]


class Keep:
    def __init__(self) -> None:
        self.records: list[ExchangeRecord] = []

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def rig(folder: Path, policy: str) -> Iterator[Rig]:
    provider, keep = Provider(), Keep()
    with serving(provider) as port:
        config = parse_config(
            '[prices.models."openai/gpt-image-2"]\nmegapixel = 1\n'
            f'[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "k"\n'
            f'[policy]\n{policy}\n[delivery]\nstore = "file://{folder / "images"}"\n'
        )
        with serving(ImageGateway(config=config, hooks=[keep])) as own:
            yield Rig(f"http://127.0.0.1:{own}", provider, folder, keep.records)


@pytest.fixture(scope="module")
def resizing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("resize"), 'exact_size = "resize"\nexact_format = true') as running:
        yield running


@pytest.fixture(scope="module")
def cropping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("crop"), 'exact_size = "crop"') as running:
        yield running


def opened(content: bytes) -> Image.Image:
    found = Image.open(io.BytesIO(content))
    found.load()
    return found


def from_b64(rig: Rig, name: str) -> tuple[httpx.Response, bytes]:
    reply = rig.ask(name, size="1024x1024")
    return reply, rig.images(reply)[0]


def from_url(rig: Rig, name: str) -> tuple[httpx.Response, bytes]:
    reply = rig.ask(name, "url", size="1024x1024")
    return reply, rig.images(reply)[0]


def from_link(rig: Rig, name: str) -> tuple[httpx.Response, bytes]:
    reply = rig.ask(f"{name} by link", "url", size="1024x1024")
    return reply, rig.images(reply)[0]


def from_stream(rig: Rig, name: str) -> tuple[httpx.Response, bytes]:
    reply = rig.ask(name, size="1024x1024", stream=True, partial_images=2)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text.count("event: ") == 1
    assert "partial_images;dropped" in reply.headers["imagegate-changes"]
    return reply, base64.b64decode(re.findall(r'"b64_json":"([^"]+)"', reply.text)[0])


WAYS = (from_b64, from_url, from_link, from_stream)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", ["square", "large", "as asked"])
def test_resized(resizing: Rig, way: Callable[[Rig, str], tuple[httpx.Response, bytes]], name: str) -> None:
    """Whatever the provider returns, and in whatever form; what is right already passes byte for byte."""
    reply, content = way(resizing, name)
    assert opened(content).size == (1024, 1024)
    changes = reply.headers.get("imagegate-changes", "")
    if name == "as asked":
        assert content == IMAGES[name]
        assert "converted" not in changes
    else:
        assert 'size;from="1254x1254";converted="1024x1024"' in changes
    assert ";made=" not in changes
    until(lambda: resizing.records and resizing.records[-1].images_delivered == 1)
    assert resizing.records[-1].sizes_made == ("1024x1024",)
    made = 1024 if name == "as asked" else 1254
    assert resizing.records[-1].cost == pytest.approx(made * made / 1_000_000)  # what the provider made


def test_cropped(cropping: Rig) -> None:
    """Proportions are kept, what is too long is cut evenly; ``resize`` would have squeezed."""
    reply = cropping.ask("wide", size="1024x1024")
    made = opened(cropping.images(reply)[0])
    assert made.size == (1024, 1024)
    assert [made.getpixel((512, y)) for y in (10, 1010)] == [(255, 0, 0), (0, 0, 255)]
    assert 'size;from="1536x1024";converted="1024x1024"' in reply.headers["imagegate-changes"]


@pytest.mark.parametrize("asked", ["webp", "jpeg", "png"])
@pytest.mark.parametrize("form", ["b64_json", "url"])
def test_formats(resizing: Rig, asked: str, form: str) -> None:
    reply = resizing.ask("clear", form, size="1024x1024", output_format=asked, output_compression=80)
    made = opened(resizing.images(reply)[0])
    assert (made.format or "").lower() == asked
    if asked == "jpeg":
        assert made.getpixel((5, 5)) == pytest.approx((255, 255, 255), abs=6), "what was transparent is white"
    else:
        assert made.mode == "RGBA" and made.getpixel((5, 5))[3] == 0
    expected = {"jpeg": "jpg"}.get(asked, asked)
    assert (f'output_format;from="png";converted="{expected}"' in reply.headers["imagegate-changes"]) == (
        asked != "png"
    )


@pytest.mark.parametrize("form", ["b64_json", "url"])
def test_the_reply_says_what_the_client_gets(resizing: Rig, form: str) -> None:
    """What a provider says of its image does not hold for the converted one."""
    reply = resizing.ask("square by base64 says all", form, size="1024x1024", output_format="webp").json()
    (image,) = reply["data"]
    said = {"width": 1024, "height": 1024, "content_type": "image/webp", "seed": 7}
    assert {name: value for name, value in image.items() if name not in ("url", "b64_json")} == said
    assert (reply["size"], reply["output_format"]) == ("1024x1024", "webp")


def test_several_images_and_their_usage(resizing: Rig) -> None:
    reply = resizing.ask("square", "url", size="1024x1024", n=3)
    assert [opened(each).size for each in resizing.images(reply)] == [(1024, 1024)] * 3
    assert reply.json()["usage"] == {"total_tokens": 7}
    assert reply.headers["imagegate-changes"].count("converted") == 1


@pytest.mark.parametrize("name", ["broken", "moving", "huge"])
def test_what_cannot_be_converted_is_delivered_as_it_is(resizing: Rig, name: str) -> None:
    """It is paid for; its size is disclosed as it was made."""
    reply = resizing.ask(name, size="1024x1024")
    assert resizing.images(reply) == [IMAGES[name]]
    changes = reply.headers["imagegate-changes"]
    assert "converted" not in changes and ';made="' in changes


@pytest.mark.parametrize("members", [{}, {"size": "auto"}, {"size": "1:1"}])
def test_what_asks_for_nothing_exact_is_untouched(resizing: Rig, members: dict[str, Any]) -> None:
    assert resizing.images(resizing.ask("square", **members)) == [IMAGES["square"]]


def test_the_colour_profile_stays(resizing: Rig) -> None:
    made = opened(resizing.images(resizing.ask("profile", size="1024x1024"))[0])
    assert made.info["icc_profile"] == b"a profile of colours"


def test_a_task(resizing: Rig) -> None:
    poll = resizing.ask("square", "url", size="1024x1024", **{"async": True}).json()["poll_url"]
    until(lambda: httpx.get(resizing.url + poll).json()["status"] == "completed")
    done = httpx.get(resizing.url + poll).json()
    assert opened(httpx.get(done["data"][0]["url"]).content).size == (1024, 1024)


def test_nothing_stays_behind(resizing: Rig) -> None:
    """Neither in the spool nor, where base64 was asked for, in the store."""
    before = len(list((resizing.folder / "images").glob("*.png")))
    for _ in range(3):
        resizing.images(resizing.ask("large", size="1024x1024"))
    assert len(list((resizing.folder / "images").glob("*.png"))) == before


def test_off_by_default(tmp_path: Path) -> None:
    with rig(tmp_path, "") as running:
        reply = running.ask("square", size="1024x1024")
        assert running.images(reply) == [IMAGES["square"]]
        assert 'size;from="1024x1024";made="1254x1254"' in reply.headers["imagegate-changes"]
