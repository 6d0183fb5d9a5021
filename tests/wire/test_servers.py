"""The gateway under hypercorn and granian, alone and in a host application: what docs/guides/servers.md says works."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.ports import free_port
from tests.waiting import TIMEOUT, until
from tests.wire.field_support import SMALL
from tests.wire.leaving import leave_once

from imagegate.demo.servers import serving

KEY = {"authorization": "Bearer key-of-alice"}
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
PICTURE = base64.b64encode(SMALL).decode()
ALONE, HOST = "imagegate.standalone:app", "host:app"
SERVERS: dict[str, tuple[str, ...]] = {
    "hypercorn": ("hypercorn", "--workers", "0", "--graceful-timeout", "60", "--bind", "127.0.0.1:{port}"),
    "granian": ("granian", "--interface", "asgi", "--no-ws", "--respawn-interval", "0.1", "--port", "{port}"),
}
"""As docs/guides/servers.md has them, but that granian replaces workers without a pause."""


class Provider:
    """Makes a picture for each request; where the prompt says ``held``, when it may."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.at_work = 0
        self.given_up = 0
        self.digest = ""
        routes = [Route(GENERATIONS, self._generate, methods=["POST"]), Route(EDITS, self._edit, methods=["POST"])]
        self.app = Starlette(routes=routes)

    async def _generate(self, request: Request) -> Response:
        body = await request.json()
        if body.get("stream"):
            return StreamingResponse(self._events(), media_type="text/event-stream")
        if "held" in body["prompt"]:
            self.at_work += 1
            while not self.may_end.is_set() and not await request.is_disconnected():
                await asyncio.sleep(0.01)
            self.given_up += not self.may_end.is_set()
            self.at_work -= 1
        return JSONResponse({"created": 1, "data": [{"b64_json": PICTURE}]})

    async def _events(self) -> AsyncIterator[str]:
        for kind in ("partial_image", "completed"):
            event: dict[str, Any] = {"type": f"image_generation.{kind}", "b64_json": PICTURE}
            event |= {"partial_image_index": 0} if kind == "partial_image" else {}
            yield f"event: image_generation.{kind}\ndata: {json.dumps(event)}\n\n"
            while kind == "partial_image" and not self.may_end.is_set():
                await asyncio.sleep(0.01)

    async def _edit(self, request: Request) -> Response:
        digest = hashlib.sha256()
        async with request.form() as form:
            while piece := await form["image"].read(65_536):  # type: ignore[union-attr]
                digest.update(piece)
        self.digest = digest.hexdigest()
        return JSONResponse({"created": 1, "data": [{"b64_json": PICTURE}]})


@pytest.fixture(scope="module")
def provider() -> Iterator[tuple[Provider, int]]:
    provider = Provider()
    with serving(provider.app) as port:
        yield provider, port


@pytest.fixture
def held(provider: tuple[Provider, int]) -> Iterator[Provider]:
    """The provider, which does not answer until it may."""
    provider[0].may_end.clear()
    yield provider[0]
    provider[0].may_end.set()


class Server:
    """A server as a process, with the gateway alone or in a host application."""

    def __init__(self, folder: Path, upstream: int, app: str, command: tuple[str, ...]) -> None:
        self.name = command[0]
        self.is_alone = app == ALONE
        self.model = "kites"
        """What the configuration has a route for."""
        self._folder = folder
        self._upstream = upstream
        self.write("kites")
        (folder / "host.py").write_text(
            "from fastapi import FastAPI\nfrom imagegate import ImageGateway\napp = FastAPI()\n"
            f'app.add_middleware(ImageGateway, config="{folder}/imagegate.toml")\n'
            '@app.get("/own")\ndef own() -> str:\n    return "mine"\n'
        )
        port = free_port()
        environment = {"IMAGEGATE_CONFIG": f"{folder}/imagegate.toml", "PYTHONPATH": str(folder)}
        with (folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *(part.format(port=port) for part in command), app],
                env={**os.environ, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.url = f"http://127.0.0.1:{port}"
        until(lambda: self.process.poll() is not None or self.answers, what=f"the server: {self.log}")
        assert self.process.poll() is None, self.log

    @property
    def log(self) -> str:
        return (self._folder / "server.log").read_text("utf-8", "replace")

    @property
    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v1/models", headers=KEY).status_code == 200
        except httpx.TransportError:
            return False

    def write(self, model: str, more: str = "") -> None:
        (self._folder / "imagegate.toml").write_text(
            f'[[upstreams]]\nname = "painter"\nadapter = "openai"\nbase_url = "http://127.0.0.1:{self._upstream}"\n'
            f'api_key = "sk"\n[routes]\n"{model}" = ["painter/gpt-image-2"]\n[access]\nkeys = ["key-of-alice"]\n'
            f'[delivery]\nstore = "file://{self._folder}/images"\n{more}'
        )

    def post(self, model: str = "", **more: Any) -> httpx.Response:
        body = asked(model or self.model, **more)
        return httpx.post(f"{self.url}{GENERATIONS}", json=body, headers=KEY, timeout=TIMEOUT)

    def kill(self) -> None:
        """With its workers, where a test has left any."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def asked(model: str = "kites", **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "A kite", **more}


@pytest.fixture(scope="module")
def start(provider: tuple[Provider, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def begin(app: str, command: tuple[str, ...]) -> Server:
        started.append(Server(tmp_path_factory.mktemp("server"), provider[1], app, command))
        return started[-1]

    yield begin
    for server in started:
        server.kill()


@pytest.fixture(scope="module", params=[f"{name} {app}" for name in SERVERS for app in (ALONE, HOST)])
def server(request: pytest.FixtureRequest, start: Callable[..., Server]) -> Server:
    name, _, app = request.param.partition(" ")
    return start(app, SERVERS[name])


def test_generation(server: Server) -> None:
    """A link that leads to the picture; beside it the process's metrics, or the host's own pages."""
    link = server.post(response_format="url").json()["data"][0]["url"]
    assert httpx.get(link).content == SMALL
    assert httpx.head(link).headers["content-length"] == str(len(SMALL))
    if server.is_alone:
        assert "imagegate_requests_total{" in httpx.get(f"{server.url}/metrics").text
    else:
        assert httpx.get(f"{server.url}/own").json() == "mine"


def test_events_leave_as_they_come(server: Server, held: Provider) -> None:
    """The first one is there before the provider has sent the last one."""
    body = asked(stream=True, partial_images=1)
    with httpx.stream("POST", f"{server.url}{GENERATIONS}", json=body, headers=KEY, timeout=TIMEOUT) as reply:
        pieces = reply.iter_text()
        text = next(pieces)
        assert "image_generation.partial_image" in text
        assert "image_generation.completed" not in text
        held.may_end.set()
        assert "image_generation.completed" in "".join(pieces)


def test_an_upload_of_20_megabytes(server: Server, provider: tuple[Provider, int]) -> None:
    image = SMALL + os.urandom(20_000_000)
    reply = httpx.post(
        f"{server.url}{EDITS}", data=asked(), files={"image": ("a.png", image)}, headers=KEY, timeout=TIMEOUT
    )
    assert reply.status_code == 200, reply.text
    assert provider[0].digest == hashlib.sha256(image).hexdigest()


def test_a_client_that_leaves(server: Server, held: Provider) -> None:
    """The request to the provider is given up."""
    before = held.given_up
    leave_once(lambda: held.at_work, f"{server.url}{GENERATIONS}", json=asked(prompt="held"), headers=KEY)
    until(lambda: held.given_up == before + 1)


def test_a_refusal_in_the_middle_of_an_upload(server: Server) -> None:
    """The client has its answer, and others have theirs."""
    stranger = {"authorization": "Bearer stranger"}
    files = {"image": ("a.png", bytes(100_000))}
    assert httpx.post(f"{server.url}{EDITS}", data=asked(), files=files, headers=stranger).status_code == 401
    assert server.post().status_code == 200


def test_another_configuration(server: Server) -> None:
    """At SIGHUP hypercorn's gateway reads the file again, and refuses a bad one; granian starts another worker."""
    if server.name == "hypercorn" and not server.is_alone:
        return  # the signal ends it, as docs/guides/servers.md says
    server.write("birds")
    server.process.send_signal(signal.SIGHUP)
    if server.name == "hypercorn":
        until(lambda: "the configuration was applied" in server.log)
        server.write("dogs", "[policy]\nretries = -1\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "policy.retries: must be from 0 to 100" in server.log)
    else:
        until(lambda: "Stopped old worker-1" in server.log and server.answers)
    assert [server.post(model).status_code for model in ("kites", "birds", "dogs")] == [404, 200, 404]
    server.model = "birds"


def test_the_end_waits_for_what_runs(server: Server, held: Provider) -> None:
    """The picture in flight is answered whole, and the process ends well."""
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.post, prompt="held")
        until(lambda: held.at_work)
        server.process.send_signal(signal.SIGTERM)
        held.may_end.set()
        assert call.result().status_code == 200
    assert server.process.wait(TIMEOUT) == 0
    assert "Traceback" not in server.log


def test_a_picture_that_hypercorn_does_not_wait_for(start: Callable[..., Server], held: Provider) -> None:
    """A worker process cuts it short without a word before; the client hears that it must not ask and pay again."""
    server = start(HOST, ("hypercorn", "--graceful-timeout", "1", *SERVERS["hypercorn"][5:]))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.post, prompt="held")
        until(lambda: held.at_work)
        server.process.send_signal(signal.SIGTERM)
        reply = call.result()
    assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")
    assert reply.json()["error"]["code"] == "upstream_uncertain"
