"""What strangers cost a gateway with keys: `imagegate serve`, its memory and descriptors, and what others get."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.conftest import Running
from tests.waiting import until

from imagegate.demo.servers import write_config

SCRIPT = shutil.which("imagegate", path=str(Path(sys.executable).parent)) or "imagegate"
GENERATIONS = "/v1/images/generations"
ASKED = {"model": "onetoken/gpt-image-2", "prompt": "A red kite", "response_format": "url"}
KEY = {"authorization": "Bearer client-key-123456"}
SECONDS = 30.0
"""Until a condition that should come about is given up."""
MOST = 150 * 1024
"""Kibibytes of memory that the process may have taken at most, strangers or not."""


class Gateway:
    """`imagegate serve` with a key, in front of the local providers."""

    def __init__(self, folder: Path, running: Running, *, limits: str = "", descriptors: int | None = None) -> None:
        write_config(folder / "imagegate.toml", running.ports, store=folder / "images")
        with (folder / "imagegate.toml").open("a", encoding="utf-8") as file:
            file.write(f'\n[access]\nkeys = ["client-key-123456"]\n[limits]\n{limits}\n')

        def limit() -> None:
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        self._log = folder / "serve.log"
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [SCRIPT, "serve", "--config", "imagegate.toml", "--port", "0"],
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=limit,
            )
        until(lambda: "running on http" in self._log.read_text("utf-8"))
        found = re.search(r"running on (http://127\.0\.0\.1:[0-9]+)", self._log.read_text("utf-8"))
        assert found is not None
        self.url = found[1]

    def connect(self) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(SECONDS)
        client.connect(("127.0.0.1", urlsplit(self.url).port))
        return client

    @property
    def most_memory(self) -> int:
        """Kibibytes that the process has taken at most so far."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text("utf-8")
        return int(re.search(r"VmHWM:\s+([0-9]+)", status)[1])  # type: ignore[index]

    def forget_peak(self) -> None:
        """`most_memory` begins again at what is taken now."""
        Path(f"/proc/{self.popen.pid}/clear_refs").write_text("5")

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.popen.pid}/fd"))

    def stop(self) -> None:
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()


@pytest.fixture
def start(tmp_path: Path, running: Running) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways, and ends them."""
    started: list[Gateway] = []

    def start(**options: object) -> Gateway:
        started.append(Gateway(tmp_path, running, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for gateway in started:
        gateway.stop()


@pytest.fixture(scope="module")
def pushed_at(tmp_path_factory: pytest.TempPathFactory, running: Running) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("pushed"), running)
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, running: Running) -> Iterator[Gateway]:
    """A gateway that may open few files."""
    gateway = Gateway(tmp_path_factory.mktemp("narrow"), running, descriptors=160)
    yield gateway
    gateway.stop()


def served(gateway: Gateway) -> None:
    """A client with a key gets its picture, and a probe its answer."""
    assert httpx.get(f"{gateway.url}/healthz", timeout=SECONDS).status_code == 200
    reply = httpx.post(gateway.url + GENERATIONS, json=ASKED, headers=KEY, timeout=SECONDS)
    assert reply.status_code == 200, reply.text
    assert httpx.get(reply.json()["data"][0]["url"], timeout=SECONDS).status_code == 200


def push(client: socket.socket, data: bytes) -> None:
    """Send as much as the other side takes at once, and read nothing."""
    client.setblocking(False)
    with contextlib.suppress(OSError):
        for start in range(0, len(data), 65536):
            client.send(data[start : start + 65536])


PUSHED = {
    "GET": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 30_000,
    "GET *": b"GET * HTTP/1.1\r\n\r\n" * 50_000,
    "POST without a key": b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" * 12_000,
    "a body": b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + bytes(1_000_000),
    "chunks": b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\na\r\n" * 150_000,
    "fields": b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % number for number in range(100_000)),
    "a field": b"GET / HTTP/1.1\r\nx: " + b"a" * 1_000_000,
    "targets": (b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\n\r\n") * 30,
}


@pytest.mark.memory
@pytest.mark.parametrize("data", PUSHED.values(), ids=PUSHED)
def test_what_strangers_send_takes_little_memory(pushed_at: Gateway, data: bytes) -> None:
    """A megabyte on each of 60 connections, with nothing read: all of it stays in the kernel, or is refused."""
    pushed_at.forget_peak()
    clients = [pushed_at.connect() for _ in range(60)]
    for client in clients:
        push(client, data)
    served(pushed_at)
    assert pushed_at.most_memory < MOST
    for client in clients:
        client.close()
    served(pushed_at)
    assert pushed_at.most_memory < MOST


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHo", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_strangers_do_not_take_the_descriptors(narrow: Gateway, said: bytes) -> None:
    """However many connect: what is paid for is stored and delivered, to old connections and to new ones."""
    clients = []
    with httpx.Client(base_url=narrow.url, timeout=SECONDS) as kept:
        for number in range(200):
            clients.append(narrow.connect())
            with contextlib.suppress(OSError):
                clients[-1].sendall(said)
            if number % 20 == 0:
                assert kept.post(GENERATIONS, json=ASKED, headers=KEY).status_code == 200
        assert narrow.descriptors <= 80 + 40
        served(narrow)
    for client in clients:
        client.close()


@pytest.mark.parametrize(("guard", "status"), [("true", 431), ("false", 200)])
def test_the_guard_has_a_switch(start: Callable[..., Gateway], guard: str, status: int) -> None:
    """Without it, uvicorn's own protocol takes any head."""
    gateway = start(limits=f"guard = {guard}\nhead = 1000")
    reply = httpx.get(f"{gateway.url}/healthz", headers={"x": "a" * 2000}, timeout=SECONDS)
    assert reply.status_code == status
    served(gateway)


def test_silent_strangers_are_sent_away(start: Callable[..., Gateway]) -> None:
    """Whether they have said nothing, or half of something."""
    gateway = start(limits='head_timeout = "1s"\nclient_stall = "1s"')
    before = gateway.descriptors
    clients = [gateway.connect() for _ in range(40)]
    for client in clients[:20]:
        client.sendall(b"POST /v1/images/generations HTTP/1.1\r\nAuthoriz")
    until(lambda: gateway.descriptors > before)
    until(lambda: gateway.descriptors <= before)
    for client in clients:
        client.close()
