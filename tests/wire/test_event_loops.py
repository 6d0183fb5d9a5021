"""One gateway in one event loop after another, in two at a time, under trio, and under hypercorn."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from fastapi import FastAPI
from starlette.testclient import TestClient
from tests.ports import free_port
from tests.waiting import until
from tests.wire.keeping_support import Origin, write_config

from imagegate import ImageGateway
from imagegate.demo.servers import serving
from imagegate.standalone import Standalone

GENERATIONS = "/v1/images/generations"
# A loop that ends without `aclose` leaves connections to the collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a test leaves behind is no other's."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def origin() -> Iterator[tuple[Origin, int]]:
    origin = Origin()
    with serving(origin) as port:
        yield origin, port
        origin.gate.set()


@pytest.fixture
def config(origin: tuple[Origin, int], tmp_path: Path) -> Path:
    path = write_config(tmp_path, origin[1], more="[console]\nenabled = true")
    text = path.read_text().replace(f"file://{(tmp_path / 'images').as_posix()}", "memory://")
    path.write_text(text.replace('api_key = "sk-provider-0123456789"', 'api_key = "sk-provider"\nmax_in_flight = 1'))
    return path


def asked(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-image-1.5", "prompt": prompt, **more}


def client_of(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=30)


async def several(app: Any, prompt: str, key: str = "") -> list[int]:
    """Statuses of three requests at the same time, which one permit is for."""
    headers = {"idempotency-key": key} if key else {}
    async with client_of(app) as client:
        replies = await asyncio.gather(
            *(client.post(GENERATIONS, json=asked(prompt), headers=headers) for _ in range(3))
        )
    while len(app.loop_services.background):  # an answer is kept after its client has it
        await asyncio.sleep(0.01)
    return [reply.status_code for reply in replies]


def test_one_loop_after_another(origin: tuple[Origin, int], config: Path) -> None:
    """Whatever waited in a loop that has ended, the next one waits for itself; what memory holds is still there."""
    gateway = ImageGateway(config=config, hooks=())
    for turn in range(3):
        assert asyncio.run(several(gateway, f"loop {turn}")) == [200] * 3
        assert asyncio.run(several(gateway, f"key {turn}", f"key {turn}")) == [200] * 3
        assert origin[0].made(f"key {turn}") == 1

    async def made() -> tuple[str, str]:
        async with client_of(gateway) as client:
            reply = await client.post(GENERATIONS, json=asked("kept", response_format="url"))
            task = await client.post(GENERATIONS, json=asked("a task", **{"async": True}))
            location = task.headers["location"]
            while (await client.get(location)).json()["status"] != "completed":
                await asyncio.sleep(0.01)
        return reply.json()["data"][0]["url"], location

    async def found(*paths: str) -> list[int]:
        async with client_of(gateway) as client:
            return [(await client.get(path)).status_code for path in (*paths, "/console/exchanges")]

    link, location = asyncio.run(made())
    assert asyncio.run(found(link, location)) == [200, 200, 200]
    assert asyncio.run(several(gateway, "key 0", "key 0")) == [200] * 3
    assert origin[0].made("key 0") == 1  # replayed
    asyncio.run(gateway.aclose())
    assert asyncio.run(several(gateway, "after its end")) == [200] * 3
    asyncio.run(gateway.aclose())


def test_a_loop_that_ends_in_the_middle(origin: tuple[Origin, int], config: Path) -> None:
    """Its request may have been billed, and is not sent again; its permit is free."""
    gateway = ImageGateway(config=config, hooks=())
    origin[0].gate.clear()

    async def left() -> None:
        async with client_of(gateway) as client:
            work = client.post(GENERATIONS, json=asked("hold left"), headers={"idempotency-key": "left"})
            task = asyncio.create_task(work)
            while not origin[0].made("hold left"):
                await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(left())
    origin[0].gate.set()

    async def again() -> httpx.Response:
        async with client_of(gateway) as client:
            return await client.post(GENERATIONS, json=asked("hold left"), headers={"idempotency-key": "left"})

    reply = asyncio.run(again())
    assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")
    assert origin[0].made("hold left") == 1
    assert asyncio.run(several(gateway, "next")) == [200] * 3
    asyncio.run(gateway.aclose())


@pytest.mark.parametrize("with_lifespan", [True, False])
def test_test_clients(origin: tuple[Origin, int], config: Path, with_lifespan: bool) -> None:
    """With its lifespan a test client has one loop, without it one for each request."""
    app = FastAPI()
    app.add_middleware(ImageGateway, config=config)
    client = TestClient(app)
    if with_lifespan:
        with client:
            assert [client.post(GENERATIONS, json=asked("t")).status_code for _ in range(3)] == [200] * 3
    assert [client.post(GENERATIONS, json=asked("t")).status_code for _ in range(3)] == [200] * 3
    link = client.post(GENERATIONS, json=asked("t", response_format="url")).json()["data"][0]["url"]
    assert client.get(link).status_code == 200


def test_two_loops_at_a_time(config: Path) -> None:
    """The second one is told so at its first use, and the first one goes on."""
    gateway = ImageGateway(config=config, hooks=())
    with serving(gateway) as port:
        assert httpx.post(f"http://127.0.0.1:{port}{GENERATIONS}", json=asked("one")).status_code == 200
        with pytest.raises(RuntimeError, match="in use in another event loop"):
            asyncio.run(gateway({"type": "http", "method": "GET", "path": "/v1/models"}, None, None))  # type: ignore[arg-type]
        assert httpx.post(f"http://127.0.0.1:{port}{GENERATIONS}", json=asked("two")).status_code == 200
    assert asyncio.run(several(gateway, "later")) == [200] * 3
    asyncio.run(gateway.aclose())


@pytest.mark.parametrize("make", [lambda path: ImageGateway(config=path), lambda path: Standalone(_load(path))])
def test_trio(config: Path, make: Callable[[Path], Any]) -> None:
    """A server that runs its application on trio does not start, and is told why."""
    app = make(config)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def run(scope: Any) -> None:
        with pytest.raises(RuntimeError, match="imagegate runs on asyncio"):
            await app(scope, receive, send)

    trio.run(run, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}})
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "asyncio" in sent[0]["message"]
    trio.run(run, {"type": "http", "method": "GET", "path": "/v1/models", "headers": []})


def _load(path: Path) -> Any:
    from imagegate import load_config

    return load_config(path)


class Hypercorn:
    """``hypercorn imagegate.standalone:app`` as a process."""

    def __init__(self, folder: Path, config: Path, *arguments: str) -> None:
        self.port = free_port()
        self._log = folder / "hypercorn.log"
        command = (sys.executable, "-m", "hypercorn", "imagegate.standalone:app", "--bind", f"127.0.0.1:{self.port}")
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [*command, *arguments],
                stdout=log,
                stderr=log,
                env={"IMAGEGATE_CONFIG": str(config), "PATH": "/usr/bin"},
            )

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def wait_until_it_serves(self) -> None:
        until(lambda: self.popen.poll() is not None or "Running on" in self.log, what=self.log)


@pytest.fixture
def hypercorn(tmp_path: Path, config: Path) -> Iterator[Callable[..., Hypercorn]]:
    started: list[Hypercorn] = []

    def start(*arguments: str, config: Path = config) -> Hypercorn:
        started.append(Hypercorn(tmp_path, config, *arguments))
        return started[-1]

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.wait()


@pytest.mark.parametrize("worker", ["asyncio", "uvloop"])
def test_hypercorn(hypercorn: Callable[..., Hypercorn], worker: str) -> None:
    """It loads the application by its name, serves, drains, and ends on SIGTERM."""
    process = hypercorn("--worker-class", worker)
    process.wait_until_it_serves()
    url = f"http://127.0.0.1:{process.port}"
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
    link = httpx.post(url + GENERATIONS, json=asked("A kite", response_format="url")).json()["data"][0]["url"]
    assert httpx.get(link).headers["content-type"] == "image/png"
    assert 'imagegate_requests_total{model="gpt-image-1.5"' in httpx.get(f"{url}/metrics").text
    until(lambda: '"event":"exchange"' in process.log, what=process.log)
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(30) in (0, -signal.SIGTERM)
    assert "Traceback" not in process.log


@pytest.mark.parametrize(("worker", "wrong"), [("trio", False), ("asyncio", True)])
def test_hypercorn_does_not_start(
    hypercorn: Callable[..., Hypercorn], tmp_path: Path, worker: str, wrong: bool
) -> None:
    """On trio, and with a mistake in the configuration, it ends and says why."""
    arguments: dict[str, Any] = {}
    if wrong:
        arguments["config"] = tmp_path / "wrong.toml"
        arguments["config"].write_text('[[upstreams]]\nname = "nobody"')
    process = hypercorn("--worker-class", worker, **arguments)
    until(lambda: process.popen.poll() is not None, what=process.log)
    said = "There is no adapter 'nobody'" if wrong else "imagegate runs on asyncio"
    assert said in process.log


def test_importing_reads_no_configuration() -> None:
    """The application is made when it is first called."""
    code = "import imagegate.standalone as s; print(callable(vars(s)['app'])); s.app"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PATH": ""})
    assert (run.stdout, run.returncode) == ("True\n", 1)
    assert "no configuration file" in run.stderr
