"""Without Redis: a gateway that was killed, or has ended, and is started again does not pay twice for one key."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.waiting import until
from tests.wire.edit_support import gateway_process
from tests.wire.keeping_support import GENERATIONS, LARGE, Origin, generation, write_config
from tests.wire.shared_support import in_thread

from imagegate.demo.servers import serving


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest.fixture
def config(origin: Origin, tmp_path: Path) -> Iterator[Path]:
    with serving(origin) as port:
        yield write_config(tmp_path, port)
        origin.gate.set()


def ask(url: str, prompt: str) -> httpx.Response:
    with httpx.Client(base_url=url, timeout=30) as client:
        return client.post(GENERATIONS, json=generation(prompt), headers={"idempotency-key": prompt})


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_ended_while_the_provider_is_at_work(origin: Origin, config: Path, end: signal.Signals) -> None:
    """Nobody knows whether it was billed: the next process says so, each time. What was answered before, however, is
    replayed, and what was refused is asked for again."""
    with gateway_process(config, IMAGEGATE_GRACE="1") as first:
        made = ask(first.url, "large and answered")
        assert ask(first.url, "refuse 429 once").status_code == 429
        lost = in_thread(lambda: ask(first.url, "hold at work"))
        until(lambda: origin.made("hold at work"))
        first.process.send_signal(end)
        first.process.wait()
        lost()
    with gateway_process(config) as second:
        for _ in range(2):
            reply = ask(second.url, "hold at work")
            code = "interrupted" if end == signal.SIGKILL else "upstream_uncertain"
            assert (reply.status_code, reply.json()["error"]["code"]) == (502, code)
            assert reply.headers["x-should-retry"] == "false"
        again = ask(second.url, "large and answered")
        assert (again.content, again.headers["idempotency-replayed"]) == (made.content, "true")
        assert ask(second.url, "refuse 429 once").status_code == 200
    assert len(LARGE) < len(made.content)
    assert [origin.made(prompt) for prompt in ("hold at work", "large and answered", "refuse 429 once")] == [1, 1, 2]


def test_two_processes_with_one_directory(origin: Origin, config: Path, tmp_path: Path) -> None:
    """A request with the key of one that is in flight in another process waits for its answer."""
    with gateway_process(config) as one, gateway_process(config) as other:
        first = in_thread(lambda: ask(one.url, "hold shared"))
        until(lambda: origin.made("hold shared"))
        second = in_thread(lambda: ask(other.url, "hold shared"))
        time.sleep(0.5)
        origin.gate.set()
        assert (first().status_code, second().content) == (200, first().content)
        assert second().headers["idempotency-replayed"] == "true"
    assert origin.made("hold shared") == 1
