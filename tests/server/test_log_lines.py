"""What a process of the gateway's own writes: what is on, its server's lines in one format, and a hangup."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tests.ports import free_port
from tests.waiting import until

from imagegate import __version__
from imagegate.demo.servers import serving

pytestmark = pytest.mark.server

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z")
BIN = Path(sys.executable).parent
SERVE = (str(BIN / "imagegate"), "serve")
PLAIN = (str(BIN / "uvicorn"), "imagegate.standalone:app")


class Slow(NamedTuple):
    """A provider that answers when it is told to."""

    port: int
    release: threading.Event
    is_asked: threading.Event


@pytest.fixture
def slow() -> Iterator[Slow]:
    release, is_asked = threading.Event(), threading.Event()

    async def answer(request: Request) -> JSONResponse:
        is_asked.set()
        await asyncio.to_thread(release.wait, 30)
        return JSONResponse({"created": 1, "data": [{"url": "https://images.invalid/1.png"}]})

    with serving(Starlette(routes=[Route("/v1/images/generations", answer, methods=["POST"])])) as port:
        yield Slow(port, release, is_asked)


@contextlib.contextmanager
def gateway(folder: Path, provider: int, *command: str, style: str = "json") -> Iterator[tuple[int, Any, Path]]:
    """A gateway in a process of its own: its port, its process and the file that has its standard error."""
    (folder / "imagegate.toml").write_text(
        f'[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:{provider}"\napi_key = "sk-of-upstream"\n'
        '[delivery]\nstore = "memory://"\n[routes]\n"pictures" = "openai/gpt-image-2"\n'
    )
    port, log = free_port(), folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=folder,
            stderr=output,
            env={**os.environ, "IMAGEGATE_LOG": style},
        )
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/healthz")
                break
            time.sleep(0.05)
        yield port, process, log
    finally:
        process.terminate()
        process.wait(20)


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("command", [SERVE, PLAIN], ids=["serve", "uvicorn"])
def test_every_line_has_one_format(tmp_path: Path, slow: Slow, command: tuple[str, ...]) -> None:
    """Lines of the gateway, of its exchanges and of uvicorn are JSON with one format of time; none has an escape."""
    slow.release.set()
    with gateway(tmp_path, slow.port, *command) as (port, _, log):
        url = f"http://127.0.0.1:{port}/v1/images/generations"
        assert httpx.post(url, json={"model": "pictures", "prompt": "A cat"}, timeout=20).status_code == 200
    found = lines(log)
    assert all(TIMESTAMP.fullmatch(line["timestamp"]) for line in found)
    assert {line["event"] for line in found} >= {"exchange", "Application startup complete."}
    assert "\x1b" not in log.read_text()


def test_the_start_says_what_is_on(tmp_path: Path, slow: Slow) -> None:
    """Version, address, upstreams, routes, store and console."""
    with gateway(tmp_path, slow.port, *SERVE) as (port, _, log):
        (start,) = [line for line in lines(log) if line["event"] == "imagegate starts"]
    assert start["version"] == __version__
    assert start["address"] == f"http://127.0.0.1:{port}/v1"
    assert (start["upstreams"], start["routes"], start["store"], start["console"]) == (
        ["openai"],
        1,
        "memory://",
        "off",
    )
    assert "sk-of-upstream" not in log.read_text()


def test_lines_for_people_have_no_colors_in_a_file(tmp_path: Path, slow: Slow) -> None:
    """Escapes are for terminals."""
    with gateway(tmp_path, slow.port, *SERVE, style="console") as (_, _, log):
        pass
    assert "imagegate starts" in log.read_text()
    assert "Application startup complete." in log.read_text()
    assert "\x1b" not in log.read_text()


@pytest.mark.parametrize("command", [SERVE, PLAIN], ids=["serve", "uvicorn"])
def test_a_hangup_ends_nothing(tmp_path: Path, slow: Slow, command: tuple[str, ...]) -> None:
    """A request that is at the provider gets its answer, and a line says that the configuration was applied."""
    answers: list[httpx.Response] = []
    with gateway(tmp_path, slow.port, *command) as (port, process, log):
        url = f"http://127.0.0.1:{port}/v1/images/generations"
        body = {"model": "pictures", "prompt": "A cat"}
        client = threading.Thread(target=lambda: answers.append(httpx.post(url, json=body, timeout=20)))
        client.start()
        assert slow.is_asked.wait(20)
        process.send_signal(signal.SIGHUP)
        until(lambda: "the configuration was applied" in log.read_text(), what="the new configuration")
        slow.release.set()
        client.join()
        assert process.poll() is None
    assert answers[0].status_code == 200
