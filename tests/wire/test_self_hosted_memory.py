"""Pictures of many megabytes to and from self-hosted servers, through a gateway process of its own: flat memory."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.wire.edit_support import Process, gateway_process, large_picture, sha

from imagegate.demo.servers import serving

pytestmark = pytest.mark.memory

MIB = 1024 * 1024
SIZE, IMAGES = 20_000_000, 8
CHUNK = 256 * 1024
SMALL = 1000


def picture(number: int, size: int = SIZE) -> bytes:
    return large_picture(size, number)[:size]


class Server:
    """Makes its answers while it sends them, so that the tests' own process stays small."""

    def __init__(self) -> None:
        self.size, self.images = SMALL, 1
        self.received = 0
        self.digest = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        digest, self.received = hashlib.sha256(), 0
        while True:
            message = await receive()
            body = message.get("body", b"")
            digest.update(body)
            self.received += len(body)
            if not message.get("more_body"):
                break
        self.digest = digest.hexdigest()
        query = parse_qs(scope["query_string"].decode())
        media_type, pieces = self.answer(scope["path"], query)
        head = [(b"content-type", media_type), (b"content-length", str(sum(map(len, pieces))).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for piece in pieces:
            for start in range(0, len(piece), CHUNK):
                await send({"type": "http.response.body", "body": piece[start : start + CHUNK], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[bytes, list[bytes]]:
        raise NotImplementedError


class A1111(Server):
    """All pictures as strings of one list."""

    def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[bytes, list[bytes]]:
        pieces = [b'{"parameters":{},"info":"{}","images":["']
        for number in range(self.images):
            pieces += [base64.b64encode(picture(number, self.size)), b'","']
        return b"application/json", [*pieces[:-1], b'"]}']


class ComfyUI(Server):
    """A file for each picture."""

    def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[bytes, list[bytes]]:
        if path == "/view":
            return b"image/png", [picture(int(query["filename"][0].partition(".")[0]), self.size)]
        files = [{"filename": f"{n}.png", "subfolder": "", "type": "output"} for n in range(self.images)]
        job = {"status": "completed", "outputs": {"9": {"images": files}}}
        document: Any = {"prompt_id": "job"} if path == "/prompt" else {"id": "job", **job}
        return b"application/json", [json.dumps(document).encode()]


class Hosted(Server):
    """One picture for each request, another one each time."""

    def __init__(self) -> None:
        super().__init__()
        self._asked = 0

    def drawn(self) -> bytes:
        self._asked += 1
        return picture((self._asked - 1) % IMAGES, self.size)


class DeepInfra(Hosted):
    """Data URLs."""

    def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[bytes, list[bytes]]:
        pieces = [b'{"images":["data:image/png;base64,', base64.b64encode(self.drawn()), b'"],"seed":1}']
        return b"application/json", pieces


class Stability(Hosted):
    """Base64 in one member."""

    def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[bytes, list[bytes]]:
        pieces = [b'{"image":"', base64.b64encode(self.drawn()), b'","finish_reason":"SUCCESS","seed":1}']
        return b"application/json", pieces


class HuggingFace(Hosted):
    """Bytes."""

    def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[bytes, list[bytes]]:
        return b"image/png", [self.drawn()]


class LocalAI(Server):
    """Small pictures from large references."""

    def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[bytes, list[bytes]]:
        document = {"created": 1, "data": [{"b64_json": base64.b64encode(picture(0, SMALL)).decode()}]}
        return b"application/json", [json.dumps(document).encode()]


WORKFLOW = {"1": {"class_type": "Any", "inputs": {"text": "", "seed": 1, "batch": 1}}}
OPTIONS = """
[upstreams.options]
workflow = "workflow.json"
inputs = { prompt = "1.text", seed = "1.seed", n = "1.batch" }
"""


@contextmanager
def running(folder: Path, server: Server, adapter: str) -> Iterator[Process]:
    (folder / "workflow.json").write_text(json.dumps(WORKFLOW))
    options = OPTIONS if adapter == "comfyui" else ""
    with serving(server) as port:
        config = folder / "imagegate.toml"
        config.write_text(
            f'[[upstreams]]\nname = "own"\nadapter = "{adapter}"\nbase_url = "http://127.0.0.1:{port}"\n'
            f'api_key = "sk-own"\n{options}\n'
            f'[tasks]\npoll_interval = "50ms"\n[delivery]\nstore = "file://{folder}/images"\n'
        )
        with gateway_process(config) as process:
            yield process


def ask(process: Process, n: int, form: str, model: str = "default") -> Any:
    document = {"model": f"own/{model}", "prompt": "A kite", "response_format": form, "n": n}
    reply = httpx.post(f"{process.url}/v1/images/generations", json=document, timeout=120)
    assert reply.status_code == 200, reply.text[:500]
    return reply.json()["data"]


@pytest.mark.parametrize("form", ["url", "b64_json"])
@pytest.mark.parametrize(("adapter", "kind"), [("a1111", A1111), ("comfyui", ComfyUI)])
def test_large_replies(tmp_path: Path, adapter: str, kind: type[Server], form: str) -> None:
    """160 MB of pictures in one list of strings, or as files, in either form: the process hardly grows."""
    server = kind()
    with running(tmp_path, server, adapter) as process:
        assert len(ask(process, 1, form)) == 1
        server.size, server.images = SIZE, IMAGES
        before = process.memory("VmHWM")
        found = ask(process, IMAGES, form)
        grown = process.memory("VmHWM") - before
        if form == "url":
            hashes = [sha(httpx.get(item["url"], timeout=60).content) for item in found]
        else:
            hashes = [sha(base64.b64decode(item["b64_json"])) for item in found]
    assert hashes == [sha(picture(number)) for number in range(IMAGES)]
    assert grown < 24 * MIB


@pytest.mark.parametrize("form", ["url", "b64_json"])
@pytest.mark.parametrize(
    ("adapter", "kind", "model"),
    [
        ("deepinfra", DeepInfra, "black-forest-labs/FLUX-1-dev"),
        ("stability", Stability, "core"),
        ("huggingface", HuggingFace, "o/n"),
    ],
)
def test_large_replies_of_hosting_providers(
    tmp_path: Path, adapter: str, kind: type[Hosted], model: str, form: str
) -> None:
    """Eight requests for 20 MB each, as data URLs, base64 or bytes."""
    server = kind()
    with running(tmp_path, server, adapter) as process:
        assert len(ask(process, 1, form, model)) == 1
        server.size, server._asked = SIZE, 0
        before = process.memory("VmHWM")
        found = ask(process, IMAGES, form, model)
        grown = process.memory("VmHWM") - before
        if form == "url":
            hashes = [sha(httpx.get(item["url"], timeout=60).content) for item in found]
        else:
            hashes = [sha(base64.b64decode(item["b64_json"])) for item in found]
    assert sorted(hashes) == sorted(sha(picture(number)) for number in range(IMAGES))
    assert grown < 24 * MIB


def test_large_references(tmp_path: Path) -> None:
    """80 MB of references become base64 in JSON while they are sent."""
    server = LocalAI()
    files = [("image[]", (f"{number}.png", picture(number), "image/png")) for number in range(4)]
    small = [("image[]", (f"{number}.png", picture(number, SMALL), "image/png")) for number in range(4)]
    data = {"model": "own/m", "prompt": "A kite", "response_format": "b64_json"}
    with running(tmp_path, server, "localai") as process:
        for sent in (small, files):
            process.reset_peak()
            before = process.memory("VmHWM")
            reply = httpx.post(f"{process.url}/v1/images/edits", data=data, files=sent, timeout=120)
            assert reply.status_code == 200, reply.text[:500]
            grown = process.memory("VmHWM") - before
    encoded = [base64.b64encode(picture(number)).decode() for number in range(4)]
    head = {"model": "own/m".partition("/")[2], "prompt": "A kite", "response_format": "b64_json"}
    wanted = json.dumps({**head, "ref_images": encoded}, separators=(",", ":")).encode()
    assert (server.received, server.digest) == (len(wanted), hashlib.sha256(wanted).hexdigest())
    assert grown < 40 * MIB  # of which the spool's memory is 16
