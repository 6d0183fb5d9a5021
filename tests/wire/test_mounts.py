"""Every way to run the gateway: in FastAPI, in Starlette, below a path, alone, and as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.conftest import Running
from tests.waiting import TIMEOUT, until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from imagegate import Config, ConfigError, ImageGateway, load_config
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving, write_config
from imagegate.testing import Lint

GENERATIONS = "/v1/images/generations"
ASKED = {"model": "onetoken/gpt-image-2", "prompt": "A red kite", "response_format": "url"}


def link_of(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text[:500]
    link: str = reply.json()["data"][0]["url"]
    return link


def loads(link: str) -> bool:
    reply = httpx.get(link)
    return (reply.status_code, reply.headers["content-type"]) == (200, "image/png")


@pytest.fixture(scope="module")
def file(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file for the local providers."""
    folder = tmp_path_factory.mktemp("mounts")
    write_config(folder / "imagegate.toml", running.ports, store=folder / "images")
    return folder / "imagegate.toml"


@pytest.fixture(scope="module")
def config(file: Path) -> Config:
    return load_config(file)


# FastAPI


@pytest.fixture(scope="module")
def fastapi(file: Path) -> Iterator[str]:
    """A FastAPI service with routes of its own, some of them near the gateway's, and CORS around everything."""
    app = FastAPI()
    app.add_middleware(ImageGateway, config=file)
    app.add_middleware(CORSMiddleware, allow_origins=["https://app.example.com"], allow_methods=["POST"])

    @app.get("/hello")
    def hello() -> dict[str, str]:
        return {"hello": "world"}

    @app.api_route(GENERATIONS, methods=["GET", "HEAD", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    async def near(request: Request) -> dict[str, str]:
        return {"host": request.method, "body": (await request.body()).decode()}

    @app.post("/v1/images/generations/{name}")
    async def below(name: str, request: Request) -> dict[str, str]:
        return {"name": name, "body": (await request.body()).decode()}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> dict[str, str]:
        return {"chat": (await request.body()).decode()}

    @app.get("/images/logo.png")
    def logo() -> PlainTextResponse:
        return PlainTextResponse("the logo of the host")

    @app.get("/images")
    def images() -> dict[str, str]:
        return {"images": "of the host"}

    @app.websocket(GENERATIONS)
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(f"echo {await websocket.receive_text()}")
        await websocket.close()

    with serving(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("path", [GENERATIONS, f"{GENERATIONS}/"])
def test_fastapi(fastapi: str, path: str) -> None:
    """One line mounts the gateway; the path may end in a slash, and links lead back to the service."""
    link = link_of(httpx.post(fastapi + path, json=ASKED))
    assert link.startswith(f"{fastapi}/images/")
    assert loads(link)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "/v1/models?recommended_for=image"])
def test_models_of_a_mounted_gateway(fastapi: str, path: str) -> None:
    """The list of models is the gateway's, with or without a slash or a query."""
    assert "flux-pro" in {model["id"] for model in httpx.get(fastapi + path).json()["data"]}


def test_routes_of_the_host(fastapi: str) -> None:
    """Everything that is not for the gateway reaches the host: its routes, its documents, its own 404."""
    assert httpx.get(f"{fastapi}/hello").json() == {"hello": "world"}
    assert httpx.get(f"{fastapi}/images").json() == {"images": "of the host"}
    assert "/hello" in httpx.get(f"{fastapi}/openapi.json").json()["paths"]
    assert httpx.get(f"{fastapi}/nowhere").json() == {"detail": "Not Found"}
    assert httpx.post(f"{fastapi}/v1/chat/completions", content=b"\xc3\xa9 any").json() == {"chat": "é any"}
    assert httpx.post(f"{fastapi}{GENERATIONS}/x", content=b"any").json() == {"name": "x", "body": "any"}
    assert "imagegate-upstream" not in httpx.get(f"{fastapi}/hello").headers


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_other_methods_are_the_hosts(fastapi: str, method: str) -> None:
    """On the path of generations only POST is the gateway's."""
    reply = httpx.request(method, fastapi + GENERATIONS, content=b"any")
    assert reply.json() == {"host": method, "body": "any"}


def test_head_and_options_are_the_hosts(fastapi: str) -> None:
    """HEAD and OPTIONS of the API's paths reach the host; a link of the gateway's own answers HEAD without its body."""
    assert httpx.head(fastapi + GENERATIONS).status_code == 200
    assert httpx.options(fastapi + GENERATIONS).status_code == 405
    assert httpx.head(f"{fastapi}/v1/models").status_code == 404
    link = link_of(httpx.post(fastapi + GENERATIONS, json=ASKED))
    reply = httpx.head(link)
    assert (reply.status_code, reply.content) == (200, b"")
    assert int(reply.headers["content-length"]) == len(httpx.get(link).content)
    assert httpx.options(link).status_code == 404


def test_pictures_of_the_host(fastapi: str) -> None:
    """A host that has files of its own below /images keeps them: they are not for the gateway."""
    reply = httpx.get(f"{fastapi}/images/logo.png")
    assert (reply.status_code, reply.text) == (200, "the logo of the host")


def test_cors_is_the_hosts(fastapi: str) -> None:
    """The host's CORS answers preflights and adds its headers to the gateway's answers."""
    origin = {"origin": "https://app.example.com"}
    preflight = httpx.options(fastapi + GENERATIONS, headers={**origin, "access-control-request-method": "POST"})
    assert (preflight.status_code, preflight.text) == (200, "OK")
    for body in (ASKED, {}):
        reply = httpx.post(fastapi + GENERATIONS, json=body, headers=origin)
        assert reply.headers["access-control-allow-origin"] == "https://app.example.com"


def test_websocket_is_the_hosts(fastapi: str) -> None:
    """A websocket on the very path of generations reaches the host."""
    with connect(f"ws{fastapi.removeprefix('http')}{GENERATIONS}", proxy=None) as websocket:
        websocket.send("kite")
        assert websocket.recv() == "echo kite"


# Starlette


def test_starlette_middleware(config: Config) -> None:
    """The gateway is a `Middleware` of Starlette; the state of its lifespan reaches its routes."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        yield {"from": "lifespan"}

    async def home(request: Request) -> JSONResponse:
        return JSONResponse({"from": getattr(request.state, "from")})

    app = Starlette(
        routes=[Route("/", home)], middleware=[Middleware(ImageGateway, config=config, hooks=())], lifespan=lifespan
    )
    with serving(app) as port:
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(url).json() == {"from": "lifespan"}
        assert loads(link_of(httpx.post(url + GENERATIONS, json=ASKED)))


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_beside_a_base_http_middleware(config: Config, where: str) -> None:
    """A BaseHTTPMiddleware on either side of the gateway sees what is its own and breaks nothing."""
    seen: list[str] = []

    async def note(request: Request, call_next: Any) -> Response:
        seen.append(request.url.path)
        response: Response = await call_next(request)
        return response

    gateway, noting = Middleware(ImageGateway, config=config, hooks=()), Middleware(BaseHTTPMiddleware, dispatch=note)
    with serving(Starlette(middleware=[gateway, noting] if where == "inside" else [noting, gateway])) as port:
        url = f"http://127.0.0.1:{port}"
        assert loads(link_of(httpx.post(url + GENERATIONS, json=ASKED)))
        assert httpx.post(url + GENERATIONS, json={}).status_code == 400
        assert httpx.get(f"{url}/other").status_code == 404
    assert [path for path in seen if where == "inside" or path == "/other"] == ["/other"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_mount(config: Config, slash: str) -> None:
    """Below a path the gateway answers there, its links lead there, and the host keeps everything else."""
    gateway = ImageGateway(config=config, hooks=())

    async def home(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.method} of the host")

    routes = [Mount("/pictures", gateway), Route("/{path:path}", home, methods=["GET", "POST"])]
    with serving(Starlette(routes=routes, lifespan=gateway.lifespan)) as port:
        url = f"http://127.0.0.1:{port}"
        link = link_of(httpx.post(f"{url}/pictures{GENERATIONS}{slash}", json=ASKED))
        assert link.startswith(f"{url}/pictures/images/")
        assert loads(link)
        assert "data" in httpx.get(f"{url}/pictures/v1/models{slash}").json()
        assert httpx.post(f"{url}{GENERATIONS}", json=ASKED).text == "POST of the host"
        assert httpx.get(f"{url}/images/x.png").text == "GET of the host"
        reply = httpx.get(f"{url}/pictures/nowhere")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_url")


def test_mount_below_a_mount(config: Config) -> None:
    """Mount points add up."""
    gateway = ImageGateway(config=config, hooks=())
    app = Starlette(routes=[Mount("/a", routes=[Mount("/b", gateway)])], lifespan=gateway.lifespan)
    with serving(app) as port:
        link = link_of(httpx.post(f"http://127.0.0.1:{port}/a/b{GENERATIONS}", json=ASKED))
        assert urlsplit(link).path.startswith("/a/b/images/")
        assert loads(link)


def test_mount_point_that_looks_like_the_prefix(config: Config) -> None:
    """The mount point is taken off at a slash only, and only once."""
    gateway = ImageGateway(config=config, hooks=())
    with serving(Starlette(routes=[Mount("/v1", gateway)], lifespan=gateway.lifespan)) as port:
        url = f"http://127.0.0.1:{port}"
        assert loads(link_of(httpx.post(f"{url}/v1{GENERATIONS}", json=ASKED)))
        assert httpx.post(f"{url}{GENERATIONS}", json=ASKED).status_code == 404


def test_root_path(config: Config) -> None:
    """Behind a proxy that takes ``/api`` off, links have it, and both spellings of the path are understood."""
    gateway = ImageGateway(config=config, hooks=())

    async def behind_a_proxy(scope: Scope, receive: Receive, send: Send) -> None:
        await gateway({**scope, "root_path": "/api"} if scope["type"] == "http" else scope, receive, send)

    with serving(behind_a_proxy) as port:
        url = f"http://127.0.0.1:{port}"
        for path in (GENERATIONS, f"/api{GENERATIONS}"):
            link = urlsplit(link_of(httpx.post(url + path, json=ASKED)))
            assert link.path.startswith("/api/images/")
            assert loads(urlunsplit(link))
            assert loads(urlunsplit(link._replace(path=link.path.removeprefix("/api"))))
        assert httpx.post(f"{url}/apiv1/images/generations", json=ASKED).status_code == 404


@pytest.mark.parametrize("prefix", ["", "/openai/v1"])
def test_prefix(running: Running, tmp_path: Path, prefix: str) -> None:
    """``prefix`` says what the paths begin with; the empty one is none."""
    document = f"""
        prefix = "{prefix}"
        [[upstreams]]
        name = "onetoken"
        base_url = "http://127.0.0.1:{running.ports["onetoken"]}"
        api_key = "sk-demo-key"
        [delivery]
        store = "file://{tmp_path}"
    """
    with serving(ImageGateway(config=parse_config(document), hooks=())) as port:
        url = f"http://127.0.0.1:{port}"
        assert loads(link_of(httpx.post(f"{url}{prefix}/images/generations", json=ASKED)))
        assert "data" in httpx.get(f"{url}{prefix}/models").json()
        assert httpx.post(f"{url}/v1/images/generations", json=ASKED).status_code in (404, 405)


# Alone


@pytest.fixture(scope="module")
def alone(config: Config) -> Iterator[str]:
    with serving(ImageGateway(config=config, hooks=())) as port:
        yield f"http://127.0.0.1:{port}"


def test_alone(alone: str) -> None:
    """Without an application the gateway answers everything in the envelope, and says that it is well."""
    assert loads(link_of(httpx.post(alone + GENERATIONS, json=ASKED)))
    assert httpx.get(f"{alone}/healthz").json() == {"status": "ok"}
    assert httpx.head(f"{alone}/healthz").status_code == 200
    for method, path, status, code in (
        ("GET", "/", 404, "unknown_url"),
        ("GET", GENERATIONS, 405, "method_not_allowed"),
        ("OPTIONS", f"{GENERATIONS}/", 405, "method_not_allowed"),
        ("POST", "/v1/chat/completions", 404, "unknown_url"),
        ("POST", f"{GENERATIONS}//", 404, "unknown_url"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("POST", "/health", 404, "unknown_url"),
    ):
        reply = httpx.request(method, alone + path)
        assert (method, path, status, code) == (method, path, reply.status_code, reply.json()["error"]["code"])
        allowed = "GET, HEAD" if path == "/healthz" else "POST"
        assert (allowed if status == 405 else None) == reply.headers.get("allow")
    assert httpx.head(alone + GENERATIONS).status_code == 405


def test_websocket_alone(alone: str) -> None:
    """Without an application a websocket is refused."""
    with pytest.raises(InvalidStatus), connect(f"ws{alone.removeprefix('http')}/ws", proxy=None):
        pass


# Lifespan


def lifespan_of(app: ASGIApp, *messages: str) -> list[Message]:
    """What an application answers to a server's messages."""
    pending = list(messages)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": pending.pop(0)}

    async def send(message: Message) -> None:
        sent.append(message)

    lint = Lint(app)
    asyncio.run(lint({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))
    assert lint.problems == []
    return sent


def hosted(config: Config, *, startup: str = "", shutdown: str = "") -> tuple[ImageGateway, list[str]]:
    """The gateway in front of a host whose lifespan is noted, and may fail with a message."""
    happened: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        happened.append("startup")
        if startup:
            raise RuntimeError(startup)
        yield
        happened.append("shutdown")
        if shutdown:
            raise RuntimeError(shutdown)

    return ImageGateway(Starlette(lifespan=lifespan), config=config, hooks=()), happened


def test_lifespan_of_the_host(config: Config) -> None:
    """The host's startup and shutdown run, once each and in order."""
    app, happened = hosted(config)
    sent = lifespan_of(app, "lifespan.startup", "lifespan.shutdown")
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert happened == ["startup", "shutdown"]


@pytest.mark.parametrize("failing", ["startup", "shutdown"])
def test_lifespan_failure_of_the_host(config: Config, failing: str) -> None:
    """A host that cannot start, or stop, tells the server so itself, in its own words."""
    app, _ = hosted(config, **{failing: "no database"})
    sent: list[Message] = []
    messages = ["lifespan.startup", "lifespan.shutdown"]

    async def receive() -> Message:
        return {"type": messages.pop(0)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    with pytest.raises(RuntimeError, match="no database"):
        asyncio.run(app(scope, receive, send))
    assert sent[-1]["type"] == f"lifespan.{failing}.failed"
    assert "no database" in sent[-1]["message"]


class KeptConnections(socketserver.ThreadingTCPServer):
    """A provider that keeps its connections open and notes when the other side closes them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Kept)
        self.opened: list[None] = []
        self.closed: list[None] = []


class _Kept(socketserver.StreamRequestHandler):
    server: KeptConnections

    def handle(self) -> None:
        self.server.opened.append(None)
        with contextlib.suppress(ConnectionError):
            while self.rfile.readline():
                length = 0
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                self.rfile.read(length)
                body = b'{"created":1,"data":[{"url":"https://example.com/kite.png"}]}'
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        self.server.closed.append(None)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[KeptConnections, Config]]:
    """A provider that notes connections, and the configuration for it."""
    with KeptConnections() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        document = f"""
            [[upstreams]]
            name = "openai"
            base_url = "http://127.0.0.1:{server.server_address[1]}"
            api_key = "key"
            [delivery]
            store = "file://{tmp_path}"
        """
        yield server, parse_config(document)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("how", ["middleware", "mount", "alone"])
def test_connections_are_closed_at_shutdown(kept: tuple[KeptConnections, Config], how: str) -> None:
    """When the server stops, no connection to a provider stays open, however the gateway was mounted."""
    server, config = kept
    gateway = ImageGateway(config=config, hooks=())
    app: Any = {
        "middleware": Starlette(middleware=[Middleware(ImageGateway, config=config, hooks=())]),
        "mount": Starlette(routes=[Mount("/", gateway)], lifespan=gateway.lifespan),
        "alone": gateway,
    }[how]
    with serving(app) as port:
        for _ in range(2):
            link_of(httpx.post(f"http://127.0.0.1:{port}{GENERATIONS}", json={**ASKED, "model": "dall-e-2"}))
        assert (len(server.opened), len(server.closed)) == (1, 0)
    assert until(lambda: len(server.closed) == 1)


def test_connections_are_closed_where_the_host_fails_to_stop(kept: tuple[KeptConnections, Config]) -> None:
    """Also a host whose shutdown fails leaves no connection behind."""
    server, config = kept
    app, happened = hosted(config, shutdown="too late")
    with serving(app) as port:
        link_of(httpx.post(f"http://127.0.0.1:{port}{GENERATIONS}", json={**ASKED, "model": "dall-e-2"}))
    assert happened == ["startup", "shutdown"]
    assert until(lambda: len(server.closed) == 1)


# Processes


class Process:
    """A program that was started by a test."""

    def __init__(self, arguments: list[str], folder: Path, **environment: str) -> None:
        self._log = folder / f"{arguments[1].replace('/', '_')}.log"
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                arguments, cwd=folder, stdout=log, stderr=log, env={**os.environ, **environment}, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def url(self) -> str:
        """Where it listens, once it does."""

        def found() -> str | None:
            assert self.popen.poll() is None, self.log
            match = re.search(r"running on (http://127\.0\.0\.1:[0-9]+)", self.log)
            return match[1] if match else None

        url: str = until(found)
        return url

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(TIMEOUT)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts programs in a folder of their own, and ends what is left of them."""
    started: list[Process] = []

    def start(*arguments: str, **environment: str) -> Process:
        started.append(Process(list(arguments), tmp_path, **environment))
        return started[-1]

    yield start
    for process in started:
        if process.popen.poll() is None:
            os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.wait()


SCRIPT = shutil.which("imagegate", path=str(Path(sys.executable).parent)) or "imagegate"


def test_serve(start: Callable[..., Process], file: Path) -> None:
    """``imagegate serve`` runs the gateway, writes a line of JSON for each exchange, and ends well on SIGTERM."""
    process = start(SCRIPT, "serve", "--config", str(file), "--port", "0")
    url = process.url()
    reply = httpx.post(url + GENERATIONS, json=ASKED, headers={"x-request-id": "own-id"})
    assert loads(link_of(reply))
    assert "server" not in reply.headers
    (line,) = until(lambda: [line for line in process.log.splitlines() if '"event":"exchange"' in line])
    record = json.loads(line)
    assert (record["request_id"], record["status"], record["upstream"]) == ("own-id", 200, "onetoken")
    assert not re.search("red kite|sk-demo|signature", process.log)
    assert process.stop() == 0
    assert "Traceback" not in process.log


def test_serve_ends_well_on_interrupt(start: Callable[..., Process], file: Path) -> None:
    """Ctrl-C ends ``imagegate serve`` without a traceback."""
    process = start(SCRIPT, "serve", "--config", str(file), "--port", "0")
    assert httpx.get(f"{process.url()}/healthz").status_code == 200
    assert process.stop(signal.SIGINT) in (0, 130)
    assert "Traceback" not in process.log


def test_uvicorn_standalone(start: Callable[..., Process], file: Path) -> None:
    """``uvicorn imagegate.standalone:app`` takes the file that IMAGEGATE_CONFIG names, here with a root path."""
    arguments = (sys.executable, "-m", "uvicorn", "imagegate.standalone:app", "--port", "0", "--root-path", "/api")
    process = start(*arguments, IMAGEGATE_CONFIG=str(file))
    link = urlsplit(link_of(httpx.post(process.url() + GENERATIONS, json=ASKED)))
    assert link.path.startswith("/api/images/")
    assert loads(urlunsplit(link._replace(path=link.path.removeprefix("/api"))))
    assert process.stop() in (0, -signal.SIGTERM)  # uvicorn's own way to end
    assert "Traceback" not in process.log


def test_a_host_with_a_mistake_in_the_configuration(start: Callable[..., Process], tmp_path: Path) -> None:
    """A configuration that cannot be used stops the server at its start, with the line and the key."""
    (tmp_path / "imagegate.toml").write_text("[[upstreams]]\nname = 'nobody'")
    (tmp_path / "host.py").write_text(
        "from fastapi import FastAPI\nfrom imagegate import ImageGateway\n"
        "app = FastAPI()\napp.add_middleware(ImageGateway, config='imagegate.toml')\n"
    )
    process = start(sys.executable, "-m", "uvicorn", "host:app", "--port", "0")
    assert process.popen.wait(TIMEOUT) == 3
    assert "imagegate.toml:2: upstreams[0].name: There is no adapter 'nobody'" in process.log
    assert "running on" not in process.log


def test_a_mistake_in_the_configuration_under_a_test_client() -> None:
    """The client raises it, again and again, instead of waiting for ever; the errors do not grow."""
    app = FastAPI()
    app.add_middleware(ImageGateway, config=Config())
    depths: list[int] = []
    for _ in range(3):
        with pytest.raises(ConfigError, match="at least one") as starting, TestClient(app):
            pass
        with pytest.raises(ConfigError, match="at least one") as asking:
            TestClient(app).post(GENERATIONS, json=ASKED)
        assert starting.value is not asking.value
        depths.append(len(traceback.extract_tb(asking.value.__traceback__)))
    assert len(set(depths)) == 1


HOST_THAT_CANNOT_START = """
import contextlib
from starlette.applications import Starlette
from starlette.middleware import Middleware
from imagegate import ImageGateway


@contextlib.asynccontextmanager
async def lifespan(app):
    raise RuntimeError("no database")
    yield


app = Starlette(middleware=[Middleware(ImageGateway, config="imagegate.toml")], lifespan=lifespan)
"""


def test_a_server_does_not_start_where_the_host_does_not(
    start: Callable[..., Process], tmp_path: Path, file: Path
) -> None:
    """uvicorn takes the host's failure for what it is, and ends."""
    (tmp_path / "host.py").write_text(HOST_THAT_CANNOT_START.replace('"imagegate.toml"', repr(str(file))))
    process = start(sys.executable, "-m", "uvicorn", "host:app", "--port", "0")
    assert process.popen.wait(TIMEOUT) == 3
    assert "RuntimeError: no database" in process.log
    assert "running on" not in process.log


def workers_of(process: Process) -> list[int]:
    """The ids of a server's worker processes."""
    parent = process.popen.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@contextlib.contextmanager
def stopped(worker: int) -> Iterator[None]:
    """A worker that takes no connections, so that the other one must."""
    os.kill(worker, signal.SIGSTOP)
    try:
        until(lambda: Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="tells workers apart by /proc")
def test_workers_share_the_store(start: Callable[..., Process], file: Path) -> None:
    """With two workers a link that one of them made loads from the other, and all of them end on SIGTERM."""
    process = start(SCRIPT, "serve", "--config", str(file), "--port", "0", "--workers", "2")
    url = process.url()
    until(lambda: process.log.count("Application startup complete") == 2)
    first, second = workers_of(process)
    with stopped(first):
        made_by_second = link_of(httpx.post(url + GENERATIONS, json=ASKED))
    with stopped(second):
        made_by_first = link_of(httpx.post(url + GENERATIONS, json=ASKED))
        assert loads(made_by_second)
    with stopped(first):
        assert loads(made_by_first)
        assert loads(made_by_second)
    assert process.stop() == 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in (first, second))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[[upstreams]]\nname = 'nobody'", "imagegate.toml:2: upstreams[0].name: There is no adapter 'nobody'"),
        ("[[upstreams]]\nname = 'openai'\n[delivery]\nstore = 's3://x'", "delivery.store"),
    ],
)
def test_serve_with_a_mistake(start: Callable[..., Process], tmp_path: Path, document: str, message: str) -> None:
    """A mistake in the file is told in one line before anything listens, and the code is 1."""
    (tmp_path / "imagegate.toml").write_text(document)
    process = start(SCRIPT, "serve", "--port", "0")
    assert process.popen.wait(TIMEOUT) == 1
    assert message in process.log
    assert "Traceback" not in process.log
