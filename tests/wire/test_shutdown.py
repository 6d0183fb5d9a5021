"""The end of a gateway: what runs is finished, nothing new begins, and nobody is led to pay twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.waiting import TIMEOUT, until
from tests.wire.edit_support import Process, gateway_process
from tests.wire.faults import GOOD, KEY, Connection, Request, Upstream

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving


class Held:
    """A provider whose requests wait until they are told to end, or are given up."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.at_work = 0

    async def __call__(self, connection: Connection, request: Request) -> None:
        await connection.body(request)
        self.at_work += 1
        gone = asyncio.ensure_future(connection.left())
        while not self.may_end.is_set() and not gone.done():
            await asyncio.sleep(0.005)
        self.at_work -= 1
        if gone.done():
            connection.upstream.left[request.fault].set()
            return
        gone.cancel()
        await connection.json(200, GOOD, "connection: close")
        connection.writer.close()


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def upstream(held: Held) -> Iterator[tuple[Upstream, int]]:
    upstream = Upstream({"held": held})
    with upstream.running() as port:
        yield upstream, port
        held.may_end.set()


def config(port: int, folder: Path) -> Path:
    path = folder / "imagegate.toml"
    path.write_text(
        f'[[upstreams]]\nname = "held"\nadapter = "openai"\nbase_url = "http://127.0.0.1:{port}/held"\n'
        f'api_key = "{KEY}"\n[delivery]\nstore = "file://{folder / "images"}"\n'
    )
    return path


class Call(threading.Thread):
    """A request of a client that waits for its answer."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self.reply: httpx.Response | None = None
        self.start()

    def run(self) -> None:
        with contextlib.suppress(httpx.TransportError):
            self.reply = post(self._url)

    def answer(self) -> httpx.Response:
        self.join(TIMEOUT)
        assert self.reply is not None
        return self.reply


def post(url: str, **headers: str) -> httpx.Response:
    document = {"model": "held/any", "prompt": "A kite", "response_format": "url"}
    return httpx.post(f"{url}/v1/images/generations", json=document, headers=headers, timeout=TIMEOUT)


def is_refused(process: Process) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", process.port)) != 0


def test_sigterm_lets_what_runs_be_finished(upstream: tuple[Upstream, int], held: Held, tmp_path: Path) -> None:
    """The listener is closed at once; the exchange in flight is answered whole, and the process ends well."""
    counter, port = upstream
    with gateway_process(config(port, tmp_path)) as process:
        call = Call(process.url)
        until(lambda: held.at_work)
        process.process.send_signal(signal.SIGTERM)
        until(lambda: is_refused(process))
        assert process.process.poll() is None
        held.may_end.set()
        reply = call.answer()
        assert (reply.status_code, len(reply.json()["data"])) == (200, 1)
        assert process.process.wait(TIMEOUT) == 0
    assert counter.posts["held"] == 1
    log = [json.loads(line) for line in (tmp_path / "gateway.log").read_text().splitlines() if line.startswith("{")]
    assert [line["status"] for line in log if line.get("endpoint") == "generations"] == [200]


def test_what_does_not_end_within_the_grace_is_given_up(
    upstream: tuple[Upstream, int], held: Held, tmp_path: Path
) -> None:
    """The client hears that its picture may have been made, so that its SDK does not pay again; the call is ended."""
    counter, port = upstream
    with gateway_process(config(port, tmp_path), IMAGEGATE_GRACE="1") as process:
        call = Call(process.url)
        until(lambda: held.at_work)
        process.process.send_signal(signal.SIGTERM)
        reply = call.answer()
        assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")
        assert reply.json()["error"]["code"] == "upstream_uncertain"
        assert process.process.wait(TIMEOUT) == 0
        assert counter.left["held"].wait(TIMEOUT)


def test_several_workers_drain(upstream: tuple[Upstream, int], held: Held, tmp_path: Path) -> None:
    """SIGTERM to the parent reaches every worker, and each finishes what it has."""
    _, port = upstream
    with gateway_process(config(port, tmp_path), arguments=["--workers", "2"]) as process:
        calls = [Call(process.url) for _ in range(4)]
        until(lambda: held.at_work == 4)
        process.process.send_signal(signal.SIGTERM)
        until(lambda: (tmp_path / "gateway.log").read_text().count("Shutting down") == 2)
        held.may_end.set()
        assert [call.answer().status_code for call in calls] == [200] * 4
        assert process.process.wait(TIMEOUT) == 0


# A gateway in somebody's application is told by it


class Mounted:
    """A gateway under a real server."""

    def __init__(self, port: int, folder: Path) -> None:
        self.gateway = ImageGateway(config=parse_config(config(port, folder).read_text()), hooks=())
        self.url = ""


@pytest.fixture
def mounted(upstream: tuple[Upstream, int], tmp_path: Path) -> Iterator[Mounted]:
    mounted = Mounted(upstream[1], tmp_path)
    with serving(mounted.gateway) as port:
        mounted.url = f"http://127.0.0.1:{port}"
        yield mounted


def test_a_draining_gateway_takes_nothing_new(upstream: tuple[Upstream, int], held: Held, mounted: Mounted) -> None:
    """New work is refused with the advice to come again, and hung up on; what runs is finished, and lists answer."""
    call = Call(mounted.url)
    until(lambda: held.at_work)
    mounted.gateway.drain()
    refused = post(mounted.url)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["type"]) == (503, "shutting_down", "server_error")
    assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
    assert "x-should-retry" not in refused.headers
    assert httpx.get(f"{mounted.url}/v1/models").status_code == 200
    held.may_end.set()
    assert call.answer().status_code == 200
    assert upstream[0].posts["held"] == 1


def test_a_client_that_is_still_sending_hears_it_too(mounted: Mounted) -> None:
    """A large body is not read, and not hung up on either: the client would lose the answer."""
    mounted.gateway.drain()
    document: dict[str, Any] = {"model": "held/any", "prompt": "A kite", "user": "x" * 8_000_000}
    refused = httpx.post(f"{mounted.url}/v1/images/generations", json=document, timeout=TIMEOUT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    assert "connection" not in refused.headers


def test_the_end_waits_for_what_the_gateway_runs_by_itself(tmp_path: Path) -> None:
    """Calls that a key or a task wants have the rest of the grace; then the gateway may be used again."""

    async def test() -> None:
        ended: list[str] = []

        async def work(name: str, end: asyncio.Event) -> None:
            try:
                await end.wait()
                ended.append(name)
            except asyncio.CancelledError:
                ended.append(f"{name} was cut short")
                raise

        for grace, expected in ((TIMEOUT, ["quick"]), (0.01, ["slow was cut short"])):
            gateway = ImageGateway(config=parse_config(config(1, tmp_path).read_text()), hooks=(), grace=grace)
            end = asyncio.Event()
            gateway.loop_services.background.start(work("quick" if grace == TIMEOUT else "slow", end))
            closing = asyncio.create_task(gateway.aclose())
            await asyncio.sleep(0)
            assert gateway.is_draining
            if grace == TIMEOUT:
                end.set()
            await closing
            assert expected == ended
            assert not gateway.is_draining
            ended.clear()

    asyncio.run(test())
