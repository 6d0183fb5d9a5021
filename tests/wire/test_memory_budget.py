"""What requests hold in memory, on real sockets: a budget, beyond which they are refused, and all of it given back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import prometheus_client
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from tests.waiting import until
from tests.wire.edit_support import large_picture, picture
from tests.wire.faults import Connection, Request, Upstream

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving
from imagegate.prometheus import PrometheusHook

MIB = 1024 * 1024
FLOOR = 64 * 1024
GENERATIONS = "/v1/images/generations"
GOOD = {"created": 1, "data": [{"b64_json": base64.b64encode(picture()).decode()}]}
LIMITS = f"json_body = {4 * MIB}\nmemory = {12 * MIB}\nreply_body = {64 * MIB}"


class Counting:
    """What a behaviour could write before the gateway hung up."""

    written = 0


COUNTING = Counting()
SAY_SO = threading.Event()


def floods(status: int, content_type: str) -> Any:
    """Answers with 64 MiB of spaces, as long as somebody reads them."""

    async def behave(connection: Connection, request: Request) -> None:
        await connection.body(request)
        COUNTING.written = 0
        await connection.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(256):
            await connection.write(b"40000\r\n" + b" " * 0x40000 + b"\r\n")
            COUNTING.written += 0x40000

    return behave


async def good(connection: Connection, request: Request) -> None:
    await connection.body(request)
    await connection.json(200, GOOD)


async def waits(connection: Connection, request: Request) -> None:
    """Answers when the test says so, or the gateway hangs up."""
    await connection.body(request)
    leaving = asyncio.create_task(connection.left())
    while not (SAY_SO.is_set() or leaving.done()):
        await asyncio.sleep(0.01)
    leaving.cancel()
    await connection.json(200, GOOD)
    connection.writer.close()


async def bomb(connection: Connection, request: Request) -> None:
    """A reply of a few kilobytes that are 100 MiB of base64."""
    await connection.body(request)
    document = b'{"data":[{"b64_json":"' + base64.b64encode(picture()[:96]) + b"A" * 100 * MIB + b'"}]}'
    await connection.answer(200, gzip.compress(document), "content-encoding: gzip")


async def task(connection: Connection, request: Request) -> None:
    """A task whose reply carries 8 MiB of base64."""
    await connection.body(request)
    if request.method == "POST":
        await connection.json(200, {"id": "task-1", "status": "pending", "poll_url": "/task/v1/tasks/task-1"})
        return
    encoded = base64.b64encode(large_picture(6 * MIB)).decode()
    await connection.json(200, {"id": "task-1", "status": "completed", "created": 1, "data": [{"b64_json": encoded}]})


async def mislabelled(connection: Connection, request: Request) -> None:
    """A picture of 8 MiB, 11 in base64, in JSON that calls itself text."""
    await connection.body(request)
    document = {"created": 1, "data": [{"b64_json": base64.b64encode(large_picture(8 * MIB)).decode()}]}
    await connection.answer(200, json.dumps(document).encode(), content_type="text/plain")


BEHAVIOURS = {
    "good": good,
    "waits": waits,
    "bomb": bomb,
    "task": task,
    "mislabelled": mislabelled,
    "error": floods(500, "application/json"),
    "refusal": floods(400, "application/json"),
    "page": floods(200, "text/html"),
    "bytes": floods(200, "application/octet-stream"),
}


class Rig(NamedTuple):
    """A gateway, and how much it says to hold."""

    port: int
    registry: prometheus_client.CollectorRegistry

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def held(self) -> float:
        return self.registry.get_sample_value("imagegate_memory_held_bytes") or 0.0

    def post(self, upstream: str = "good", **members: Any) -> httpx.Response:
        document = {"model": f"{upstream}/any", "prompt": "A kite", **members}
        return httpx.post(f"{self.url}{GENERATIONS}", json=document, timeout=60)

    def is_empty(self) -> bool:
        return self.held == 0

    @contextlib.contextmanager
    def begun(
        self, body: bytes, *, length: int | None = None, kind: str = "application/json"
    ) -> Iterator[socket.socket]:
        """A request of which only so much is sent; without a length it comes in chunks."""
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            client.settimeout(20)
            client.connect(("127.0.0.1", self.port))
            framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
            head = f"POST {GENERATIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n"
            client.sendall(head.encode() + (body if length is not None else b"%x\r\n%b\r\n" % (len(body), body)))
            yield client


@pytest.fixture(scope="module", params=["alone", "mounted"])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """As an application of its own, and in front of one."""
    folder: Path = tmp_path_factory.mktemp("memory")
    upstream, registry = Upstream(BEHAVIOURS), prometheus_client.CollectorRegistry()
    with upstream.running() as port:
        upstreams = "\n".join(
            f'[[upstreams]]\nname = "{name}"\nadapter = "openai"\nbase_url = "http://127.0.0.1:{port}/{name}"\n'
            'api_key = "sk-0123456789abcdef"'
            for name in BEHAVIOURS
        )
        policy = "retries = 0\nbreaker_failures = 0"
        tasks = 'poll_interval = "20ms"'
        document = (
            f'{upstreams}\n[delivery]\nstore = "file://{folder}"\n[limits]\n{LIMITS}\n[policy]\n{policy}\n'
            f"[tasks]\n{tasks}\n[console]\nenabled = true"
        )
        options: Any = {"config": parse_config(document), "hooks": [PrometheusHook(registry=registry)]}
        if request.param == "alone":
            app: Any = ImageGateway(**options)
        else:
            app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("host"))])
            app.add_middleware(ImageGateway, **options)
        with serving(app) as own:
            yield Rig(own, registry)


@pytest.fixture(autouse=True)
def all_is_given_back(rig: Rig) -> Iterator[None]:
    SAY_SO.clear()
    yield
    SAY_SO.set()
    until(rig.is_empty, what="the end of what was held")


LARGE = 3 * MIB
"""Bytes of a body that is held twice over, so that there is room for one and not for two."""


def padded(upstream: str = "good", size: int = LARGE) -> bytes:
    return json.dumps({"model": f"{upstream}/any", "prompt": "A kite", "user": "u" * size}).encode()


def status_of(client: socket.socket) -> tuple[int, bytes]:
    """Status and the rest of an answer, as far as it is there."""
    answer = client.recv(65536)
    while b"\r\n\r\n" not in answer or not answer.partition(b"\r\n\r\n")[2]:
        more = client.recv(65536)
        if not more:
            break
        answer += more
    return int(answer.split(b" ")[1]), answer


def test_bodies_beyond_the_budget_are_refused_before_they_are_read(rig: Rig) -> None:
    body = padded()
    with rig.begun(body[:1000], length=len(body)) as first:
        until(lambda: rig.held >= 2 * len(body))
        with rig.begun(b"", length=len(body)) as second:  # not one byte of it is sent
            status, answer = status_of(second)
        assert status == 503
        assert b"retry-after: 1" in answer.lower()
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert (error["type"], error["code"], error["param"]) == ("server_error", "overloaded", None)
        assert rig.post().status_code == 200, "small requests have room of their own"
        first.sendall(body[1000:])
        assert status_of(first)[0] == 200
    until(rig.is_empty)
    with rig.begun(body, length=len(body)) as again:
        assert status_of(again)[0] == 200


def test_a_body_without_a_length_is_refused_where_it_stands(rig: Rig) -> None:
    body = padded()
    with rig.begun(body[:1000], length=len(body)):
        until(lambda: rig.held >= 2 * len(body))
        with rig.begun(padded(size=2 * MIB)) as second:
            assert status_of(second)[0] == 503


@pytest.mark.parametrize("length", [LARGE, None], ids=["announced", "chunked"])
def test_a_client_that_leaves_amid_its_body_gives_back_what_it_held(rig: Rig, length: int | None) -> None:
    with rig.begun(b'{"prompt": "' + b"a" * MIB, length=length):
        until(lambda: rig.held >= (2 * MIB if length is None else 2 * LARGE))


def test_a_client_that_leaves_before_its_reply_gives_back_what_it_held(rig: Rig) -> None:
    body = padded("waits")
    with rig.begun(body, length=len(body)):
        until(lambda: rig.held >= 2 * len(body))


def test_requests_that_are_wrong_give_back_what_they_held(rig: Rig) -> None:
    for body in (b"{" * 100_000, b"[]", padded()[:-1], b'{"model": "m"}'):
        assert httpx.post(f"{rig.url}{GENERATIONS}", content=body).status_code == 400
    form = httpx.post(f"{rig.url}/v1/images/edits", files={"image": b"no picture"}, data={"model": "good/any"})
    assert form.status_code == 400


def test_a_form_holds_its_window_and_its_fields(rig: Rig) -> None:
    kind = "multipart/form-data; boundary=x"
    begun = b'--x\r\nContent-Disposition: form-data; name="user"\r\n\r\n' + b"u" * 900_000
    with rig.begun(begun, kind=kind):
        until(lambda: rig.held >= 900_000)


def test_tasks_hold_what_they_need_until_their_end(rig: Rig) -> None:
    body = padded("waits")
    document = json.loads(body) | {"async": True}
    with httpx.Client(base_url=rig.url, timeout=60) as client:
        created = client.post(GENERATIONS, json=document)
        assert created.status_code == 202
        assert rig.held >= len(body), "its client has been answered, and its body is still needed"
        SAY_SO.set()
        until(lambda: client.get(created.json()["poll_url"]).json()["status"] == "completed")


def test_calls_with_a_key_hold_what_they_need_until_their_end(rig: Rig) -> None:
    document, headers = json.loads(padded("waits")), {"idempotency-key": f"key of {rig.port}"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{rig.url}{GENERATIONS}", json=document, headers=headers, timeout=1)
    assert rig.held >= LARGE, "the client has left, and the call goes on"
    SAY_SO.set()
    until(lambda: rig.held < LARGE)
    reply = httpx.post(f"{rig.url}{GENERATIONS}", json=document, headers=headers, timeout=60)
    assert reply.status_code == 200


@pytest.mark.parametrize(
    ("upstream", "status"), [("error", 502), ("refusal", 502), ("page", 502), ("bytes", 502)], ids=str
)
@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_a_reply_without_pictures_is_read_to_four_megabytes(rig: Rig, upstream: str, status: int, form: str) -> None:
    reply = rig.post(upstream, response_format=form)
    assert reply.status_code == status
    assert reply.json()["error"]["code"] == "upstream_uncertain"
    assert reply.headers["x-should-retry"] == "false"
    assert COUNTING.written <= 16 * MIB, "of 64; what the sockets hold comes on top of four"


def test_a_compressed_reply_is_bound_by_what_it_becomes(rig: Rig) -> None:
    reply = rig.post("bomb", response_format="url")
    assert reply.status_code == 502
    assert "larger than" in reply.json()["error"]["message"]


def test_large_pictures_of_tasks_need_no_memory(rig: Rig) -> None:
    """Also where they are asked for one by one, long after the request."""
    with httpx.Client(base_url=rig.url, timeout=60) as client:
        created = client.post(GENERATIONS, json={"model": "task/any", "prompt": "A kite", "async": True})
        assert created.status_code == 202
        until(lambda: client.get(created.json()["poll_url"]).json()["status"] == "completed")
        done = client.get(created.json()["poll_url"]).json()
        assert client.get(done["data"][0]["url"]).content == large_picture(6 * MIB)
    assert rig.post("task", response_format="url").status_code == 200


def test_large_pictures_are_found_in_json_that_does_not_call_itself_so(rig: Rig) -> None:
    reply = rig.post("mislabelled", response_format="b64_json")
    assert reply.status_code == 200
    assert base64.b64decode(reply.json()["data"][0]["b64_json"]) == large_picture(8 * MIB)


def test_an_open_console_captures_answers_within_the_budget(rig: Rig) -> None:
    """Whoever does not read an answer to its end keeps what was captured of it."""
    assert httpx.get(f"{rig.url}/console/exchanges").status_code == 200
    body = json.dumps({"model": "mislabelled/any", "prompt": "A kite", "response_format": "b64_json"}).encode()
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(rig.begun(body, length=len(body)))
            answer = bytearray()
            while len(answer) < 7 * MIB // 2:  # of 11; the system's buffers take up to six more
                piece = client.recv(MIB)
                assert piece, bytes(answer[:1000])
                answer += piece
        # Answers are taken as long as the system has buffers: what is held sinks until all of them are full. Where
        # that is depends on the system, and is 5 to 12 MiB.
        until(lambda: 4 * MIB < rig.held < 16 * MIB)  # of 32
        assert rig.post().status_code == 200
