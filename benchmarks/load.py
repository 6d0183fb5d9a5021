"""The client, in a process of its own.

    python benchmarks/load.py WORKLOAD URL UPSTREAM CONNECTIONS REQUESTS SECONDS

Makes ready (connections, and one request on each of a few), says ``ready``, waits for a line, asks until so many
requests were sent or the seconds are over, and says what it saw: the clock has stopped. At the next line it checks the
answers and says so. Every answer's status is looked at; bodies are kept whole up to `KEPT` and checked, of the rest the
length.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from typing import Any

import uvloop
from client import Client, HungUp
from workloads import WORKLOADS, Workload, WrongAnswer, digest, headers

KEPT = 128 * 1024 * 1024
TASKS_AT_ONCE = 50
TIMEOUT = 120.0


class Load:
    def __init__(self, work: Workload, url: str, upstream: str, client: Client) -> None:
        self._work, self._url, self._upstream, self._client = work, url, upstream, client
        self._bodies: list[bytes] = []
        self._kept = 0
        self._lengths: set[int] = set()
        self._tasks: list[str] = []
        self._latencies: list[float] = []
        self._posts = 0
        self._headers = headers(upstream)
        self._ask_with(work)

    async def make_ready(self, connections: int, tasks: int) -> None:
        work = self._work
        await self._get(self._upstream + "/received")
        if work.task:
            gate = asyncio.Semaphore(TASKS_AT_ONCE)
            await asyncio.gather(*(self._make_task(gate) for _ in range(tasks)))
        else:
            self._ask_with(WORKLOADS["W1"] if work.crowd else work)
            await asyncio.gather(*(self._ask() for _ in range(min(connections, 4))))
            self._ask_with(work)
        if not work.crowd:
            await self._client.open(self._url, max(0, connections - 4))
        self._latencies.clear()

    async def run(self, connections: int, requests: int, seconds: float) -> dict[str, Any]:
        left = requests
        started = time.perf_counter()

        async def ask_again() -> None:
            nonlocal left
            while left > 0 and time.perf_counter() - started < seconds:
                left -= 1
                await self._ask()

        async with asyncio.timeout(TIMEOUT):
            await asyncio.gather(*(ask_again() for _ in range(connections)))
        took = time.perf_counter() - started
        return {"requests": len(self._latencies), "seconds": took, "latencies": sorted(self._latencies)}

    async def check(self) -> None:
        """Check the answers that were kept.

        Raises:
            WrongAnswer: something was not as it should be.
        """
        work = self._work
        if work.task:
            await self._end_tasks()
        elif len(self._lengths) > 1 and not work.links:
            raise WrongAnswer(f"{work.name}: answers of different lengths: {sorted(self._lengths)}")
        for body in dict.fromkeys(self._bodies) if not work.links else self._bodies[:16]:
            found = work.found(body)
            work.check([digest(await self._get(link)) for link in found] if work.links else found)
        received = json.loads(await self._get(self._upstream + "/received"))
        if received["requests"] != self._posts:
            raise WrongAnswer(f"{work.name}: {self._posts} requests, but the provider got {received['requests']}")
        work.check_files(received["files"])

    def _ask_with(self, work: Workload) -> None:
        self._body, self._type = work.body()

    async def _ask(self) -> None:
        started = time.perf_counter()
        if self._work.task:
            body = await self._get(self._tasks[len(self._latencies) % len(self._tasks)])
            if b'"processing"' not in body and b'"pending"' not in body:
                raise WrongAnswer(f"{self._work.name}: {body[:300]!r}")
        else:
            body = await self._post()
            self._keep(body)
        self._latencies.append(time.perf_counter() - started)

    async def _post(self) -> bytes:
        self._posts += 1
        url, said = self._url + self._work.path, {**self._headers, "content-type": self._type}
        status, body = await self._client.ask("POST", url, said, self._body)
        if status not in {200, 202}:
            raise WrongAnswer(f"{self._work.name}: {status} {body[:300]!r}")
        return body

    async def _get(self, url: str) -> bytes:
        # Links to pictures need no key, and a bucket refuses requests that bring one beside the link's signature.
        status, body = await self._client.ask("GET", url, self._headers if "/v1/tasks/" in url else {})
        if status not in {200, 202}:
            raise WrongAnswer(f"{self._work.name}: {status} {body[:300]!r} of {url}")
        return body

    def _keep(self, body: bytes) -> None:
        self._lengths.add(len(body))
        if self._kept + len(body) <= KEPT:
            self._kept += len(body)
            self._bodies.append(body)

    async def _make_task(self, gate: asyncio.Semaphore) -> None:
        async with gate:
            self._tasks.append(self._url + json.loads(await self._post())["poll_url"])

    async def _end_tasks(self) -> None:
        """Lets the provider answer, and waits for every task."""
        deadline = time.monotonic() + TIMEOUT
        for task in self._tasks:
            while b'"completed"' not in (body := await self._get(task)):
                if time.monotonic() > deadline:
                    raise WrongAnswer(f"{self._work.name}: {body[:300]!r} does not end")
                await self._client.ask("POST", self._upstream + "/release", {}, b"")
                await asyncio.sleep(0.02)
            self._keep(body)


async def main(name: str, url: str, upstream: str, connections: int, requests: int, seconds: float) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    client = Client()
    try:
        load = Load(WORKLOADS[name], url, upstream, client)
        await load.make_ready(connections, tasks=requests)
        await _hear("ready")
        seen = await load.run(connections, requests, seconds)
        await _hear(json.dumps(seen))
        await load.check()
    finally:
        client.close()
    print("right", flush=True)


async def _hear(said: str) -> None:
    print(said, flush=True)
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    try:
        name, url, upstream, *numbers = sys.argv[1:]
        uvloop.run(main(name, url, upstream, int(numbers[0]), int(numbers[1]), float(numbers[2])))
    except (WrongAnswer, HungUp, OSError, TimeoutError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
