"""What the tests of metrics, logs and the console share: an upstream that counts, a gateway of two workers, traffic."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from tests.ports import free_port
from tests.waiting import TIMEOUT

from imagegate.demo.pictures import draw_picture

PICTURE = draw_picture(width=256, height=192, prompt="A test", provider="test", model="test")
BASE64 = base64.b64encode(PICTURE).decode()
PROMPT = "zebra-in-a-top-hat"
"""Stands in every prompt; must be nowhere but where pictures are made."""
UPSTREAM_KEY, ALICE, BOB = "sk-upstream-7c1f9e2d", "alices-key-51a0b7", "bobs-key-93e44c"
LINK_SECRET = "link-secret-0d9c8b7a"
SECRETS = (PROMPT, UPSTREAM_KEY, ALICE, BOB, LINK_SECRET, BASE64[:64], BASE64[200:264])
USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"text_tokens": 20, "image_tokens": 0},
    "output_tokens": 300,
    "total_tokens": 320,
}


def own_error(status: int, code: str) -> JSONResponse:
    """A provider's own error, which quotes the key that it was sent."""
    message = f"{code}: the key {UPSTREAM_KEY} cannot do that"
    return JSONResponse({"error": {"message": message, "type": "x", "code": code}}, status_code=status)


@dataclass
class CountingUpstream:
    """A provider that does what the prompt says, and counts."""

    posts: Counter[str] = field(default_factory=Counter[str])
    images: int = 0
    traceparents: list[str] = field(default_factory=list[str])

    async def generate(self, request: Request) -> Response:
        body = await request.json()
        what = body["prompt"].split()[0]
        self.posts[what] += 1
        if traceparent := request.headers.get("traceparent"):
            self.traceparents.append(traceparent)
        if what == "rejected":
            return own_error(500, "server_error")
        if what == "moderated":
            return own_error(400, "moderation_blocked")
        if what == "uncertain":
            return HTMLResponse("<h1>502 Bad Gateway</h1>", status_code=502)
        if what == "slow":
            await asyncio.sleep(0.5)
        if what == "endless":
            while not await request.is_disconnected():
                await asyncio.sleep(0.02)
            return Response(status_code=499)
        n = body.get("n", 1)
        self.images += n
        if what == "elsewhere":  # a link that the guard refuses to read
            return JSONResponse({"created": 1, "data": [{"url": "http://127.0.0.1:1/secret.png"}] * n})
        return JSONResponse({"created": 1, "data": [{"b64_json": BASE64}] * n, "usage": USAGE})

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/images/generations", self.generate, methods=["POST"])])


def config_of(port: int, closed: int, folder: Path) -> str:
    """A gateway for the counting upstream, and for another one that nobody reaches."""
    return f"""
[[upstreams]]
name = "main"
adapter = "openai"
base_url = "http://127.0.0.1:{port}"
api_key = "{UPSTREAM_KEY}"

[[upstreams]]
name = "gone"
adapter = "openai"
base_url = "http://127.0.0.1:{closed}"
api_key = "{UPSTREAM_KEY}"

[routes]
"picture" = ["gone/gpt-image-1", "main/gpt-image-1"]

[delivery]
store = "file://{folder}/images"
link_secret = "{LINK_SECRET}"

[access]
keys = ["{ALICE}", "{BOB}"]
names = ["alice", "bob"]

[limits]
in_flight = 3

[prices]
currency = "EUR"

[prices.models]
"main/gpt-image-1" = {{ image = 0.05, tokens = {{ input_text = 5, output = 40 }} }}
"""


@contextlib.contextmanager
def serve(config: Path, log: Path, *, workers: int = 2, environment: dict[str, str] | None = None) -> Iterator[int]:
    """``imagegate serve`` as a process of its own: its port."""
    port = free_port()
    command = [sys.executable, "-m", "imagegate", "serve", "--config", str(config), "--port", str(port)]
    command += ["--workers", str(workers)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "IMAGEGATE_LOG": "json", **(environment or {})}
        )
        try:
            wait_until(lambda: _answers(port), what=lambda: log.read_text())
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(
    holds: Callable[[], object], *, seconds: float = TIMEOUT, what: Callable[[], object] = lambda: ""
) -> None:
    """Polls until something holds."""
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come to hold: {what()}")
        time.sleep(0.05)


@dataclass
class Traffic:
    """What clients did, and what they got."""

    url: str
    answers: list[httpx.Response] = field(default_factory=list[httpx.Response])
    rounds: int = 0
    """In each, one client leaves without an answer."""

    def post(self, what: str, key: str = ALICE, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        body = {"model": "main/gpt-image-1", "prompt": f"{what} {PROMPT}", **fields}
        answer = httpx.post(
            f"{self.url}/v1/images/generations",
            json=body,
            headers={"authorization": f"Bearer {key}", **(headers or {})},
            timeout=30,
        )
        self.answers.append(answer)
        return answer

    def run(self) -> None:
        """Every outcome that a client and a provider can bring about."""
        self.rounds += 1
        for key in (ALICE, BOB):
            assert self.post("good", key, n=2, size="1792x1024", quality="hd").status_code == 200
        assert self.post("good", response_format="url").status_code == 200
        assert self.post("good", model="picture").status_code == 200  # by the second candidate
        assert self.post("good", model="main/nobody-configured-this").status_code == 200
        assert self.post("good", style=f"vivid-{PROMPT}", unknown_member=1).status_code == 200
        assert self.post("good", headers={"imagegate-explain": "?1"}).status_code == 200
        assert self.post("rejected").status_code == 500
        assert self.post("moderated").status_code == 400
        assert self.post("uncertain").status_code == 502
        assert self.post("good", model="gone/gpt-image-1").status_code == 502
        assert self.post("elsewhere", model="main/dall-e-3", response_format="b64_json").status_code == 502
        assert self.post("good", n="many").status_code == 400
        assert self.post("good", model="no-such-model").status_code == 404
        assert self.post("good", key="wrong-key").status_code == 401
        with contextlib.suppress(httpx.TimeoutException):  # leaves first
            httpx.post(
                f"{self.url}/v1/images/generations",
                json={"model": "main/gpt-image-1", "prompt": f"endless {PROMPT}"},
                headers={"authorization": f"Bearer {ALICE}"},
                timeout=0.5,
            )
        with ThreadPoolExecutor(16) as pool:  # more than both workers hold
            statuses = {answer.status_code for answer in pool.map(self.post, ["slow"] * 16)}
        assert statuses == {200, 503}


def lines_of(log: Path) -> list[dict[str, Any]]:
    """The JSON lines of a log; other programs' lines in it are none of ours."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
