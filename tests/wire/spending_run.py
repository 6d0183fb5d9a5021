"""Many processes spend the budgets of many keys, with faults: whatever happens, the ledger covers the provider's bill.

The suite runs a short form. The long one, as root on Linux, has ten processes in two network namespaces::

    python -m tests.wire.spending_run --processes 10 --keys 200 --requests 4000 --namespaces
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from tests.ports import free_port
from tests.postgres import postgres_server
from tests.wire.spending_support import GENERATIONS, PRICE, CountingProvider, body

from imagegate.spending.ledger import Balance, Reservation, day_of
from imagegate.spending.money import nanos
from imagegate.spending.sql import SQLLedger

HOST: Final = "10.77.{}.1"
"""This side of each namespace's link."""
GUEST: Final = "10.77.{}.2"
CODES: Final = Counter[str]()
"""Of errors beside those of budgets."""
FAULTS: Final = ("refuse", "break", "silent break", "hard refuse", "leave")


@dataclass
class Plan:
    """What a run is made of."""

    processes: int = 3
    keys: int = 8
    requests: int = 240
    at_a_time: int = 60
    budget: int = 12
    """Images that a key may have."""
    faults: float = 0.3
    """Share of requests that end badly."""
    images: tuple[int, ...] = (1, 1, 2)
    """Of a request, one of these."""
    trouble: bool = True
    """Whether a process is killed and Redis restarted in mid-run."""
    namespaces: bool = False
    seed: int = 1
    lease: float = 1.0


@dataclass
class Result:
    """What came of it."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    billed: Counter[str] = field(default_factory=Counter[str])
    """Images by key, as the provider counted them."""
    before: dict[str, Balance] = field(default_factory=dict[str, Balance])
    """Balances of the keys when everything had ended, before anything was decided."""
    settled: dict[str, int] = field(default_factory=dict[str, int])
    """Nanos by key, once what was held was decided as the provider had counted it."""
    held: Sequence[Reservation] = ()
    total: int = 0
    """Nanos of the gateway's own account."""
    budget: int = 0


def name_of(key: int) -> str:
    return f"key{key}"


class Gateways:
    """Processes of ``imagegate serve``, of which some are killed."""

    def __init__(self, folder: Path, plan: Plan, provider: int, redis: str, ledger: str) -> None:
        self._folder, self._plan = folder, plan
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self.ports = [free_port() for _ in range(plan.processes)]
        for place in range(plan.processes):
            side = place % 2
            host = HOST.format(side) if plan.namespaces else "127.0.0.1"
            text = config_of(plan, f"http://{host}:{provider}", redis.format(host), ledger.format(host))
            (folder / f"{place}").mkdir()
            (folder / f"{place}" / "gate.toml").write_text(text)

    def url(self, place: int) -> str:
        host = GUEST.format(place % 2) if self._plan.namespaces else "127.0.0.1"
        return f"http://{host}:{self.ports[place]}"

    def start(self, place: int) -> None:
        inside = ["ip", "netns", "exec", f"spend{place % 2}"] if self._plan.namespaces else []
        host = GUEST.format(place % 2) if self._plan.namespaces else "127.0.0.1"
        command = [*inside, sys.executable, "-m", "imagegate", "serve", "--host", host]
        command += ["--config", str(self._folder / f"{place}" / "gate.toml"), "--port", str(self.ports[place])]
        with (self._folder / f"{place}" / "log").open("ab") as log:
            self._running[place] = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "IMAGEGATE_GRACE": "1"}
            )

    def wait(self) -> None:
        """Until all answer."""
        for place in range(self._plan.processes):
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{self.url(place)}/healthz", timeout=5).status_code < 500:
                        break
                time.sleep(0.05)
            else:
                raise AssertionError((self._folder / f"{place}" / "log").read_text())

    def kill(self, place: int) -> None:
        """End a process as a crash would."""
        self._running[place].send_signal(signal.SIGKILL)
        self._running[place].wait()

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def config_of(plan: Plan, provider: str, redis: str, ledger: str) -> str:
    """Keys with budgets, groups of them, and a gateway that has one as well."""
    names = [name_of(key) for key in range(plan.keys)]
    budget = plan.budget * PRICE
    lines = [
        f'[[upstreams]]\nname = "p"\nadapter = "openai"\nbase_url = "{provider}"\napi_key = "k"\nread_timeout = "5s"',
        'models.flat.family = "gpt-image-2"',
        f"[prices.models.flat]\nimage = {PRICE}",
        f'[spending]\nledger = "{ledger}"\nlease = "{plan.lease}s"',
        f'[tasks]\nstore = "{redis}"\nsecret = "a-secret-of-the-run-itself"\nlease = "5s"',
        '[idempotency]\nstore = "memory://"',
        '[delivery]\nstore = "file://images"\nlink_secret = "another-secret-of-the-run"',
        "[policy]\nbreaker_failures = 0\nretries = 0\nqueue_timeout = 0",
        f"[access]\nkeys = {json.dumps([f'sk-{name}' for name in names])}\nnames = {json.dumps(names)}",
        f"[access.limits]\nspend_per_month = {budget * plan.keys}",
    ]
    groups = max(1, plan.keys // 4)
    lines += [f"[access.groups.g{group}]\nspend_per_day = {budget * 3}" for group in range(groups)]
    for key, name in enumerate(names):
        lines.append(f'[access.principals.{name}]\ngroups = ["g{key % groups}"]')
        lines.append(f"[access.principals.{name}.limits]\nspend_per_day = {budget}\nrequests_per_day = 1000000")
    return "\n".join(lines).replace("queue_timeout = 0", 'queue_timeout = "10s"')


@contextlib.contextmanager
def namespaces() -> Generator[None]:
    """Two "hosts": network namespaces, each with a link to this one."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for side in range(2):
            ip("netns", "add", f"spend{side}")
            ip("link", "add", f"sp{side}", "type", "veth", "peer", "name", f"spg{side}", "netns", f"spend{side}")
            ip("addr", "add", f"{HOST.format(side)}/24", "dev", f"sp{side}")
            ip("link", "set", f"sp{side}", "up")
            ip("-n", f"spend{side}", "addr", "add", f"{GUEST.format(side)}/24", "dev", f"spg{side}")
            ip("-n", f"spend{side}", "link", "set", f"spg{side}", "up")
            ip("-n", f"spend{side}", "link", "set", "lo", "up")
        yield
    finally:
        for side in range(2):
            # The kernel removes a namespace later, and what is in it with it: the name of a link must be free at once.
            for words in (("link", "del", f"sp{side}"), ("netns", "del", f"spend{side}")):
                subprocess.run(["ip", *words], check=False, capture_output=True)


class RedisProcess:
    """A Redis that remembers nothing when it is started again."""

    def __init__(self, folder: Path, host: str) -> None:
        self.port = free_port()
        self._command = ["redis-server", "--port", str(self.port), "--bind", host, "--save", "", "--dir", str(folder)]
        self._command += ["--protected-mode", "no"]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


async def _ask(web: httpx.AsyncClient, url: str, key: int, number: int, fault: str, images: int) -> int:
    request = f"{name_of(key)}-{number}"
    headers = {"authorization": f"Bearer sk-{name_of(key)}", "x-request-id": request}
    prompt = "slow" if fault == "leave" else fault or "A cat"
    document = body(prompt, n=images, user=request)
    timeout = 0.2 if fault == "leave" else 30.0
    try:
        reply = await web.post(url + GENERATIONS, json=document, headers=headers, timeout=timeout)
    except httpx.TransportError:
        return 0
    if reply.status_code not in (200, 402):
        CODES[reply.json()["error"]["code"]] += 1
    return reply.status_code


async def _traffic(plan: Plan, gateways: Gateways, redis: RedisProcess, result: Result) -> None:
    chance = random.Random(plan.seed)
    permits = asyncio.Semaphore(plan.at_a_time)
    done = 0
    limits = httpx.Limits(max_connections=plan.at_a_time, max_keepalive_connections=20)
    async with httpx.AsyncClient(limits=limits, trust_env=False) as web:

        async def one(number: int) -> None:
            nonlocal done
            key, place = chance.randrange(plan.keys), chance.randrange(plan.processes)
            fault = chance.choice(FAULTS) if chance.random() < plan.faults else ""
            async with permits:
                result.statuses[
                    await _ask(web, gateways.url(place), key, number, fault, chance.choice(plan.images))
                ] += 1
                done += 1

        async def trouble() -> None:
            if not plan.trouble:
                return
            while done < plan.requests // 3:
                await asyncio.sleep(0.02)
            await asyncio.to_thread(gateways.kill, 0)
            await asyncio.to_thread(redis.stop)
            await asyncio.to_thread(gateways.start, 0)
            await asyncio.sleep(0.3)
            redis.start()

        await asyncio.gather(*(one(number) for number in range(plan.requests)), trouble())


async def _settle(plan: Plan, ledger: SQLLedger, bills: Counter[str], result: Result) -> None:
    """Wait for the end of every reservation, then decide what is held as the provider has counted it."""
    day = day_of(time.time())
    accounts = [f"key:{name_of(key)}" for key in range(plan.keys)]
    balances = await ledger.balances([day], accounts)
    for _ in range(1200):
        await ledger.maintain()
        balances = await ledger.balances([day], accounts)
        if all(balance.reserved == 0 for balance in balances.values()):
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError(f"a reservation stays open: {balances}")
    result.before = {account.partition(":")[2]: balance for (account, _), balance in balances.items()}
    result.held = await ledger.list_held()
    for reservation in result.held:
        await ledger.decide(reservation.id, nanos(PRICE) * bills[reservation.request_id] - reservation.settled)
    balances = await ledger.balances([day], [*accounts, "gateway"])
    result.settled = {account.partition(":")[2]: balance.settled for (account, _), balance in balances.items()}
    result.total = result.settled.pop("", 0)


def run(plan: Plan) -> Result:
    """Run everything, and return what was counted where."""
    result = Result(budget=plan.budget * nanos(PRICE))
    provider = CountingProvider(seconds=0.02)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if plan.namespaces:
            stack.enter_context(namespaces())
        host = "0.0.0.0" if plan.namespaces else "127.0.0.1"
        postgres = stack.enter_context(postgres_server(host=host))
        database = postgres.new_database()
        redis = RedisProcess(folder, host)
        stack.callback(redis.stop)
        port = stack.enter_context(_served(provider, host))
        address = database.replace("127.0.0.1", "{}")
        gateways = Gateways(folder, plan, port, f"redis://{{}}:{redis.port}/0", address)
        stack.callback(gateways.stop)
        for place in range(plan.processes):
            gateways.start(place)
        gateways.wait()
        asyncio.run(_traffic(plan, gateways, redis, result))
        for request, images in provider.billed.items():
            result.billed[request.partition("-")[0]] += images

        async def settle() -> None:
            ledger = SQLLedger(database, lease=plan.lease)
            try:
                await _settle(plan, ledger, provider.billed, result)
            finally:
                await ledger.aclose()

        try:
            asyncio.run(settle())
        except AssertionError as error:
            logs = [file.read_text()[-2000:] for file in folder.glob("*/log")]
            raise AssertionError("\n".join([str(error), *logs])) from error
    return result


@contextlib.contextmanager
def _served(provider: CountingProvider, host: str) -> Generator[int]:
    import threading

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(provider.app, host=host, port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


def check(result: Result) -> None:
    """Raise `AssertionError` where a promise was not kept."""
    price = nanos(PRICE)
    for name, balance in result.before.items():
        billed = result.billed[name] * price
        assert billed <= balance.settled + balance.held <= result.budget, (name, billed, balance)
        assert balance.settled <= billed, (name, billed, balance)
    for name, settled in result.settled.items():
        assert settled == result.billed[name] * price, (name, settled, result.billed[name])
    assert result.total == sum(result.billed.values()) * price


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("processes", "keys", "requests", "at-a-time", "budget", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan, name.replace("-", "_")))
    parser.add_argument("--faults", type=float, default=Plan.faults)
    parser.add_argument("--namespaces", action="store_true")
    parser.add_argument("--crowd", action="store_true", help="1,000 requests at once on a budget for exactly 100")
    options: dict[str, Any] = vars(parser.parse_args())
    if options.pop("crowd"):
        options |= {"keys": 1, "requests": 1000, "at_a_time": 1000, "budget": 100, "images": (1,), "faults": 0.0}
    started = time.perf_counter()
    result = run(Plan(**options))
    check(result)
    billed, held = sum(result.billed.values()), sum(each.held for each in result.held)
    print(f"{dict(result.statuses)}, errors {dict(CODES)} in {time.perf_counter() - started:.0f} s")
    print(f"{billed} images billed; {len(result.held)} reservations were held, {held / nanos(PRICE):g} images")
    print("for every key: billed <= settled + held <= budget; decided by the bill, the ledger equals it")


if __name__ == "__main__":
    main()
