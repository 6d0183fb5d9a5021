"""Clients that trickle a body or never read an answer do not keep the places of others, whoever's server it is."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.waiting import until

from imagegate import ExchangeRecord, ImageGateway
from imagegate.config.loader import parse_config
from imagegate.server.guard import Guard
from imagegate.server.in_thread import serving
from imagegate.standalone import Standalone
from imagegate.testing import Answer, FakeUpstream

PATH = "/v1/images/generations"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
PLACES = 3


def document(picture: bytes) -> dict[str, Any]:
    return {"created": 1, "data": [{"b64_json": base64.b64encode(picture).decode()}]}


def answer(seen: Any) -> Answer:
    """A small picture, or one that no kernel takes whole."""
    return Answer(document=document(PNG + bytes(12_000_000) if b"BIG" in seen.body else PNG))


@pytest.fixture(params=["mounted", "serve"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """Of a gateway with few places, under plain uvicorn or with the guard."""
    with FakeUpstream(handler=answer) as provider:
        config = parse_config(
            f"""
            [[upstreams]]
            name = "up"
            adapter = "openai"
            base_url = "{provider.url}"
            api_key = "sk-any"
            [delivery]
            store = "file://{tmp_path}/images"
            [limits]
            in_flight = {PLACES}
            client_pace = 10000000
            client_stall = "4s"
            """,
            environment={},
        )
        if request.param == "serve":
            with serving(Standalone(config), http=Guard(config.limits)) as bound:
                yield bound
        else:
            with serving(ImageGateway(config=config)) as bound:
                yield bound


def head(length: int, path: str = PATH, content_type: str = "application/json") -> bytes:
    fields = f"Host: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {length}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode()


@pytest.fixture
def connect(port: int) -> Iterator[Callable[[], socket.socket]]:
    """Opens connections, and closes them."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(connected(port))


def connected(port: int) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    return client


def status(port: int) -> int:
    body = {"model": "up/gpt-image-1", "prompt": "A kite"}
    return httpx.post(f"http://127.0.0.1:{port}{PATH}", json=body, timeout=20).status_code


FORM = "multipart/form-data; boundary=BB"
PART = b'--BB\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
HELD = {
    "JSON": head(10_000_000) + b'{"',
    "a form": head(1_000_000, "/v1/images/edits", FORM) + PART,
    "a large form": head(10_000_000, "/v1/images/edits", FORM) + PART,
}


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
def test_who_trickles_a_body_loses_the_place(port: int, connect: Callable[[], socket.socket], held: bytes) -> None:
    """And hears why."""
    clients = [connect() for _ in range(PLACES)]
    for client in clients:
        client.sendall(held)
    until(lambda: status(port) == 503)

    def trickled() -> bool:
        for client in clients:
            with contextlib.suppress(OSError):  # which has lost it
                client.sendall(b" ")
        return status(port) == 200

    until(trickled)
    assert clients[0].recv(65536).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_who_never_reads_loses_the_place(port: int, connect: Callable[[], socket.socket], more: dict[str, Any]) -> None:
    """A relayed answer, and a stream."""
    body = json.dumps({"model": "up/gpt-image-1", "prompt": "BIG", "response_format": "b64_json", **more}).encode()
    clients = [connect() for _ in range(PLACES)]
    for client in clients:
        client.sendall(head(len(body)) + body)
    until(lambda: status(port) == 503)
    until(lambda: status(port) == 200)


class Recorder:
    """A hook that keeps records."""

    def __init__(self) -> None:
        self.ended: list[ExchangeRecord] = []

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self.ended.append(record)


def test_who_does_not_read_is_no_failure_of_the_provider(tmp_path: Path) -> None:
    """The deadline passes while the client is waited for: the breaker stays closed, and others are served."""
    with FakeUpstream(handler=answer) as provider:
        config = parse_config(
            f"""
            [[upstreams]]
            name = "up"
            adapter = "openai"
            base_url = "{provider.url}"
            api_key = "sk-any"
            [delivery]
            store = "file://{tmp_path}/images"
            [policy]
            deadline = "3s"
            breaker_failures = 1
            [limits]
            client_pace = 10000000
            client_stall = "9s"
            """,
            environment={},
        )
        recorder = Recorder()
        body = json.dumps({"model": "up/gpt-image-1", "prompt": "BIG", "response_format": "b64_json"}).encode()
        with serving(ImageGateway(config=config, hooks=[recorder])) as bound, connected(bound) as client:
            client.sendall(head(len(body)) + body)
            until(lambda: recorder.ended)
            assert recorder.ended[0].outcome == "uncertain"
            assert status(bound) == 200


def test_who_does_not_read_gives_way_where_all_places_are_taken(tmp_path: Path) -> None:
    """Mounted, where a server's buffers hide the reader, and whatever the least pace is."""
    with FakeUpstream(handler=answer) as provider:
        config = parse_config(
            f"""
            [[upstreams]]
            name = "up"
            adapter = "openai"
            base_url = "{provider.url}"
            api_key = "sk-any"
            [delivery]
            store = "file://{tmp_path}/images"
            [limits]
            in_flight = {PLACES}
            client_stall = "4s"
            """,
            environment={},
        )
        with serving(ImageGateway(config=config)) as bound, contextlib.ExitStack() as stack:
            body = b'{"model": "up/gpt-image-1", "prompt": "BIG", "response_format": "b64_json"}'
            for _ in range(PLACES):
                stack.enter_context(connected(bound)).sendall(head(len(body)) + body)
            until(lambda: status(bound) == 503)
            until(lambda: status(bound) == 200)
