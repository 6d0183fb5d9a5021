"""Pictures in the form that the client asked for, whatever the provider answers with and whatever the store does."""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import httpx
import openai
import pytest
from PIL import Image
from starlette.types import Receive, Scope, Send

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving
from imagegate.stores import Links


def picture(form: str = "PNG", shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, form)
    return buffer.getvalue()


PNG = picture()
ENCODED = base64.b64encode(PNG).decode()
FORMATS = {
    "png": (PNG, "image/png"),
    "jpg": (picture("JPEG"), "image/jpeg"),
    "webp": (picture("WEBP"), "image/webp"),
    "gif": (picture("GIF"), "image/gif"),
    "avif": (b"\0\0\0\x1cftypavif" + bytes(32), "image/avif"),
    "svg": (b'<?xml version="1.0"?>\n<svg><script>alert(1)</script></svg>', "image/svg+xml"),
}


class Provider:
    """Answers every POST with `reply`, in which ``<own>`` is its own origin, and serves files to whoever asks."""

    def __init__(self) -> None:
        self.reply: dict[str, Any] = {}
        self.files: dict[str, tuple[int, bytes]] = {}
        self.posts = 0
        self.gets: list[tuple[str, dict[str, str]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if scope["method"] == "POST":
            self.posts += 1
            while (await receive()).get("more_body"):
                pass
            body = json.dumps(self.reply).replace("<own>", f"http://{headers['host']}").encode()
            await self._answer(send, 200, body, b"application/json")
            return
        self.gets.append((scope["path"], headers))
        status, body = self.files.get(scope["path"], (404, b"Not here."))
        await self._answer(send, status, body, b"application/octet-stream")

    async def _answer(self, send: Send, status: int, body: bytes, content_type: bytes) -> None:
        length = str(len(body)).encode()
        location = [(b"location", body)] if 300 <= status < 400 else []
        headers = [(b"content-type", content_type), (b"content-length", length), *location]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def links(self, *paths: str) -> None:
        self.reply = {"created": 1, "data": [{"url": path} for path in paths]}


@pytest.fixture(scope="module")
def provider_port() -> Iterator[tuple[Provider, int]]:
    provider = Provider()
    with serving(provider) as port:
        yield provider, port


@pytest.fixture
def provider(provider_port: tuple[Provider, int]) -> Provider:
    provider, _ = provider_port
    provider.__init__()  # type: ignore[misc]
    provider.files = {f"/files/{name}": (200, content) for name, (content, _) in FORMATS.items()}
    return provider


@contextlib.contextmanager
def gateway(port: int, delivery: str, **limits: int) -> Iterator[tuple[str, ImageGateway]]:
    """A gateway in front of the provider: the URL of generations, and itself."""
    document = f"""
        [[upstreams]]
        name = "openai"
        base_url = "http://127.0.0.1:{port}"
        api_key = "sk-key-of-the-gateway"
        [delivery]
        {delivery}
        [limits]
        {" ".join(f"{name} = {value}" for name, value in limits.items())}
    """
    app = ImageGateway(config=parse_config(document), hooks=())
    with serving(app) as bound:
        yield f"http://127.0.0.1:{bound}/v1/images/generations", app


@pytest.fixture(scope="module", params=["file", "memory"])
def url(
    request: pytest.FixtureRequest, provider_port: tuple[Provider, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A gateway with either store; a picture may have 64 KiB."""
    store = "memory://" if request.param == "memory" else f"file://{tmp_path_factory.mktemp('store')}/below/images"
    with gateway(provider_port[1], f'store = "{store}"', image=64 * 1024) as (url, _):
        yield url


def post(url: str, form: str | None = None, *, model: str = "dall-e-2", **members: Any) -> httpx.Response:
    wanted = {} if form is None else {"response_format": form}
    return httpx.post(url, json={"model": model, "prompt": "A kite", **wanted, **members}, timeout=30)


def error_of(reply: httpx.Response, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text[:500]
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) - {"imagegate"} == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize("extension", FORMATS)
def test_base64_becomes_a_link(url: str, provider: Provider, extension: str) -> None:
    """A picture in base64 becomes a link that serves these bytes, under their true type, as nothing but a picture."""
    content, media_type = FORMATS[extension]
    encoded = base64.b64encode(content).decode()
    provider.reply = {"created": 5, "data": [{"b64_json": encoded, "revised_prompt": "A kite"}], "usage": {"total": 1}}
    reply = post(url, "url")
    (image,) = reply.json()["data"]
    assert (reply.json()["created"], reply.json()["usage"], image["revised_prompt"]) == (5, {"total": 1}, "A kite")
    assert encoded not in reply.text
    assert urlsplit(image["url"]).path.endswith(f".{extension}")
    loaded = httpx.get(image["url"])
    assert content == loaded.content
    assert media_type == loaded.headers["content-type"]
    assert loaded.headers["x-content-type-options"] == "nosniff"
    assert loaded.headers["content-security-policy"].startswith("default-src 'none'")
    assert "sandbox" in loaded.headers["content-security-policy"]
    assert "private" in loaded.headers["cache-control"]


def test_base64_stays_base64(url: str, provider: Provider) -> None:
    """A picture in base64 that is wanted so goes through unchanged."""
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}]}
    assert post(url, "b64_json").json()["data"] == [{"b64_json": ENCODED}]


@pytest.mark.parametrize("encoded", ["!!!not base64", ENCODED[:8] + "=" + ENCODED[9:], ENCODED.replace("A", ".", 1)])
@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_broken_base64_is_never_sent_on(url: str, provider: Provider, form: str, encoded: str) -> None:
    """In neither form: a client would have paid for a picture that it cannot read, and not know it."""
    provider.reply = {"created": 1, "data": [{"b64_json": encoded}]}
    reply = post(url, form)
    assert "base64" in error_of(reply, 502)["message"]
    assert reply.headers["x-should-retry"] == "false"


def test_missing_padding_is_added(url: str, provider: Provider) -> None:
    """Some providers leave it out, and most languages' decoders refuse what they leave."""
    encoded = base64.b64encode(PNG + b"\0" * (2 - len(PNG) % 3)).decode()
    assert encoded.endswith("=")
    provider.reply = {"created": 1, "data": [{"b64_json": encoded.rstrip("=")}]}
    assert post(url, "b64_json").json()["data"] == [{"b64_json": encoded}]


def test_link_stays_a_link(url: str, provider: Provider) -> None:
    """A link that is wanted so goes through unchanged, and is not fetched."""
    provider.links("https://images.example.com/a.png?sig=1")
    assert post(url, "url").json()["data"] == [{"url": "https://images.example.com/a.png?sig=1"}]
    assert provider.gets == []


@pytest.mark.parametrize("extension", FORMATS)
def test_link_becomes_base64(url: str, provider: Provider, extension: str) -> None:
    """A link of the provider's own becomes base64 of its bytes, and the key does not go with the question."""
    provider.links(f"<own>/files/{extension}")
    reply = post(url, "b64_json")
    (image,) = reply.json()["data"]
    assert set(image) == {"b64_json"}
    assert FORMATS[extension][0] == base64.b64decode(image["b64_json"], validate=True)
    (_, headers) = provider.gets[0]
    assert {"authorization", "cookie"} & set(headers) == set()


def test_relative_link_is_the_providers(url: str, provider: Provider) -> None:
    """A link without a host is one at the provider."""
    provider.links("/files/png")
    assert post(url, "b64_json").json()["data"] == [{"b64_json": ENCODED}]
    link = post(url, "url").json()["data"][0]["url"]
    assert httpx.get(link).content == PNG


def test_data_link_is_base64(url: str, provider: Provider) -> None:
    """A link that holds the picture itself counts as base64."""
    provider.links(f"data:image/png;base64,{ENCODED}")
    assert post(url, "b64_json").json()["data"] == [{"b64_json": ENCODED}]
    link = post(url, "url").json()["data"][0]["url"]
    assert link.startswith("http://")
    assert httpx.get(link).content == PNG


@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_mixed_replies(url: str, provider: Provider, form: str) -> None:
    """A reply of both forms reaches the client in one, in the provider's order."""
    second = picture(shade=200)
    provider.files["/files/second"] = (200, second)
    provider.reply = {
        "created": 1,
        "data": [{"b64_json": ENCODED}, {"url": "<own>/files/second"}, {"b64_json": ENCODED, "seed": 7}],
    }
    data = post(url, form, n=3).json()["data"]
    assert [{form}, {form}, {form, "seed"}] == [set(image) for image in data]
    pictures = [
        base64.b64decode(image["b64_json"]) if form == "b64_json" else httpx.get(image["url"]).content for image in data
    ]
    assert [PNG, second, PNG] == pictures


@pytest.mark.parametrize(
    ("model", "form"),
    [
        ("gpt-image-1", "b64_json"),
        ("openai/gpt-image-2", "b64_json"),
        ("chatgpt-image-latest", "b64_json"),
        ("dall-e-3", "url"),
    ],
)
def test_default_form_is_openais(url: str, provider: Provider, model: str, form: str) -> None:
    """Without a response_format the client gets what OpenAI would answer for the model that it named."""
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}]}
    assert [{form}] == [set(image) for image in post(url, model=model).json()["data"]]


def test_the_ai_sdk_gets_what_it_can_read(url: str, provider: Provider) -> None:
    """It names no form where it edits, and takes no link for an answer."""
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}]}
    agent = {"user-agent": "ai/6.0.326 ai-sdk/provider-utils/4.0.66 runtime/node.js/v22"}
    asked = {"model": "dall-e-3", "prompt": "a hat"}
    for members, form in (({}, "b64_json"), ({"response_format": "url"}, "url")):
        reply = httpx.post(url, json=asked | members, headers=agent)
        assert [{form}] == [set(image) for image in reply.json()["data"]]


def test_configured_default_form(provider_port: tuple[Provider, int], provider: Provider) -> None:
    """``delivery.default`` is the form where a request names none."""
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}]}
    with gateway(provider_port[1], 'store = "memory://"\ndefault = "url"') as (url, _):
        assert "url" in post(url, model="gpt-image-1").json()["data"][0]
        assert "b64_json" in post(url, "b64_json", model="gpt-image-1").json()["data"][0]


@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_more_images_are_disclosed(url: str, provider: Provider, form: str) -> None:
    """A provider that makes more images than asked for is found out in the changes header; none is thrown away."""
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}] * 5}
    reply = post(url, form, n=3)
    assert len(reply.json()["data"]) == 5
    assert reply.headers["imagegate-changes"] == "n;from=3;to=5"


@pytest.mark.parametrize("form", ["url", "b64_json"])
@pytest.mark.parametrize("made", [1, 2])
def test_fewer_images_are_an_error(url: str, provider: Provider, form: str, made: int) -> None:
    """A provider that makes fewer images than asked for: an error that names n, with links to what was made."""
    second = picture(shade=200)
    provider.files["/files/second"] = (200, second)
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}, {"url": "<own>/files/second"}][:made]}
    reply = post(url, form, n=3)
    error = error_of(reply, 502)
    assert (error["param"], error["code"], reply.headers["x-should-retry"]) == ("n", "fewer_images", "false")
    assert error["imagegate"]["images_made"] == made
    links = [image["url"] for image in error["imagegate"]["data"]]
    assert [PNG, second][:made] == [httpx.get(link).content for link in links]
    assert ENCODED not in reply.text


# Links


def test_links_are_signed(url: str, provider: Provider) -> None:
    """A link opens one picture until it expires; with any part changed it opens nothing."""
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}] * 2}
    first, second = (image["url"] for image in post(url, "url", n=2).json()["data"])
    parts, other = urlsplit(first), urlsplit(second)
    assert parts.path != other.path
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert set(query) == {"expires", "signature"}
    forged = {
        "no query": parts._replace(query=""),
        "no signature": parts._replace(query=f"expires={query['expires']}"),
        "later": parts._replace(query=f"expires={int(query['expires']) + 1}&signature={query['signature']}"),
        "other picture": other._replace(query=parts.query),
        "other signature": parts._replace(query=parts.query[:-1] + ("0" if parts.query[-1] != "0" else "1")),
        "empty signature": parts._replace(query=f"expires={query['expires']}&signature="),
        "two signatures": parts._replace(query=f"{parts.query}&signature=0"),
        "traversal": parts._replace(path="/images/..%2F" + parts.path.rpartition("/")[2]),
        "deeper": parts._replace(path="/images/x/" + parts.path.rpartition("/")[2]),
        "secret": parts._replace(path="/images/.link-secret"),
    }
    elsewhere = ("no query", "no signature", "traversal", "deeper", "secret")  # no links of the gateway's at all
    for name, changed in forged.items():
        reply = httpx.get(urlunsplit(changed))
        expected = (404, "unknown_url") if name in elsewhere else (403, "link_invalid")
        assert expected == (reply.status_code, reply.json()["error"]["code"]), name
    assert [httpx.get(link).content for link in (first, second)] == [PNG, PNG]


def test_links_expire(provider_port: tuple[Provider, int], provider: Provider) -> None:
    """After ``link_ttl`` a link is refused although the picture may still be there."""
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}]}
    with gateway(provider_port[1], 'store = "memory://"\nlink_ttl = "1h"\nlink_secret = "secret-of-the-operator"') as (
        url,
        _,
    ):
        link = post(url, "url").json()["data"][0]["url"]
        base, _, key = link.partition("?")[0].rpartition("/")

        def made(seconds_ago: float) -> str:
            clock = Clock(-seconds_ago)
            return Links(lambda: b"secret-of-the-operator", ttl=3600, clock=clock).link(base, key)

        assert link in [made(seconds_ago) for seconds_ago in range(10)]
        assert httpx.get(made(3590)).status_code == 200
        reply = httpx.get(made(3601))
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "link_invalid")


class Clock:
    """Ahead of the true one, or behind."""

    def __init__(self, ahead: float) -> None:
        self._ahead = ahead

    def time(self) -> float:
        return time.time() + self._ahead

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead


def test_links_hold_in_another_gateway(provider_port: tuple[Provider, int], provider: Provider, tmp_path: Path) -> None:
    """Two gateways with one directory sign alike; after a restart links still open; another secret opens nothing."""
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}]}
    store = f'store = "file://{tmp_path}"'
    with gateway(provider_port[1], store) as (url, _):
        link = urlsplit(post(url, "url").json()["data"][0]["url"])
    with (
        gateway(provider_port[1], store) as (second, _),
        gateway(provider_port[1], f'{store}\nlink_secret = "another secret of the operator"') as (third, _),
    ):
        assert httpx.get(urlunsplit(link._replace(netloc=urlsplit(second).netloc))).content == PNG
        assert httpx.get(urlunsplit(link._replace(netloc=urlsplit(third).netloc))).status_code == 403


def test_a_picture_that_is_gone(provider_port: tuple[Provider, int], provider: Provider, tmp_path: Path) -> None:
    """A valid link to a picture that was removed is a 404."""
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}]}
    with gateway(provider_port[1], f'store = "file://{tmp_path}"') as (url, _):
        link = post(url, "url").json()["data"][0]["url"]
        (tmp_path / urlsplit(link).path.rpartition("/")[2]).unlink()
        reply = httpx.get(link)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")


def test_public_url(provider_port: tuple[Provider, int], provider: Provider) -> None:
    """Links lead to ``public_url`` where there is one, else to where the request came to."""
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}]}
    with gateway(provider_port[1], 'store = "memory://"\npublic_url = "https://cdn.example.com/a/b/"') as (url, _):
        assert post(url, "url").json()["data"][0]["url"].startswith("https://cdn.example.com/a/b/")
    named = 'store = "memory://"\n[access]\nallowed_hosts = ["images.example.com"]'
    with gateway(provider_port[1], named) as (url, _):
        headers = {"host": "images.example.com"}
        reply = httpx.post(url, json={"model": "dall-e-2", "prompt": "A kite"}, headers=headers)
        assert reply.json()["data"][0]["url"].startswith("http://images.example.com/images/")


# Stores that fail


def refuses_to_store(url: str, provider: Provider, status: int, code: str, *, retries: int = 1) -> httpx.Response:
    """Asks by the SDK, which tries again: one error, no order that is paid twice, and no base64 in the answer.

    Args:
        retries: 0 where the gateway asks for a pause before the next, which the SDK would make.
    """
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}]}
    before = provider.posts
    base = url.removesuffix("/images/generations")
    with (
        openai.OpenAI(base_url=base, api_key="any", max_retries=retries) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client.images.generate(model="dall-e-2", prompt="A kite", response_format="url")
    reply = caught.value.response
    assert (status, code) == (reply.status_code, error_of(reply, status)["code"])
    assert ENCODED[:40] not in reply.text
    if provider.posts > before:
        assert provider.posts == before + 1
        assert reply.headers.get("x-should-retry") == "false"
    return reply


@pytest.mark.parametrize("secret", ["", 'link_secret = "secret-of-the-operator"'])
def test_store_that_cannot_be_made(
    provider_port: tuple[Provider, int], provider: Provider, tmp_path: Path, secret: str
) -> None:
    """A store whose parent is a file fails the request, shows nothing of the path, and gives nobody base64."""
    (tmp_path / "file").write_text("no directory")
    with gateway(provider_port[1], f'store = "file://{tmp_path}/file/images"\n{secret}') as (url, _):
        reply = refuses_to_store(url, provider, 503, "store_unavailable", retries=0)
        assert str(tmp_path) not in reply.text
        assert (provider.posts, int(reply.headers["retry-after"]) > 0) == (0, True)


def test_store_without_a_secret(provider_port: tuple[Provider, int], provider: Provider, tmp_path: Path) -> None:
    """A secret that cannot be read fails the request before anything is paid for; base64 is not concerned."""
    (tmp_path / "images" / ".link-secret").mkdir(parents=True)
    with gateway(provider_port[1], f'store = "file://{tmp_path}/images"') as (url, _):
        refuses_to_store(url, provider, 503, "store_unavailable", retries=0)
        assert provider.posts == 0
        assert post(url, "b64_json").json()["data"] == [{"b64_json": ENCODED}]


def fails_to_write(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have the disk take half of whatever is written, and then fail."""

    def write_half(descriptor: int, pieces: Sequence[memoryview]) -> int:
        os.write(descriptor, pieces[0][: len(pieces[0]) // 2])
        raise OSError(number, "No room", "/srv/secret-path/images")

    monkeypatch.setattr(os, "writev", write_half)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_store_that_fails(
    provider_port: tuple[Provider, int],
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    number: int,
) -> None:
    """It is a 502 without a path; base64 that is wanted still goes through."""
    fails_to_write(monkeypatch, number)
    with gateway(provider_port[1], f'store = "file://{tmp_path}"') as (url, _):
        assert "secret-path" not in refuses_to_store(url, provider, 502, "storage_failed").text
        assert provider.posts == 1
        assert [file.name for file in tmp_path.iterdir()] == [".link-secret"]
        assert post(url, "b64_json").json()["data"] == [{"b64_json": ENCODED}]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_store_that_is_full(
    provider_port: tuple[Provider, int],
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    number: int,
) -> None:
    """What is paid for stays in memory and can be loaded; base64 still goes through."""
    fails_to_write(monkeypatch, number)
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}]}
    with gateway(provider_port[1], f'store = "file://{tmp_path}"') as (url, _):
        (image,) = post(url, "url").json()["data"]
        assert httpx.get(image["url"]).content == PNG
        assert [file.name for file in tmp_path.iterdir()] == [".link-secret"]
        assert post(url, "b64_json").json()["data"] == [{"b64_json": ENCODED}]


def test_all_pictures_or_none(
    provider_port: tuple[Provider, int], provider: Provider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where one of several pictures cannot be stored, the client gets the error and no half of a reply."""
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}, {"b64_json": base64.b64encode(b"x" * 99).decode()}]}
    with gateway(provider_port[1], f'store = "file://{tmp_path}"') as (url, _):
        reply = post(url, "url", n=2)
        assert error_of(reply, 502)
        assert "data" not in reply.json()


def test_memory_store_drops_the_oldest(provider_port: tuple[Provider, int], provider: Provider) -> None:
    """A store in memory that is full drops its oldest picture, whose link then leads to a 404."""
    provider.reply = {"created": 1, "data": [{"b64_json": ENCODED}]}
    with gateway(provider_port[1], f'store = "memory://"\nmax_bytes = {2 * len(PNG)}') as (url, _):
        links = [post(url, "url").json()["data"][0]["url"] for _ in range(3)]
        assert [httpx.get(link).status_code for link in links] == [404, 200, 200]


# Links that may not be fetched, or hold no picture


def refuses_to_fetch(url: str, provider: Provider, link: str) -> None:
    """Asks for base64 of a link: an error whose text names no address, and one order upstream."""
    provider.links(link)
    before = provider.posts
    reply = post(url, "b64_json")
    error = error_of(reply, 502)
    assert error["code"] in ("image_fetch_failed", "upstream_uncertain")
    assert [part for part in ("10.0.0.1", "127.0.0.1", "169.254") if part in error["message"]] == []
    assert (provider.posts, reply.headers.get("x-should-retry")) == (before + 1, "false")


@pytest.mark.parametrize("link", ["http://10.0.0.1/a.png", "<own>/files/missing"])
def test_sdk_does_not_pay_twice_for_a_link(url: str, provider: Provider, link: str) -> None:
    """The picture behind a link that cannot be read is paid for: the SDK, which tries again, orders it once."""
    provider.links(link)
    base = url.removesuffix("/images/generations")
    with (
        openai.OpenAI(base_url=base, api_key="any", max_retries=1) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client.images.generate(model="dall-e-2", prompt="A kite", response_format="b64_json")
    assert provider.posts == 1
    assert "data" not in caught.value.response.json()


PRIVATE = {
    "private": "http://10.0.0.1/a.png",
    "loopback": "http://127.0.0.1:1/a.png",
    "loopback by name": "http://localhost:1/a.png",
    "short": "http://127.1:1/a.png",
    "number": "http://2130706433:1/a.png",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "IPv6": "http://[::1]:1/a.png",
    "mapped": "http://[::ffff:10.0.0.1]/a.png",
    "credentials": "http://user:password@10.0.0.1/a.png",
}


@pytest.mark.parametrize("link", PRIVATE.values(), ids=PRIVATE)
def test_links_into_private_networks_are_not_fetched(url: str, provider: Provider, link: str) -> None:
    """A provider cannot make the gateway fetch from an address that is not public, however it is spelled."""
    refuses_to_fetch(url, provider, link)


def test_another_port_of_the_provider_is_another_origin(
    provider_port: tuple[Provider, int], url: str, provider: Provider
) -> None:
    """Trust ends at the provider's own origin: another port of its private address is refused unasked."""
    other = Provider()
    with serving(other) as port:
        refuses_to_fetch(url, provider, f"http://127.0.0.1:{port}/files/png")
    assert other.gets == []


def test_a_redirect_into_a_private_network(provider_port: tuple[Provider, int], url: str, provider: Provider) -> None:
    """A redirect away from the provider is checked like any other address."""
    other = Provider()
    with serving(other) as port:
        provider.files["/files/away"] = (302, f"http://127.0.0.1:{port}/files/png".encode())
        refuses_to_fetch(url, provider, "<own>/files/away")
    assert other.gets == []


@pytest.mark.parametrize("allow", ["127.0.0.1", "127.0.0.0/8", "localhost", "127.0.0.1:<port>"])
def test_fetch_allow(provider_port: tuple[Provider, int], provider: Provider, allow: str) -> None:
    """``delivery.fetch_allow`` opens single hosts, addresses and networks, and no others."""
    host = "localhost" if allow == "localhost" else "127.0.0.1"
    other = Provider()
    other.files["/kite.png"] = (200, PNG)
    with serving(other) as port:
        entry = allow.replace("<port>", str(port))
        with gateway(provider_port[1], f'store = "memory://"\nfetch_allow = ["{entry}"]') as (url, _):
            provider.links(f"http://{host}:{port}/kite.png")
            reply = post(url, "b64_json")
            assert reply.status_code == 200, reply.text
            assert reply.json()["data"] == [{"b64_json": ENCODED}]
            refuses_to_fetch(url, provider, "http://10.0.0.1/kite.png")


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("missing", None),
        ("page", (200, b"<!doctype html><title>Sign in</title>")),
        ("empty", (200, b"")),
        ("error", (500, b"no")),
        ("large", (200, PNG + bytes(64 * 1024))),
        ("redirect to nowhere", (302, b"")),
    ],
)
def test_links_without_a_picture(url: str, provider: Provider, path: str, file: tuple[int, bytes] | None) -> None:
    """A link that cannot be read, or holds no picture, fails the request."""
    if file is not None:
        provider.files[f"/files/{path}"] = file
    refuses_to_fetch(url, provider, f"<own>/files/{path.replace(' ', '%20')}")
