"""Providers and proxies as processes on 127.0.0.1, which end with the benchmark."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from measure import ProcessTree, pin
from workloads import KEY, WORKLOADS, headers

HERE = Path(__file__).parent
TIMEOUT = 60.0
S3_KEY, S3_SECRET, BUCKET = "benchmark", "benchmark-secret", "pictures"


@dataclass(frozen=True)
class Server:
    name: str
    url: str
    tree: ProcessTree
    stored: Path | None = None
    """Where the pictures are that it stores."""
    workers: int = 1

    def forget_pictures(self) -> None:
        """So that the machine writes the next ones into the same memory."""
        if self.stored is not None:
            for file in self.stored.glob("*"):
                file.unlink()


@dataclass(frozen=True)
class Proxy:
    """A server that is started for each comparison."""

    name: str
    start: Callable[[Path, str], AbstractContextManager[Server]]
    """With a folder of its own, and the provider's URL."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str],
    port: int,
    *,
    log: Path,
    proxy: bool = True,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run a program that listens on ``port``. What it says goes to ``log``.

    Raises:
        RuntimeError: it ended, or was not there in time.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**_environment(), **(environment or {})})
    try:
        pin(process.pid, proxy=proxy, workers=workers)
        _wait(process, name, port, log)
        yield Server(name, f"http://127.0.0.1:{port}", ProcessTree(process.pid), workers=workers)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment() -> dict[str, str]:
    """Return the environment of each server: ours, without what tunes memory in a server that is told so."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "PYTHONMALLOC"))
    }


def _wait(process: subprocess.Popen[bytes], name: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{name} did not start: {log.read_text('utf-8', 'replace')[-2000:]}")
        time.sleep(0.005)


@contextlib.contextmanager
def upstream(folder: Path, keep_alive: int) -> Iterator[Server]:
    """Run the provider; it closes connections on which nothing was asked for ``keep_alive`` seconds."""
    port = free_port()
    command = [sys.executable, str(HERE / "upstream.py"), str(port), str(keep_alive)]
    with running("provider", command, port, log=folder / "provider.log", proxy=False) as server:
        yield server


@contextlib.contextmanager
def floor(folder: Path, upstream: str, *, kind: str, workers: int = 1) -> Iterator[Server]:
    """Run a pass-through on ``aiohttp`` or ``httpx``."""
    with _served(f"floor {kind}", kind, folder, upstream, workers) as server:
        yield server


@contextlib.contextmanager
def gateway(folder: Path, upstream: str, *, kind: str = "alone", s3: str = "", workers: int = 1) -> Iterator[Server]:
    """Run the gateway ``alone`` or ``mounted`` in an application, under the same server as the floors."""
    name = "imagegate S3" if s3 else f"imagegate {kind}"
    stored = _bucket(folder.parent) if s3 else folder / "images"
    with _served(name, kind, folder, str(gateway_config(folder, upstream, s3=s3)), workers) as server:
        yield replace(server, stored=stored)


@contextlib.contextmanager
def _served(name: str, kind: str, folder: Path, given: str, workers: int) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, str(HERE / "serve.py"), kind, str(port), str(workers), given]
    shown = name if workers == 1 else f"{name}, {workers} workers"
    with running(shown, command, port, log=folder / "server.log", workers=workers) as server:
        if workers > 1:
            server.tree.rest()  # the port is there as soon as the first worker is
        yield server


@contextlib.contextmanager
def command(folder: Path, upstream: str) -> Iterator[Server]:
    """Return ``imagegate serve`` as an operator starts it."""
    port, config = free_port(), gateway_config(folder, upstream)
    words = [sys.executable, "-m", "imagegate", "serve", "--config", str(config), "--port", str(port), "--grace", "2"]
    with running("imagegate", words, port, log=folder / "server.log") as server:
        yield replace(server, stored=folder / "images")


def gateway_config(folder: Path, upstream: str, *, s3: str = "", adapter: str = "openai") -> Path:
    """Write a configuration with keys, so that every layer has work to do; with a file store, or a bucket."""
    config = folder / "imagegate.toml"
    store = f"s3://{BUCKET}" if s3 else f"file://{folder / 'images'}"
    cloud = (
        f'[delivery.cloud]\nendpoint = "{s3}"\nregion = "us-east-1"\n'
        f'access_key_id = "{S3_KEY}"\nsecret_access_key = "{S3_SECRET}"\n'
    )
    config.write_text(
        f'[[upstreams]]\nname = "{adapter}"\nbase_url = "{upstream}/v1"\napi_key = "upstream"\n'
        f'[access]\nkeys = ["{KEY}"]\n[delivery]\nstore = "{store}"\n' + (cloud if s3 else "")
    )
    return config


def _bucket(folder: Path) -> Path:
    """Return where `s3` keeps the pictures."""
    return folder / "buckets" / BUCKET


def rclone() -> str | None:
    return shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@contextlib.contextmanager
def s3(folder: Path, program: str) -> Iterator[Server]:
    bucket = _bucket(folder)
    bucket.mkdir(parents=True)
    port = free_port()
    # fmt: off
    command = [
        program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{S3_KEY},{S3_SECRET}",
        "--config", os.devnull, "--vfs-cache-mode", "off", str(bucket.parent),
    ]
    # fmt: on
    with running("rclone", command, port, log=folder / "rclone.log", proxy=False) as server:
        yield server


def first_answer(server: Server, upstream: str) -> int:
    """Return the status of a generation that is asked for once."""
    body, kind = WORKLOADS["W1"].body()
    said = {**headers(upstream), "content-type": kind}
    with contextlib.closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=TIMEOUT)) as line:
        line.request("POST", WORKLOADS["W1"].path, body, said)
        reply = line.getresponse()
        reply.read()
        return reply.status


def settle(provider: Server) -> None:
    """Wait until what a client left behind is through, so that it is not taken for the next one's."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        time.sleep(3)  # longer than the provider takes in W4
        with urllib.request.urlopen(f"{provider.url}/received", timeout=TIMEOUT) as reply:
            if json.load(reply)["requests"] == 0:
                return
