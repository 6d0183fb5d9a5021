"""Send generations at a fixed rate, whatever the answers do, in a process of its own.

    python benchmarks/rate.py URL UPSTREAM RATE SECONDS

Times are fixed beforehand, evenly spaced; a latency is counted from the time that was fixed, so that an answer that
keeps others waiting counts for each of them (no coordinated omission). Requests are bytes that were made once, answers
are read as far as their end can be found; a timer of the kernel says when to send, for those of event loops count
milliseconds. Speaks with the driver as `load.py` does.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop
from client import Client, HungUp
from workloads import WORKLOADS, WrongAnswer, headers

WORK = WORKLOADS["W1"]
OPENED = 64
"""Connections that are there before the first request; more are made when all are in use."""
WAITING_AT_MOST = 2000
"""Requests without an answer. With more of them the rate is beyond the server, and nothing more is sent."""
TIMEOUT = 5.0
"""Seconds, after the last request, in which answers count."""
KEPT = 64


class Connection(asyncio.Protocol):
    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._whole: int | None = None
        self._due: float | None = None

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, due: float) -> None:
        self._received, self._whole, self._due = b"", None, due
        cast("asyncio.Transport", self._transport).write(self._offer.request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        if self._whole is None:
            head = received.find(b"\r\n\r\n")
            if head < 0:
                return
            fields = received[:head].lower()
            at = fields.find(b"\r\ncontent-length:")
            self._whole = 0 if at < 0 else head + 4 + int(fields[at + 17 :].partition(b"\r\n")[0])
        # Without a length the answer comes in chunks, of which the last is empty.
        if (len(received) >= self._whole) if self._whole else received.endswith(b"\r\n0\r\n\r\n"):
            due, self._due = self._due, None
            if due is not None:
                self._offer.answered(self, due, received, chunked=not self._whole)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._due is not None:
            self._offer.lost(self._due)
            self._due = None


class Offer:
    """Requests at their times, and what came of them.

    Args:
        rate: requests a second.
    """

    def __init__(self, url: str, upstream: str, rate: float) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        body, kind = WORK.body()
        fields = {"host": parts.netloc, **headers(upstream), "content-type": kind, "content-length": str(len(body))}
        lines = [f"POST {WORK.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        self.request = "\r\n".join(lines).encode() + body
        self._interval = 1 / rate
        self._idle: deque[Connection] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self.waiting: set[float] = set()
        """Times of requests that have no answer."""
        self.latencies: list[float] = []
        self.late: list[float] = []
        """By how much requests were sent after their time: the generator's own part in the latencies."""
        self.errors = 0
        self.bodies: dict[bytes, None] = {}
        self.sent = 0
        self._start = 0.0

    async def open(self, many: int) -> None:
        for _ in range(many):
            self._idle.append(await self._connect())

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: Connection(self), *self._address)
        return made

    async def run(self, seconds: float) -> dict[str, Any]:
        """Send for so many seconds, and wait for the last answers."""
        loop, asked = asyncio.get_running_loop(), round(seconds / self._interval)
        over = loop.create_future()
        self._start = time.perf_counter()
        timer = Timer(self._interval)

        def tick() -> None:
            times = timer.expired()
            for _ in range(min(times, asked - self.sent)):
                self._send(self._start + self.sent * self._interval)
            if not over.done() and (self.sent == asked or len(self.waiting) > WAITING_AT_MOST):
                over.set_result(None)

        loop.add_reader(timer.descriptor, tick)
        await over
        loop.remove_reader(timer.descriptor)
        timer.close()
        lasted = time.perf_counter() - self._start
        in_time = len(self.latencies)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_answered(), TIMEOUT)
        now, unanswered = time.perf_counter(), len(self.waiting)
        # What has no answer has at least waited so long: leaving it out would flatter who does not answer.
        latencies = sorted([*self.latencies, *(now - due for due in self.waiting)])
        return {
            "asked": asked,
            "sent": self.sent,
            "requests": len(self.latencies),
            "rate": in_time / lasted,
            "seconds": lasted,
            "latencies": latencies,
            "late": sorted(self.late),
            "errors": self.errors,
            "unanswered": unanswered,
        }

    async def _all_answered(self) -> None:
        while self.waiting:  # noqa: ASYNC110 - an event would be set and cleared with each answer
            await asyncio.sleep(0.005)

    def _send(self, due: float) -> None:
        self.sent += 1
        self.waiting.add(due)
        # Before a connection may have to be made: how long that takes is up to the server.
        self.late.append(time.perf_counter() - due)
        while self._idle:
            connection = self._idle.popleft()  # the one that was idle longest, so that none is idle for long
            if connection.open:
                connection.send(due)
                return
        task = asyncio.create_task(self._send_on_new(due))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _send_on_new(self, due: float) -> None:
        try:
            (await self._connect()).send(due)
        except OSError:
            self.lost(due)

    def answered(self, connection: Connection, due: float, answer: bytes, *, chunked: bool) -> None:
        """Take an answer, and the connection for the next request."""
        self.waiting.discard(due)
        if answer[9:12] == b"200":
            self.latencies.append(time.perf_counter() - due)
            if len(self.bodies) < KEPT and not chunked:
                self.bodies[answer.partition(b"\r\n\r\n")[2]] = None
        else:
            self.errors += 1
        self._idle.append(connection)

    def lost(self, due: float) -> None:
        """Count a request whose connection was refused, or closed without an answer."""
        self.waiting.discard(due)
        self.errors += 1

    def close(self) -> None:
        for each in self._idle:
            each.close()


class Timer:
    """A timer of the kernel that expires at each interval, and can be waited for like a socket."""

    def __init__(self, interval: float) -> None:
        self._system = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = self._system.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        seconds, rest = divmod(round(interval * 1e9), 1_000_000_000)
        every = (ctypes.c_long * 4)(seconds, rest, 0, 1)  # the first one at once
        if self.descriptor < 0 or self._system.timerfd_settime(self.descriptor, 0, every, None):
            raise OSError(ctypes.get_errno(), "no timer")

    def expired(self) -> int:
        """Return how many times it expired since it was last asked."""
        return int.from_bytes(os.read(self.descriptor, 8), sys.byteorder)

    def close(self) -> None:
        os.close(self.descriptor)


async def main(url: str, upstream: str, rate: float, seconds: float) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    client, offer = Client(), Offer(url, upstream, rate)
    await client.ask("GET", upstream + "/received", {})
    await offer.open(OPENED)
    await _hear("ready")
    seen = await offer.run(seconds)
    await _hear(json.dumps(seen))
    for body in offer.bodies:
        WORK.check(WORK.found(body))
    _, told = await client.ask("GET", upstream + "/received", {})
    received, lost = json.loads(told)["requests"], seen["errors"] + seen["unanswered"]
    if not seen["sent"] - lost <= received <= seen["sent"]:
        raise WrongAnswer(f"{seen['sent']} requests, {lost} without an answer, but the provider got {received}")
    offer.close()
    client.close()
    print("right", flush=True)


async def _hear(said: str) -> None:
    print(said, flush=True)
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    try:
        url, upstream, *numbers = sys.argv[1:]
        uvloop.run(main(url, upstream, *map(float, numbers)))
    except (WrongAnswer, HungUp, OSError, TimeoutError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
