"""Replies of many megabytes through a gateway process of its own: flat memory, whole pictures, clean failures."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.waiting import until
from tests.wire.edit_support import Process, gateway_process, large_picture, sha

from imagegate.demo.servers import serving

pytestmark = pytest.mark.memory

MIB = 1024 * 1024
GENERATIONS = "/v1/images/generations"
SIZE, IMAGES = 20_000_000, 10
CHUNK = 256 * 1024


class LargeUpstream:
    """Answers with base64 that is made while it is sent, so that the tests' own process stays small."""

    def __init__(self) -> None:
        self.posts = 0
        self.size = SIZE
        self.images = IMAGES
        self.cut_after: int | None = None
        """Bytes of the reply after which the connection is dropped."""
        self.tail = b"]}"
        self.between = b'"},{"revised_prompt":"B\\u00e9","b64_json":"'
        self.content_length = True
        self.body: bytes | None = None
        """The whole reply, where it is another one."""

    def picture(self, number: int) -> bytes:
        return large_picture(self.size, number)[: self.size]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            await self._file(scope["path"], send)
            return
        self.posts += 1
        while (await receive()).get("more_body"):
            pass
        head = b'{"created":7,"usage":{"total_tokens":11},"size":"256x256","data":[{"b64_json":"'
        encoded = [base64.b64encode(self.picture(number)) for number in range(self.images)]
        pieces = [head, *join(self.between, encoded), b'"}', self.tail] if self.body is None else [self.body]
        length = sum(map(len, pieces))
        headers = [(b"content-type", b"application/json")]
        if self.content_length:
            headers.append((b"content-length", str(length).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sent = 0
        for piece in pieces:
            for start in range(0, len(piece), CHUNK):
                chunk = piece[start : start + CHUNK]
                if self.cut_after is not None and sent + len(chunk) > self.cut_after:
                    raise ConnectionError("cut by the test")
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                sent += len(chunk)
        await send({"type": "http.response.body", "body": b""})

    async def _file(self, path: str, send: Send) -> None:
        body = self.picture(int(path.rpartition("/")[2]))
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(body), CHUNK):
            more = start + CHUNK < len(body)
            await send({"type": "http.response.body", "body": body[start : start + CHUNK], "more_body": more})


def join(between: bytes, pieces: list[bytes]) -> Iterator[bytes]:
    for place, piece in enumerate(pieces):
        if place:
            yield between
        yield piece


class LinkingUpstream(LargeUpstream):
    """Answers with links to the same pictures."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] == "GET":
            await super().__call__(scope, receive, send)
            return
        self.posts += 1
        while (await receive()).get("more_body"):
            pass
        body = json.dumps({"created": 7, "data": [{"url": f"/files/{number}"} for number in range(self.images)]})
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body.encode()})


@pytest.fixture(scope="module", params=[LargeUpstream, LinkingUpstream], ids=["base64", "links"])
def any_upstream(request: pytest.FixtureRequest) -> Iterator[tuple[LargeUpstream, int]]:
    upstream = request.param()
    with serving(upstream) as port:
        yield upstream, port


@pytest.fixture(scope="module")
def upstream_port() -> Iterator[tuple[LargeUpstream, int]]:
    upstream = LargeUpstream()
    with serving(upstream) as port:
        yield upstream, port


@pytest.fixture
def upstream(upstream_port: tuple[LargeUpstream, int]) -> LargeUpstream:
    upstream, _ = upstream_port
    upstream.__init__()  # type: ignore[misc]
    upstream.size, upstream.images = 3_000_000, 2
    return upstream


def write_config(folder: Path, port: int, more: str = "") -> Path:
    config = folder / "imagegate.toml"
    config.write_text(
        f'[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "sk-any-key"\n'
        f'[policy]\nbreaker_failures = 0\n[delivery]\nstore = "file://{folder}/images"\n{more}'
    )
    return config


@pytest.fixture(scope="module")
def gateway(upstream_port: tuple[LargeUpstream, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with gateway_process(write_config(tmp_path_factory.mktemp("large"), upstream_port[1])) as process:
        yield process


def ask(gateway: Process, form: str, n: int, **members: Any) -> contextlib.AbstractContextManager[httpx.Response]:
    document = {"model": "openai/dall-e-2", "prompt": "A kite", "response_format": form, "n": n, **members}
    return httpx.stream("POST", gateway.url + GENERATIONS, json=document, timeout=120)


def hashes_in(reply: httpx.Response) -> list[str]:
    """SHA-256 of each picture, read while the reply comes in."""
    hashes: list[str] = []
    digest: Any = None
    carry = ""
    for text in reply.iter_text():
        carry += text
        while carry:
            if digest is None:
                _, found, rest = carry.partition('"b64_json":"')
                if not found:
                    carry = carry[-12:]
                    break
                carry, digest, left = rest, hashlib.sha256(), ""
            encoded, ended, rest = carry.partition('"')
            encoded = left + encoded
            whole = len(encoded) if ended else len(encoded) - len(encoded) % 4
            digest.update(base64.b64decode(encoded[:whole]))
            left, carry = encoded[whole:], rest
            if not ended:
                break
            hashes.append(digest.hexdigest())
            digest = None
    return hashes


@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_five_pictures_of_twenty_megabytes(any_upstream: tuple[LargeUpstream, int], tmp_path: Path, form: str) -> None:
    """270 MB pass in either form, from base64 and from links, and the process hardly grows."""
    upstream, port = any_upstream
    links_come = isinstance(upstream, LinkingUpstream)
    may_grow = 24 * MIB if form == "url" else 16 * MIB if links_come else 8 * MIB
    wanted = [sha(upstream.picture(number)) for number in range(IMAGES)]
    with gateway_process(write_config(tmp_path, port)) as process:
        upstream.size, upstream.images = 1000, 1
        with ask(process, form, 1) as reply:
            assert json.loads(reply.read())["data"]
        upstream.size, upstream.images = SIZE, IMAGES
        before = process.memory("VmHWM")
        with ask(process, form, IMAGES) as reply:
            assert reply.status_code == 200
            if form == "b64_json":
                assert "content-length" in reply.headers
                hashes = hashes_in(reply)
            else:
                document = json.loads(reply.read())
        grown = process.memory("VmHWM") - before
        if form == "url":
            assert links_come or (document["usage"], document["size"]) == ({"total_tokens": 11}, "256x256")
            assert links_come or [item.get("revised_prompt") for item in document["data"]][:2] == [None, "Bé"]
            links = [item["url"] for item in document["data"]]
            hashes = [sha(httpx.get(link, timeout=60).content) for link in links]
        assert hashes == wanted
        assert grown < may_grow


def breaks_off(gateway: Process, n: int) -> bool:
    """Whether an answer in base64 begins, and is no JSON: SDKs would ask again for one that is hung up on."""
    with ask(gateway, "b64_json", n) as reply:
        assert reply.status_code == 200
        body = reply.read()  # raises where it is not as long as announced
    with contextlib.suppress(json.JSONDecodeError):
        json.loads(body)
        return False
    return b'\n{"error":{"message":' in body


def stored(gateway: Process) -> list[Path]:
    """All files of the store, parts of pictures among them."""
    return [path for path in gateway.folder.glob("images/*") if not path.name.startswith(".")]


@pytest.mark.parametrize("content_length", [True, False])
def test_base64_goes_on_byte_for_byte(gateway: Process, upstream: LargeUpstream, content_length: bool) -> None:
    """A large reply in OpenAI's shape is the provider's own, to the last byte; blanks may follow it."""
    upstream.content_length = content_length
    with ask(gateway, "b64_json", 2) as reply:
        body = reply.read()
        assert reply.headers.get("content-length") == (str(len(body)) if content_length else None)
    encoded = [base64.b64encode(upstream.picture(number)) for number in range(2)]
    head = b'{"created":7,"usage":{"total_tokens":11},"size":"256x256","data":[{"b64_json":"'
    assert body.rstrip(b" ") == head + upstream.between.join(encoded) + b'"}' + upstream.tail
    assert upstream.posts == 1


@pytest.mark.parametrize(
    "first",
    [
        {"b64_json": "data:image/png;base64,PICTURE"},
        {"b64_json": "LINES"},
        {"url": "data:image/png;base64,PICTURE"},
        {"url": "/files/0", "b64_json": "PICTURE"},
        {"url": "/files/0"},
    ],
    ids=["data URL in b64_json", "line breaks", "data URL", "both forms", "link before base64"],
)
@pytest.mark.parametrize("form", ["b64_json", "url"])
def test_what_is_not_quite_openais_form_becomes_it(
    gateway: Process, upstream: LargeUpstream, first: dict[str, str], form: str
) -> None:
    """A client that decodes strictly gets what it would get of a small reply."""
    encoded = [base64.b64encode(upstream.picture(number)).decode() for number in range(2)]
    lines = "\r\n".join(encoded[0][start : start + 76] for start in range(0, len(encoded[0]), 76))
    item = {name: text.replace("PICTURE", encoded[0]).replace("LINES", lines) for name, text in first.items()}
    upstream.body = json.dumps({"created": 7, "data": [item, {"b64_json": encoded[1]}]}).encode()
    with ask(gateway, form, 2) as reply:
        images = json.loads(reply.read())["data"]
    assert [set(image) for image in images] == [{form}] * 2
    made = [
        base64.b64decode(image[form], validate=True) if form == "b64_json" else httpx.get(image[form]).content
        for image in images
    ]
    assert [sha(picture) for picture in made] == [sha(upstream.picture(number)) for number in range(2)]


def test_the_size_that_was_made_is_disclosed(gateway: Process, upstream: LargeUpstream) -> None:
    """What the pictures' own heads say counts: in a header where it is known in time, and for both forms."""
    for form in ("b64_json", "url"):
        with ask(gateway, form, 2, size="512x512") as reply:
            reply.read()
        assert reply.headers["imagegate-changes"] == 'size;from="512x512";made="256x256"'
        with ask(gateway, form, 2, size="256x256") as reply:
            reply.read()
        assert "imagegate-changes" not in reply.headers


def test_a_reply_that_is_cut_lists_what_was_made(gateway: Process, upstream: LargeUpstream) -> None:
    """Links are wanted: an error that forbids another try, with links to the pictures that came in whole."""
    upstream.cut_after = 5_000_000
    before = len(stored(gateway))
    with ask(gateway, "url", 2) as reply:
        error = json.loads(reply.read())["error"]
    assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")
    assert error["code"] == "upstream_uncertain"
    (made,) = error["imagegate"]["data"]
    assert sha(httpx.get(made["url"]).content) == sha(upstream.picture(0))
    assert upstream.posts == 1
    assert len(stored(gateway)) == before + 1


@pytest.mark.parametrize("content_length", [True, False])
def test_a_cut_reply_in_base64(gateway: Process, upstream: LargeUpstream, content_length: bool) -> None:
    """Its answer is as long as announced, and no JSON: who hangs up is asked again by the official SDKs."""
    upstream.cut_after = 5_000_000
    upstream.content_length = content_length
    assert breaks_off(gateway, 2)
    with ask(gateway, "b64_json", 2) as reply:
        lines = reply.read().rstrip(b" ").split(b"\n")
    assert len(lines) == 2
    assert json.loads(lines[1])["error"]["code"] == "upstream_uncertain"
    upstream.cut_after = None
    with ask(gateway, "b64_json", 2) as reply:
        assert len(json.loads(reply.read())["data"]) == 2  # nothing is left over on the connection


@pytest.mark.parametrize("content_length", [True, False])
@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_text_behind_the_document(gateway: Process, upstream: LargeUpstream, form: str, content_length: bool) -> None:
    """The pictures are delivered, and it is left out."""
    upstream.tail = b"]}" + 5000 * b"\n" + b'"]\nreal 0m2s {"x": 1}\n' + 100_000 * b"-"
    upstream.content_length = content_length
    with ask(gateway, form, 2) as reply:
        assert reply.status_code == 200
        images = json.loads(reply.read())["data"]
    assert len(images) == 2
    if form == "b64_json":
        assert [sha(base64.b64decode(image["b64_json"])) for image in images] == [
            sha(upstream.picture(at)) for at in range(2)
        ]
    assert upstream.posts == 1


@pytest.mark.parametrize("content_length", [True, False])
@pytest.mark.parametrize("tail", [b"]", b'],"x":}'])
def test_a_reply_that_ends_badly(gateway: Process, upstream: LargeUpstream, tail: bytes, content_length: bool) -> None:
    """Links are wanted: the error of a reply that cannot be used. Base64 is: never a whole answer."""
    upstream.tail = tail
    upstream.content_length = content_length
    before = len(stored(gateway))
    with ask(gateway, "url", 2) as reply:
        error = json.loads(reply.read())["error"]
    assert reply.status_code == 502
    assert len(stored(gateway)) <= before + 2
    assert b"b64_json" not in json.dumps(error).encode()
    assert breaks_off(gateway, 2)
    assert upstream.posts == 2


def test_fewer_pictures_than_asked(gateway: Process, upstream: LargeUpstream) -> None:
    """Two of three: an error that lists them, or an answer that breaks off before its end."""
    with ask(gateway, "url", 3) as reply:
        error = json.loads(reply.read())["error"]
    assert (reply.status_code, error["code"], len(error["imagegate"]["data"])) == (502, "fewer_images", 2)
    assert breaks_off(gateway, 3)


@pytest.mark.parametrize("between", [b'!"},{"b64_json":"', b'\n"},{"b64_json":"AAAA'])
def test_broken_base64_and_no_image(gateway: Process, upstream: LargeUpstream, between: bytes) -> None:
    """A picture that cannot be read fails the request; nothing of it can be fetched."""
    upstream.between = between
    with ask(gateway, "url", 2) as reply:
        error = json.loads(reply.read())["error"]
    assert (reply.status_code, error["code"]) == (502, "upstream_uncertain")
    assert not [path for path in stored(gateway) if path.name.endswith(".partial")]


def test_a_client_that_leaves_stops_the_provider(gateway: Process, upstream: LargeUpstream) -> None:
    """In the midst of a relayed reply and of one on its way to the store; nothing half stays in the store."""
    upstream.size = 30_000_000
    for form in ("b64_json", "url"):
        with contextlib.suppress(httpx.ReadTimeout):
            document = {"model": "openai/dall-e-2", "prompt": "A kite", "response_format": form, "n": 2}
            with httpx.stream("POST", gateway.url + GENERATIONS, json=document, timeout=0.05) as reply:
                next(reply.iter_raw(1000))
    until(lambda: not [path for path in stored(gateway) if path.name.endswith(".partial")])
    until(lambda: gateway.log.count('"status": 499') + gateway.log.count("client_disconnected") >= 2)
