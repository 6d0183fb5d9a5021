"""The end of a gateway from within: what signals tell it, and what it tells clients that are cut short."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagegate.asgi.in_flight import Permits
from imagegate.cli.commands import main
from imagegate.errors import ConfigError
from imagegate.layers import Admit, Observe
from imagegate.layers.base import Layer
from imagegate.standalone import Standalone, find_config, grace
from imagegate.telemetry.progress import PROGRESS_KEY

CONFIG = '[[upstreams]]\nname = "openai"\napi_key = "sk-any"\n[delivery]\nstore = "memory://"\n'


class Waiting(Layer):
    """A layer that waits for ever, perhaps after something was sent upstream or to the client."""

    def __init__(self, *, attempts: int = 0, begins: bool = False) -> None:
        super().__init__(lambda scope, receive, send: asyncio.sleep(0))
        self.attempts = attempts
        self.begins = begins
        self.entered = asyncio.Event()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PROGRESS_KEY].attempts = self.attempts
        if self.begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        self.entered.set()
        await asyncio.Event().wait()


def scope_of(body: bytes, **headers: str) -> Scope:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http",
        "method": "POST",
        "path": "/v1/images/generations",
        "query_string": b"",
        "headers": [(b"content-length", str(len(body)).encode()), *pairs],
    }


async def cut_short(below: Waiting, *, is_draining: bool) -> tuple[asyncio.Task[None], list[Message]]:
    """An exchange that the server cancels."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    permits = Permits(1)
    app: ASGIApp = Observe(Admit(below, permits=permits), hooks=())
    task = asyncio.ensure_future(app(scope_of(b"{}"), receive, send))
    await below.entered.wait()
    permits.is_draining = is_draining
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return task, sent


@pytest.mark.parametrize(
    ("attempts", "status", "code", "advice"),
    [(1, 502, "upstream_uncertain", b"false"), (0, 503, "shutting_down", None)],
)
def test_who_is_cut_short_hears_whether_to_come_again(
    attempts: int, status: int, code: str, advice: bytes | None
) -> None:
    """What was sent to a provider may be made and billed; what was not may be sent again by the SDK itself."""

    async def test() -> None:
        task, (start, body) = await cut_short(Waiting(attempts=attempts), is_draining=True)
        assert not task.cancelled()
        assert (start["status"], json.loads(body["body"])["error"]["code"]) == (status, code)
        assert advice == dict(start["headers"]).get(b"x-should-retry")

    asyncio.run(test())


def test_an_answer_that_has_begun_is_hung_up_on() -> None:
    """There is nothing more to say in it; the error goes to the server, which closes the connection."""

    async def test() -> None:
        task, sent = await cut_short(Waiting(attempts=1, begins=True), is_draining=True)
        assert task.exception() is not None
        assert [message["type"] for message in sent] == ["http.response.start"]

    asyncio.run(test())


def test_another_cancellation_is_passed_on() -> None:
    """A host that cancels an exchange for reasons of its own finds it cancelled, unless something was sent upstream."""

    async def test() -> None:
        task, sent = await cut_short(Waiting(), is_draining=False)
        assert (task.cancelled(), sent) == (True, [])
        task, (start, _) = await cut_short(Waiting(attempts=1), is_draining=False)
        assert (task.exception(), start["status"]) == (None, 502)
        assert (b"x-should-retry", b"false") in start["headers"]

    asyncio.run(test())


# Signals


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """The server's own handlers, which note what they are told."""
    told: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        told.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    yield told
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Standalone:
    (tmp_path / "imagegate.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMAGEGATE_CONFIG", raising=False)
    return Standalone(find_config())


async def lifespan(app: ASGIApp, meanwhile: Callable[[], None]) -> None:
    """A whole life of the application."""
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        if len(messages) == 1:
            meanwhile()
        return messages.pop(0)

    async def send(message: Message) -> None:
        assert message["type"].endswith(".complete")

    await app({"type": "lifespan"}, receive, send)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_begins_the_draining(app: Standalone, handled: list[int], number: signal.Signals) -> None:
    """The gateway hears it while it runs, the server's handler after it, and afterwards all is as it was."""
    servers = signal.getsignal(number)

    def meanwhile() -> None:
        assert not app.gateway.is_draining
        signal.raise_signal(number)
        assert app.gateway.is_draining

    asyncio.run(lifespan(app, meanwhile))
    assert handled == [number]
    assert signal.getsignal(number) is servers


def test_a_server_that_leaves_signals_to_the_system_is_left_alone(app: Standalone) -> None:
    """A handler of ours in place of the default would keep the process from ending."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        asyncio.run(
            lifespan(app, lambda: pytest.fail("caught") if callable(signal.getsignal(signal.SIGTERM)) else None)
        )
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_that_came_later_stays(app: Standalone, handled: list[int]) -> None:
    """Only our own handlers are taken off."""

    def later(number: int, frame: FrameType | None) -> None:
        raise AssertionError

    asyncio.run(lifespan(app, lambda: signal.signal(signal.SIGTERM, later) and None))
    assert signal.getsignal(signal.SIGTERM) is later


# The grace


@pytest.mark.parametrize(("text", "seconds"), [("", 60), ("0", 0), ("125", 125)])
def test_the_grace_of_the_environment(monkeypatch: pytest.MonkeyPatch, text: str, seconds: int) -> None:
    """Whole seconds, with a default."""
    monkeypatch.setenv("IMAGEGATE_GRACE", text)
    assert grace() == seconds


@pytest.mark.parametrize("text", ["-1", "1.5", "1m", "soon", "²"])
def test_what_is_no_grace(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A mistake is told with the variable's name."""
    monkeypatch.setenv("IMAGEGATE_GRACE", text)
    with pytest.raises(ConfigError, match="IMAGEGATE_GRACE"):
        grace()


def test_serve_takes_the_grace_of_the_command_line(app: Standalone, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches the server, and by the environment the gateway in every worker."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr("uvicorn.run", lambda app, **options: seen.update(options))
    monkeypatch.setenv("IMAGEGATE_GRACE", "5")
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["serve", "--grace", "17"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (seen["timeout_graceful_shutdown"], grace()) == (17, 17)
    with pytest.raises(SystemExit):
        main(["serve", "--grace", "a while"])
