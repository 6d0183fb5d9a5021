"""SIGHUP: another configuration for new requests, while everything that began before goes on."""

from __future__ import annotations

import asyncio
import base64
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.waiting import until
from tests.wire.edit_support import Process, gateway_process
from tests.wire.field_support import SMALL

from imagegate.demo.servers import serving

APPLIED = "the configuration was applied"
REFUSED = "the configuration is refused"
KEY = "key-of-alice"
GENERATIONS = "/v1/images/generations"
LIMITS = "[access.principals.key-1.limits]\nrequests_per_day = 1000\n"
TASK: dict[str, Any] = {"async": True}
PICTURE = base64.b64encode(SMALL).decode()


class Provider:
    """Makes a picture for each request; where the prompt says ``held``, when it may."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.held = 0
        self.app = Starlette(routes=[Route(GENERATIONS, self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        if "slow" in body["prompt"]:
            await asyncio.sleep(0.1)
        if "held" in body["prompt"]:
            self.held += 1
            while not self.may_end.is_set():
                await asyncio.sleep(0.01)
        return JSONResponse({"created": 1, "data": [{"b64_json": PICTURE}]})


@pytest.fixture(scope="module")
def provider() -> Iterator[tuple[Provider, int]]:
    provider = Provider()
    with serving(provider.app) as port:
        yield provider, port


class Configured:
    """A configuration file that is written anew.

    Args:
        port: of the provider.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.path = folder / "imagegate.toml"
        self._port = port
        self._store = folder / "images"
        self.write()

    def write(self, *, model: str = "kites", keys: str = f'["{KEY}", "key-of-all"]', more: str = "") -> None:
        self.path.write_text(
            f'[[upstreams]]\nname = "painter"\nadapter = "openai"\nbase_url = "http://127.0.0.1:{self._port}"\n'
            f'api_key = "sk"\n[routes]\n"{model}" = ["painter/any"]\n[access]\nkeys = {keys}\n'
            f'[delivery]\nstore = "file://{self._store}"\n{more}'
        )


@pytest.fixture(scope="module")
def configured(provider: tuple[Provider, int], tmp_path_factory: pytest.TempPathFactory) -> Configured:
    return Configured(tmp_path_factory.mktemp("reload"), provider[1])


@pytest.fixture(scope="module")
def process(configured: Configured) -> Iterator[Process]:
    """A gateway whose key may send so many requests that no test comes near."""
    configured.write(more=LIMITS)
    with gateway_process(configured.path) as process:
        yield process


@pytest.fixture
def started(configured: Configured, process: Process) -> Process:
    """The gateway with the first configuration again."""
    configured.write(more=LIMITS)
    hang_up(process)
    return process


def hang_up(process: Process, outcome: str = APPLIED) -> None:
    """Send the signal, and wait for the line that says what became of it."""
    seen = process.log.count(outcome)
    process.process.send_signal(signal.SIGHUP)
    until(lambda: process.log.count(outcome) > seen, what=outcome)


def post(process: Process, *, model: str = "kites", key: str = KEY, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}", **more.pop("headers", {})}
    body = {"model": model, "prompt": "A kite", "response_format": "b64_json", **more}
    return httpx.post(f"{process.url}{GENERATIONS}", json=body, headers=headers, timeout=20)


def get(process: Process, path: str) -> httpx.Response:
    return httpx.get(f"{process.url}{path}", headers={"authorization": f"Bearer {KEY}"}, timeout=20)


def test_routes_and_keys_take_effect_and_what_was_made_stays(configured: Configured, started: Process) -> None:
    """A task, a reply under a key, a link and the figures of a request are there afterwards."""
    link = post(started, response_format="url").json()["data"][0]["url"]
    task = post(started, **TASK).json()
    until(lambda: get(started, task["poll_url"]).json()["status"] == "completed")
    named: dict[str, Any] = {"headers": {"idempotency-key": "once"}}
    first = post(started, **named)
    configured.write(model="birds", keys=f'["{KEY}", "key-of-bob"]')
    hang_up(started)
    assert post(started, model="kites").json()["error"]["code"] == "model_not_found"
    assert post(started, model="birds", key="key-of-bob").status_code == 200
    assert post(started, key="key-of-all").status_code == 401
    assert get(started, task["poll_url"]).json()["status"] == "completed"
    assert httpx.get(link).headers["content-type"].startswith("image/")
    again = post(started, **named)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    assert again.json() == first.json()


def test_what_is_under_way_ends_as_it_began(
    configured: Configured, started: Process, provider: tuple[Provider, int]
) -> None:
    """A request at the provider, a stream and a task are answered, though their route is gone, and keep their keys."""
    held = provider[0]
    keyed: dict[str, Any] = {"headers": {"idempotency-key": "k"}}
    with ThreadPoolExecutor(4) as pool:
        bodies: dict[str, dict[str, Any]] = {"plain": {}, "stream": {"stream": True}, "keyed": keyed}
        calls = [pool.submit(post, started, prompt=f"held {name}", **more) for name, more in bodies.items()]
        task = post(started, prompt="held task", **TASK).json()
        until(lambda: held.held == 4)
        configured.write(model="birds")
        hang_up(started)
        joined = pool.submit(post, started, prompt="held keyed", **keyed)
        assert post(started).status_code == 404
        assert get(started, task["poll_url"]).json()["status"] == "processing"
        held.may_end.set()
        plain, stream, once = (call.result() for call in calls)
    assert [answer.status_code for answer in (plain, stream, once)] == [200] * 3, stream.text
    assert "image_generation.completed" in stream.text
    assert joined.result().json() == once.json()
    until(lambda: get(started, task["poll_url"]).json()["status"] == "completed")
    assert held.held == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"more": "[policy]\nretries = -1\n"}, "imagegate.toml:13: policy.retries: must be from 0 to 100"),
        ({"more": "[policy\n"}, "imagegate.toml: "),
        ({"more": "[tasks]\nin_flight = 7\n"}, "tasks: cannot change while the gateway runs"),
        ({"more": 'link_ttl = "1h"\n'}, "delivery.link_ttl: cannot change while the gateway runs"),
        ({"keys": "[]"}, "cannot begin or cease to ask for keys"),
    ],
)
def test_a_bad_file_is_refused(configured: Configured, started: Process, change: dict[str, str], reason: str) -> None:
    """One line says where and why, and the configuration before goes on."""
    configured.write(model="birds", **change)
    hang_up(started, REFUSED)
    assert reason in [line for line in started.log.splitlines() if REFUSED in line][-1]
    assert post(started).status_code == 200
    assert post(started, model="birds").status_code == 404


def test_limits_take_effect_and_counts_go_on(configured: Configured, started: Process) -> None:
    """What was used under a limit before counts under the new one."""
    used = get(started, "/v1/usage").json()["day"]["requests"]
    assert [post(started).status_code for _ in range(2)] == [200] * 2
    assert get(started, "/v1/usage").json()["day"]["requests"] == used + 2
    configured.write(more=LIMITS.replace("1000", str(used + 3)))
    hang_up(started)
    assert [post(started).status_code for _ in range(3)] == [200, 429, 429]


def lost(process: Process, configured: Configured, *, signals: int, of: int) -> list[httpx.Response]:
    """Send so many requests, with the signal between them, and return the answers that are not an image."""

    def send(place: int) -> httpx.Response:
        if place % (of // signals) == of // signals // 2:
            configured.path.write_text(text.replace('"kites"', f'"kites-{place}"'))
            process.process.send_signal(signal.SIGHUP)
        return post(process, model="birds", prompt="slow" if place % 8 == 0 else "A kite")

    text = configured.path.read_text()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(of)))
    return [answer for answer in answers if answer.status_code != 200]


def test_no_request_is_lost(configured: Configured, started: Process) -> None:
    """Of two hundred requests each has its image, though the signal comes eight times meanwhile."""
    configured.write(model='birds" = ["painter/any"]\n"kites', more=LIMITS)
    hang_up(started)
    applied = started.log.count(APPLIED)
    assert lost(started, configured, signals=8, of=200) == []
    until(lambda: started.log.count(APPLIED) > applied)


@pytest.fixture(scope="module")
def workers(provider: tuple[Provider, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    configured = Configured(tmp_path_factory.mktemp("workers"), provider[1])
    with gateway_process(configured.path, arguments=("--workers", "2", "--grace", "10")) as process:
        until(lambda: process.log.count("Application startup complete") == 2, what="both workers")
        yield Workers(configured, process)


class Workers:
    """A gateway of two processes."""

    def __init__(self, configured: Configured, process: Process) -> None:
        self.configured = configured
        self.process = process

    def hang_up(self, outcome: str = APPLIED) -> None:
        """Send the signal to the parent, and wait for both."""
        seen = self.process.log.count(outcome)
        self.process.process.send_signal(signal.SIGHUP)
        until(lambda: self.process.log.count(outcome) == seen + 2, what=f"{outcome}, twice")

    def statuses(self, model: str) -> set[int]:
        """Of enough requests, each on a connection of its own, that both have some."""
        return {post(self.process, model=model).status_code for _ in range(12)}

    def pids(self) -> list[str]:
        return Path(f"/proc/{self.process.process.pid}/task/{self.process.process.pid}/children").read_text().split()


def test_the_signal_reaches_every_worker(workers: Workers) -> None:
    """Each applies the file in place, and no request is lost meanwhile."""
    workers.configured.write(model='birds" = ["painter/any"]\n"kites')
    workers.hang_up()
    before = workers.pids()
    assert lost(workers.process, workers.configured, signals=1, of=60) == []
    until(lambda: workers.statuses("kites-30") == {200})
    assert workers.pids() == before


def test_a_bad_file_is_refused_by_every_worker(workers: Workers) -> None:
    """Each says where and why, goes on as before, and applies the file once it is mended."""
    workers.configured.write(model="cats")
    workers.hang_up()
    before = workers.pids()
    for more, reason in (
        ("[policy]\nretries = -1\n", "imagegate.toml:13: policy.retries: must be from 0 to 100"),
        ("[tasks]\nin_flight = 7\n", "tasks: cannot change while the gateway runs"),
    ):
        workers.configured.write(model="dogs", more=more)
        workers.hang_up(REFUSED)
        lines = [line for line in workers.process.log.splitlines() if REFUSED in line][-2:]
        assert all(reason in line for line in lines), lines
        assert (workers.statuses("cats"), workers.statuses("dogs")) == ({200}, {404})
    workers.configured.write(model="dogs")
    workers.hang_up()
    assert (workers.statuses("cats"), workers.statuses("dogs")) == ({404}, {200})
    assert workers.pids() == before


def test_streams_go_on_in_every_worker(workers: Workers, provider: tuple[Provider, int]) -> None:
    """Streams whose route is gone end as they began."""
    held = provider[0]
    held.may_end.clear()
    workers.configured.write(model="cats")
    workers.hang_up()
    first = held.held
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(post, workers.process, model="cats", prompt="held", stream=True) for _ in range(6)]
        until(lambda: held.held == first + 6)
        workers.configured.write(model="dogs")
        workers.hang_up()
        assert workers.statuses("cats") == {404}
        held.may_end.set()
        answers = [call.result() for call in calls]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert all("image_generation.completed" in answer.text for answer in answers)
