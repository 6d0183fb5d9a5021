"""Tasks with a budget that another process takes over: whose they are, and how what was reserved for them ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sqlite3
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis as Client
from starlette.types import Receive, Scope, Send
from tests.waiting import TIMEOUT, until
from tests.wire.keeping_support import EDITS, Origin, Redis, ended, generation, held_edit, redis_server
from tests.wire.shared_support import Both, create, kill, silence

from imagegate.demo.servers import serving
from imagegate.spending.ledger import Balance, day_of
from imagegate.spending.money import nanos
from imagegate.spending.sql import SQLLedger

pytestmark = pytest.mark.redis
PRICE = 0.04
MORE = """
[prices.models]
"takes-files" = {{ image = 0.04 }}
"gpt-image-1.5" = {{ image = 0.04 }}

[spending]
ledger = "sqlite:///{ledger}"
lease = "1s"

[access]
keys = ["sk-of-ada-0123456789", "sk-of-bob-0123456789"]
names = ["ada", "bob"]

[access.groups.team]
spend_per_month = 0.08

[access.principals.ada]
groups = ["team"]
limits = {{ spend_per_day = 0.04, requests_per_day = 1 }}

[access.principals.bob]
limits = {{ spend_per_day = 0.01 }}
upstream_keys = {{ openai = "sk-bobs-own-0123456789" }}

[moderation]
hooks = "tests.wire.test_spending_tasks:Seen"
"""
PRINCIPALS: list[Any] = []
DATABASES = itertools.count(1)


class Seen:
    """Sees whose requests there are in this process."""

    async def before(self, request: Any, principal: Any) -> None:
        PRINCIPALS.append(principal)


class Provider(Origin):
    """Notes whose key it is asked with."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            self.keys.append(dict(scope["headers"]).get(b"authorization", b"").decode())
        await super().__call__(scope, receive, send)

    @property
    def keys(self) -> list[str]:
        found: list[str] = self.__dict__.setdefault("asked_with", [])
        return found


class Rig(Both):
    """Gateways with one ledger."""

    @property
    def more(self) -> str:
        return MORE.format(ledger=self.folder / "ledger.db")

    def spent(self, account: str) -> Balance:
        async def read() -> Balance:
            ledger = SQLLedger(f"sqlite:///{self.folder}/ledger.db")
            try:
                day = day_of(time.time())
                return (await ledger.balances([day], [account])).get((account, day)) or Balance()
            finally:
                await ledger.aclose()

        return asyncio.run(read())

    def comes_to(self, account: str, **figures: Any) -> None:
        """These are the balance's figures, and the others nothing."""
        wanted = Balance(**{name: nanos(value) if name in MONEY else value for name, value in figures.items()})
        deadline = time.monotonic() + TIMEOUT
        while (found := self.spent(account)) != wanted:
            assert time.monotonic() < deadline, f"{found} is not {wanted}"
            time.sleep(0.05)

    @contextlib.contextmanager
    def no_transaction(self) -> Generator[None]:
        """Wait until no process writes to the ledger, and let none begin: one that is suspended keeps its lock."""
        file = self.folder / "ledger.db"
        with contextlib.closing(sqlite3.connect(file, timeout=TIMEOUT, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            yield
            db.execute("ROLLBACK")

    def kept(self) -> bytes:
        """Every record of a task in Redis."""
        with Client.from_url(self.address) as client:
            return b"".join(client.hget(key, "record") for key in client.scan_iter("{imagegate}:task:*"))


MONEY = ("settled", "held", "reserved")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture
def rig(redis: Redis, tmp_path: Path) -> Iterator[Rig]:
    origin = Provider()
    PRINCIPALS.clear()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serving(origin))
        database = next(DATABASES)  # so that no test counts for another
        yield Rig(tmp_path, origin, port, redis.url.replace("/0", f"/{database}"), stack)
        origin.gate.set()
        origin.link_gate.set()


def by(client: httpx.Client, name: str = "ada") -> httpx.Client:
    client.headers["authorization"] = f"Bearer sk-of-{name}-0123456789"
    return client


def test_what_was_not_sent_is_done_within_the_limits_of_its_principal(rig: Rig) -> None:
    """Its money is reserved once, and its request counted once; the budget is its own, not nobody's."""
    first, maker = rig.gateway("300ms", rig.more)
    task = create(by(maker), held_edit(rig.port, "not sent"), EDITS)
    rig.comes_to("key:ada", reserved=PRICE, requests=1)
    kept = rig.kept()
    assert b'"principal":{"id":"ada","name":"ada","limits":{"requests_per_day":1,"spend_per_day":0.04}' in kept
    assert b"sk-of-ada" not in kept
    kill(first)
    _, other = rig.here("300ms", rig.more)
    rig.origin.link_gate.set()
    assert ended(by(other), task)["status"] == "completed"
    rig.comes_to("key:ada", settled=PRICE, requests=1, images=1)
    rig.comes_to("group:team", settled=PRICE, requests=1, images=1)
    assert [principal.id for principal in PRINCIPALS] == ["ada"]
    assert other.post(EDITS, json=held_edit(rig.port, "another")).status_code == 429
    assert rig.origin.made("not sent") == 1


def test_a_process_that_was_suspended_releases_nothing_of_anothers(rig: Rig) -> None:
    """By the time it finds out that its task is another one's, that is at work on it, with the same reservation."""
    first, maker = rig.gateway("300ms", rig.more)
    task = create(by(maker), held_edit(rig.port, "hold taken"), EDITS)
    rig.comes_to("key:ada", reserved=PRICE, requests=1)
    with rig.no_transaction():
        first.process.send_signal(signal.SIGSTOP)
    _, other = rig.here("300ms", rig.more)
    rig.origin.link_gate.set()
    until(lambda: rig.origin.made("hold taken"), what="the other process")
    first.process.send_signal(signal.SIGCONT)
    time.sleep(0.8)  # it renews its leases, and gives the task up
    found = rig.spent("key:ada")
    assert found.reserved + found.held == nanos(PRICE)
    rig.origin.gate.set()
    # Whichever of them holds it by then: one that stalls once more is told of what it was answered, too.
    until(lambda: ended(by(other), task)["status"] == "completed", what="the image")
    rig.comes_to("key:ada", settled=PRICE, requests=1, images=1)
    assert rig.origin.made("hold taken") == 1


def test_what_was_sent_is_held_at_once(rig: Rig) -> None:
    first, maker = rig.here("300ms", rig.more)
    task = create(by(maker), generation("hold sent"))
    until(lambda: rig.origin.made("hold sent"))
    silence(first)
    _, other = rig.here("300ms", rig.more)
    assert ended(by(other), task)["error"]["code"] == "task_interrupted"
    rig.comes_to("key:ada", held=PRICE, requests=1)
    rig.origin.gate.set()  # its process lives after all, and has the provider's answer
    rig.comes_to("key:ada", settled=PRICE, requests=1, images=1)


def test_what_is_given_up_through_another_process_is_released(rig: Rig) -> None:
    first, maker = rig.gateway("30s", rig.more)
    task = create(by(maker), held_edit(rig.port, "given up"), EDITS)
    rig.comes_to("key:ada", reserved=PRICE, requests=1)
    kill(first)
    _, other = rig.here("30s", rig.more)
    assert by(other).delete(task).json()["cancelled"]
    rig.comes_to("key:ada", requests=1)


def test_a_key_of_ones_own_that_every_process_knows(rig: Rig) -> None:
    """It stands in the configuration, so another process can go on with it; it is not kept, and costs no budget."""
    first, maker = rig.here("300ms", rig.more)
    task = create(by(maker, "bob"), held_edit(rig.port, "own key"), EDITS)
    assert b"sk-bobs-own" not in rig.kept()
    silence(first)
    strange = rig.more.replace('upstream_keys = { openai = "sk-bobs-own-0123456789" }', "")
    _, other = rig.here("300ms", rig.more)
    rig.origin.link_gate.set()
    assert ended(by(other, "bob"), task)["status"] == "completed"
    assert rig.origin.__dict__["asked_with"] == ["Bearer sk-bobs-own-0123456789"]
    rig.comes_to("key:bob", requests=1, images=1)
    rig.origin.link_gate.clear()
    second, maker = rig.here("300ms", rig.more)
    task = create(by(maker, "bob"), held_edit(rig.port, "own key again"), EDITS)
    for gateway in (second, _):
        silence(gateway)
    _, stranger = rig.here("300ms", strange)
    assert ended(by(stranger, "bob"), task)["error"]["code"] == "task_not_begun"
    assert rig.origin.made("own key again") == 0
