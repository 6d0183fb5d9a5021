"""Nothing that waits for a disk runs on the event loop: another request would wait with it."""

from __future__ import annotations

import asyncio
import base64
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest
from tests.waiting import TIMEOUT
from tests.wire.edit_support import large_picture, picture

import imagegate_adapters
from imagegate import ImageGateway
from imagegate.config.loader import load_config, parse_config
from imagegate.standalone import Standalone

pytestmark = pytest.mark.server
EVENTS = ("open", "os.", "shutil.", "tempfile.")


def audited(run: Callable[..., Coroutine[Any, Any, None]], folder: Path, *arguments: Any) -> list[tuple[str, str]]:
    """Return what the thread of the event loop asks of the disk below a folder, and of that of the adapters.

    It does so in a process of its own: there is no way to take an audit hook away again.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        return processes.submit(_audited, run, folder, *arguments).result(timeout=100)


def _audited(run: Callable[..., Coroutine[Any, Any, None]], folder: Path, *arguments: Any) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    folders = (str(folder), str(Path(imagegate_adapters.__path__[0])))
    thread = threading.get_ident()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if threading.get_ident() != thread or not event.startswith(EVENTS):
            return
        paths = (os.fsdecode(each) for each in arguments if isinstance(each, (str, bytes, os.PathLike)))
        found.extend((event, path) for path in paths if path.startswith(folders))

    sys.addaudithook(hook)
    asyncio.run(run(folder, *arguments))
    return list(found)


class Upstream(httpx.AsyncBaseTransport):
    """Answers with one picture in base64."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        body = json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(self.content).decode()}]}).encode()
        return httpx.Response(200, headers={"content-type": "application/json"}, content=body)


async def ask_for_much(folder: Path, size: int) -> None:
    """Links, their pictures, keys, tasks, uploads and the sweep."""
    images, spool = folder / "images", folder / "spool"
    tempfile.tempdir = str(spool)
    document = f"""
        [[upstreams]]
        name = "openai"
        api_key = "sk-upstream"
        [delivery]
        store = "file://{images}"
        max_bytes = 100000000
        [limits]
        spool_memory = 1
    """
    content = large_picture(size) if size else picture(1, 16)

    upstream = Upstream(content)
    gateway = await asyncio.to_thread(  # a server makes it before there is an event loop
        lambda: ImageGateway(config=parse_config(document), hooks=(), transport=upstream)
    )
    transport = httpx.ASGITransport(app=gateway)
    async with gateway, httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:

        async def post(path: str = "generations", key: str = "", **options: Any) -> httpx.Response:
            headers = {"idempotency-key": key} if key else {}
            answer = await client.post(f"/v1/images/{path}", headers=headers, **options)
            assert answer.status_code in (200, 202), answer.text
            return answer

        asked = {"model": "openai/gpt-image-1", "prompt": "a fox"}
        link = (await post(json={**asked, "response_format": "url"})).json()["data"][0]["url"]
        for headers in ({}, {"range": "bytes=0-9"}, {"if-none-match": "*"}):
            assert (await client.get(link, headers=headers)).status_code in (200, 206, 304)
        for _ in range(2):
            await post(json=asked, key="a")
        await post("edits", data=asked, files={"image": ("a.png", content, "image/png")})
        poll = (await post(json={**asked, "async": True})).json()["poll_url"]
        async with asyncio.timeout(TIMEOUT):
            while (await client.get(poll)).json()["status"] != "completed":
                await asyncio.sleep(0.01)


async def reload(folder: Path) -> None:
    """Apply a configuration with other adapters, contracts of the operator's and a certificate, as SIGHUP does."""
    find = partial(load_config, folder / "imagegate.toml")
    alone = await asyncio.to_thread(lambda: Standalone(find(), find=find))
    async with alone.gateway:
        await asyncio.to_thread((folder / "imagegate.toml").write_text, SECOND)
        await alone.reload()
        assert [each.name for each in alone.gateway.config.upstreams] == ["gemini", "fal", "own"]
        assert alone.gateway.services.catalog.resolve("own/house")


FIRST = """
[[upstreams]]
name = "openai"
api_key = "sk-upstream"
"""
SECOND = """
[[upstreams]]
name = "gemini"
api_key = "sk-upstream"
[[upstreams]]
name = "fal"
api_key = "sk-upstream"
[[upstreams]]
name = "own"
adapter = "openai"
base_url = "https://own.example/v1"
api_key = "sk-upstream"
contracts = "own.toml"
ca_file = "ca.pem"
"""


async def touch(folder: Path) -> None:
    await asyncio.to_thread((folder / "in a thread").touch)
    (folder / "on the loop").touch()


@pytest.mark.parametrize("size", [0, 3_000_000], ids=["small", "large"])
def test_no_request_touches_a_disk_on_the_event_loop(tmp_path: Path, size: int) -> None:
    """All that is on a disk is done in threads."""
    (tmp_path / "spool").mkdir()
    assert audited(ask_for_much, tmp_path, size) == []
    assert list((tmp_path / "images").iterdir())


def test_no_reload_touches_a_disk_on_the_event_loop(tmp_path: Path) -> None:
    """Requests go on while files are read."""
    shutil.copy(certifi.where(), tmp_path / "ca.pem")
    (tmp_path / "own.toml").write_text('[models."house"]\nfamily = "gpt-image-2"\n')
    (tmp_path / "imagegate.toml").write_text(FIRST)
    assert audited(reload, tmp_path) == []


def test_the_audit_sees_what_it_is_to_see(tmp_path: Path) -> None:
    """A file that is opened on the event loop is found, one that a thread opens is not."""
    assert {Path(path).name for _, path in audited(touch, tmp_path)} == {"on the loop"}
