"""Providers that send more than they were asked for: nobody gets another one's picture, and operators are told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.wire.edit_support import Process, gateway_process, picture

MARK = re.compile(rb"MARK([0-9]+)X")


class Provider:
    """Answers each request with the mark that stood in it, and then sends a further reply that nobody has asked for.

    Args:
        pause: seconds between the two; None: both are one write.
    """

    def __init__(self, pause: float | None) -> None:
        self._pause = pause
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.findall(rb"content-length: *([0-9]+)", head.lower())[0])
                mark = MARK.findall(await reader.readexactly(length))[0]
                if self._pause is None:
                    writer.write(_reply(mark) + _reply(b"0"))
                else:
                    writer.write(_reply(mark))
                    await writer.drain()
                    await asyncio.sleep(self._pause)
                    writer.write(_reply(b"0"))
                await writer.drain()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reply(mark: bytes) -> bytes:
    image = base64.b64encode(picture(1, 16) + b"MARK" + mark + b"X").decode()
    body = json.dumps({"created": 1, "data": [{"b64_json": image}]}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


@contextlib.contextmanager
def running(folder: Path, pause: float | None, more: str = "") -> Iterator[tuple[Process, Provider]]:
    provider = Provider(pause)
    config = folder / "imagegate.toml"
    config.write_text(
        f"""
[[upstreams]]
name = "openai"
base_url = "http://127.0.0.1:{provider.port}"
api_key = "sk-upstream"
{more}
"""
    )
    try:
        with gateway_process(config) as gate:
            yield gate, provider
    finally:
        provider.close()


async def ask(gate: Process, count: int, *, at_once: int = 8) -> tuple[int, int]:
    """How many of so many requests were answered, and how many of these with another one's picture."""
    turns = asyncio.Semaphore(at_once)
    answered = wrong = 0

    async def one(client: httpx.AsyncClient, number: int) -> None:
        nonlocal answered, wrong
        async with turns:
            body = {"model": "openai/gpt-image-1", "prompt": f"MARK{number}X"}
            answer = await client.post(f"{gate.url}/v1/images/generations", json=body)
        if answer.status_code == 200:
            answered += 1
            content = base64.b64decode(answer.json()["data"][0]["b64_json"])
            wrong += MARK.findall(content) != [b"%d" % number]

    async with httpx.AsyncClient(timeout=30) as client:
        await asyncio.gather(*(one(client, number) for number in range(1, count + 1)))
    return answered, wrong


@pytest.mark.parametrize("pause", [0.0, 0.002, 0.02])
def test_without_reuse_nobody_gets_another_ones_picture(tmp_path: Path, pause: float) -> None:
    """With ``reuse_connections = false`` every one of 300 requests is answered with its own picture."""
    with running(tmp_path, pause, "reuse_connections = false") as (gate, provider):
        assert asyncio.run(ask(gate, 300)) == (300, 0)
        assert provider.connections == 300


def test_a_surplus_that_comes_with_the_reply_ends_its_connection(tmp_path: Path) -> None:
    """Nobody gets it, although connections are kept."""
    with running(tmp_path, None) as (gate, provider):
        assert asyncio.run(ask(gate, 50)) == (50, 0)
        assert provider.connections == 50


def test_a_surplus_is_told_and_ends_reuse(tmp_path: Path) -> None:
    """The first reply that comes before its request is told in log and metric; connections are used once then."""
    name = 'imagegate_surplus_replies_total{upstream="openai"}'
    with running(tmp_path, 0.0) as (gate, provider):
        assert f"{name} 0.0" in httpx.get(f"{gate.url}/metrics").text
        for _ in range(200):
            asyncio.run(ask(gate, 8, at_once=1))
            if f"{name} 0.0" not in httpx.get(f"{gate.url}/metrics").text:
                break
        else:
            pytest.fail("no reply came before its request")
        before = provider.connections
        assert asyncio.run(ask(gate, 50)) == (50, 0)
        assert provider.connections == before + 50
        log = (gate.folder / "gateway.log").read_text()
    (line,) = [
        json.loads(line) for line in log.splitlines() if "before the request" in line and '"exchange"' not in line
    ]
    assert (line["level"], line["upstream"]) == ("warning", "openai")
