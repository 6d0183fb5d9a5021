"""An exchange leaves nothing to the garbage collector, which comes when it likes: megabytes may wait for it."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pybase64
import pytest

from imagegate.asgi.in_process import ask
from imagegate.config.loader import parse_config
from imagegate.gateway import ImageGateway
from imagegate.routing.catalog import Catalog

REQUESTS = 5
JSON = b"application/json"


def png(size: int) -> bytes:
    """A picture of about so many bytes."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 6, 0, 0, 0)),
        (b"noTe", random.Random(size).randbytes(size)),
        (b"IDAT", zlib.compress(bytes(64 * 257))),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


SMALL, LARGE = png(500), png(3_000_000)


def generation(**members: object) -> tuple[str, bytes, bytes]:
    fields = {"model": "gpt-image-1", "prompt": "a cat", "size": "1024x1024", **members}
    return "generations", JSON, json.dumps(fields).encode()


def edit(picture: bytes) -> tuple[str, bytes, bytes]:
    head = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
    body = (
        head % (b"model", b"")
        + b"gpt-image-1\r\n"
        + head % (b"prompt", b"")
        + b"a cat\r\n"
        + b"".join(head % (b"image[]", b'; filename="a.png"') + picture + b"\r\n" for _ in range(3))
        + b"--x--\r\n"
    )
    return "edits", b"multipart/form-data; boundary=x", body


@pytest.fixture(autouse=True, scope="module")
def collected_before() -> None:
    """What other tests have left behind is freed once; what is there then is not looked at again."""
    gc.collect()


@contextmanager
def collected() -> Iterator[Counter[str]]:
    """Counts what of ours only the collector could have freed in the meantime."""
    found: Counter[str] = Counter()
    gc.disable()
    gc.freeze()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(
            type(one).__qualname__ for one in gc.garbage if (type(one).__module__ or "").startswith("imagegate")
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def reply(picture: bytes, count: int = 1) -> bytes:
    data = [{"b64_json": pybase64.b64encode(picture).decode()}] * count
    return json.dumps({"created": 1, "data": data}).encode()


def events(picture: bytes) -> bytes:
    base64 = pybase64.b64encode(picture).decode()
    return f'event: image_generation.completed\ndata: {{"b64_json": "{base64}"}}\n\n'.encode()


def test_cycles_are_counted() -> None:
    """Those of our own classes, made in the meantime."""
    with collected() as found:
        for _ in range(2):
            catalog = Catalog({}, {})
            vars(catalog)["itself"] = catalog
            del catalog
    assert found["Catalog"] == 2


ASKED: Mapping[str, int] = {"split": 3, "not asked": 0}
"""How often the provider is asked in one exchange; default: once."""
REFUSAL = json.dumps({"error": {"message": "No.", "type": "invalid_request_error", "code": "odd"}}).encode()
CASES: Mapping[str, tuple[tuple[str, bytes, bytes], int, bytes, bytes, int]] = {
    "small": (generation(), 200, JSON, reply(SMALL), 200),
    "small as links": (generation(response_format="url"), 200, JSON, reply(SMALL), 200),
    "split": (generation(n=3, model="dall-e-3"), 200, JSON, reply(SMALL), 200),
    "large": (generation(), 200, JSON, reply(LARGE), 200),
    "large as links": (generation(response_format="url"), 200, JSON, reply(LARGE), 200),
    "too few": (generation(n=2), 200, JSON, reply(LARGE), 502),
    "stream": (generation(stream=True), 200, b"text/event-stream", events(LARGE), 200),
    "stream of one that does not": (generation(stream=True), 200, JSON, reply(SMALL), 200),
    "edit": (edit(SMALL), 200, JSON, reply(SMALL), 200),
    "edit with large files": (edit(LARGE), 200, JSON, reply(SMALL), 200),
    "stream that breaks off": (generation(stream=True), 200, b"text/event-stream", events(SMALL) + b"data: {", 200),
    "refused": (generation(), 400, JSON, REFUSAL, 400),
    "cut": (generation(), 200, JSON, reply(SMALL)[:-20], 502),
    "not asked": (generation(n=0), 200, JSON, b"", 400),
}


@pytest.mark.parametrize("case", CASES)
def test_an_exchange_leaves_no_cycles(case: str, tmp_path: Path) -> None:
    """Whatever becomes of it: no object of ours refers to itself when it is over."""
    (operation, content_type, body), status, reply_type, answer, expected = CASES[case]

    asked = 0

    def provider(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(status, headers={"content-type": reply_type.decode()}, content=answer)

    config = parse_config(
        '[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:9/v1"\napi_key = "k"\n'
        f'[delivery]\nstore = "file://{tmp_path}"\npublic_url = "http://gate.test/images"\n'
    )

    async def test() -> None:
        async with ImageGateway(config=config, transport=httpx.MockTransport(provider)) as gateway:

            async def send() -> Any:
                headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
                return await ask(gateway, "POST", f"/v1/images/{operation}", headers=headers, body=body)

            answered = await send()
            assert (answered.status, asked) == (expected, ASKED.get(case, 1)), answered.body[:500]
            if case == "split":
                assert len(json.loads(answered.body)["data"]) == 3
            with collected() as found:
                for _ in range(REQUESTS):
                    await asyncio.create_task(send())
            assert not found, found

    asyncio.run(test())


WORKFLOW = json.dumps({"1": {"class_type": "Any", "inputs": {"text": "", "seed": 1, "batch": 1}}})
MADE = {"9": {"images": [{"filename": "0.png", "subfolder": "", "type": "output"}]}}


@pytest.mark.parametrize(
    ("status", "job", "expected"),
    [
        (200, {"status": "completed", "outputs": MADE}, 200),
        (200, {"status": "failed"}, 502),
        (404, {"error": "Job not found"}, 502),
    ],
)
def test_a_lost_reply_leaves_no_cycles(status: int, job: Mapping[str, object], expected: int, tmp_path: Path) -> None:
    """Its task is looked for by the id that the request gave it; the error that it was lost with is not kept."""
    workflow = tmp_path / "workflow.json"
    workflow.write_text(WORKFLOW)

    def provider(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/prompt":
            return httpx.Response(200, headers={"content-type": "text/html"}, content=b"<html>" + bytes(1000))
        if request.url.path == "/view":
            return httpx.Response(200, headers={"content-type": "image/png"}, content=SMALL)
        return httpx.Response(status, json={"id": "job", **job})

    config = parse_config(
        '[[upstreams]]\nname = "own"\nadapter = "comfyui"\nbase_url = "http://127.0.0.1:9"\napi_key = "k"\n'
        f'[upstreams.options]\nworkflow = "{workflow}"\n'
        'inputs = { prompt = "1.text", seed = "1.seed", n = "1.batch" }\n'
        '[tasks]\npoll_interval = "10ms"\ndeadline = "100ms"\n'
        f'[delivery]\nstore = "file://{tmp_path}"\npublic_url = "http://gate.test/images"\n'
    )
    body = json.dumps({"model": "own/x", "prompt": "a cat", "response_format": "b64_json"}).encode()

    async def test() -> None:
        async with ImageGateway(config=config, transport=httpx.MockTransport(provider)) as gateway:

            async def send() -> Any:
                headers = [(b"content-type", JSON), (b"content-length", str(len(body)).encode())]
                return await ask(gateway, "POST", "/v1/images/generations", headers=headers, body=body)

            answered = await send()
            assert answered.status == expected, answered.body[:500]
            with collected() as found:
                for _ in range(REQUESTS):
                    await asyncio.create_task(send())
            assert not found, found

    asyncio.run(test())
