"""Connections to a provider that are used again: what becomes of a POST on one that the provider has closed."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from tests.waiting import until
from tests.wire.keeping_support import GENERATIONS, Origin, generation, write_config

from imagegate import ExchangeRecord, ImageGateway
from imagegate.demo.servers import serving
from imagegate.prometheus import PrometheusHook

REPLY = json.dumps({"created": 1, "data": [{"b64_json": "iVBORw0KGgo="}]}).encode()
KEEP_ALIVE = 2
"""Seconds after which the provider closes an idle connection: less than providers do."""


class Closing:
    """A provider that answers the first request of a connection, and closes it when it gets a second one."""

    def __init__(self, *, reads: bool) -> None:
        self._reads = reads
        self.posts = 0
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._read(reader)
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(REPLY)}\r\n\r\n"
            writer.write(head.encode() + REPLY)
            await writer.drain()
            if self._reads:
                await self._read(reader)
            else:
                await reader.read(1)
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        self.posts += 1


@contextmanager
def running(provider: Closing) -> Generator[int]:
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    ready, stopping = threading.Event(), asyncio.Event()

    async def run() -> None:
        server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stopping.wait()
        server.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert ready.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()


class Ear:
    def __init__(self) -> None:
        self.records: list[ExchangeRecord] = []

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize("reads", [True, False])
def test_closed_under_a_request(tmp_path: Path, reads: bool) -> None:
    """Whether it was read cannot be known, so it is not sent again; it is counted. The next request has a connection
    of its own."""
    provider, ear, registry = Closing(reads=reads), Ear(), CollectorRegistry()
    with running(provider) as port:
        config = write_config(tmp_path, port)
        with (
            serving(ImageGateway(config=config, hooks=[ear, PrometheusHook(registry=registry)])) as own,
            httpx.Client(base_url=f"http://127.0.0.1:{own}", timeout=30) as client,
        ):
            replies = [client.post(GENERATIONS, json=generation(f"number {number}")) for number in range(4)]
    assert [reply.status_code for reply in replies] == [200, 502, 200, 502]
    assert {replies[1].headers["x-should-retry"], replies[3].headers["x-should-retry"]} == {"false"}
    assert (provider.posts, provider.connections) == (4 if reads else 2, 2)
    assert [record.stale_connections for record in ear.records] == [0, 1, 0, 1]
    assert registry.get_sample_value("imagegate_stale_connections_total", {"upstream": "openai"}) == 2


def test_a_new_connection_that_is_closed_is_not_stale(tmp_path: Path) -> None:
    """It had carried nothing before, so the provider has closed it because of this request."""
    ear, origin = Ear(), Origin()
    with (
        serving(origin) as port,
        serving(ImageGateway(config=write_config(tmp_path, port), hooks=[ear])) as own,
        httpx.Client(base_url=f"http://127.0.0.1:{own}", timeout=30) as client,
    ):
        assert client.post(GENERATIONS, json=generation("drop it")).status_code == 502
    assert [record.stale_connections for record in ear.records] == [0]


def test_idle_connections_of_a_usual_provider(tmp_path: Path) -> None:
    """Forty clients, with pauses around the time after which the provider closes its connections: not one request is
    uncertain, because the gateway's idle connections are gone before."""
    ear, origin = Ear(), Origin()
    with (
        usual(origin) as port,
        serving(ImageGateway(config=write_config(tmp_path, port), hooks=[ear])) as own,
    ):
        pauses = random.Random(13)

        async def client(session: httpx.AsyncClient) -> None:
            for _ in range(4):
                reply = await session.post(GENERATIONS, json=generation("usual"))
                assert reply.status_code == 200, reply.text
                await asyncio.sleep(KEEP_ALIVE + pauses.uniform(-0.1, 0.1) if pauses.random() < 0.7 else 0)

        async def all_of_them() -> None:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{own}", timeout=30) as session:
                await asyncio.gather(*(client(session) for _ in range(40)))

        asyncio.run(all_of_them())
        until(lambda: len(ear.records) == 160)
    assert (origin.made("usual"), sum(record.stale_connections for record in ear.records)) == (160, 0)


@contextmanager
def usual(origin: Origin) -> Generator[int]:
    """uvicorn, which closes idle connections as every server does."""
    config = uvicorn.Config(origin, port=0, log_level="warning", timeout_keep_alive=KEEP_ALIVE, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
