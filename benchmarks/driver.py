"""One measurement: a client is started and made ready, clocks are read around its work, then answers are checked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Figures, OpenLoop, pin
from servers import Server
from workloads import WORKLOADS, headers

HERE = Path(__file__).parent
SLOWEST = 20.0
"""Seconds in which every connection has its turn."""


class Failed(Exception):
    """The client saw a wrong answer, or none."""


@dataclass(frozen=True)
class Measurement:
    """What is asked of a server: until so many requests are sent, or so many seconds are over."""

    workload: str
    connections: int
    requests: int
    seconds: float


def measure(asked: Measurement, server: Server, upstream: Server) -> Figures:
    """Measure a workload at a server.

    Raises:
        Failed: a figure would be that of a proxy that does not do its work.
    """
    words = ["load.py", asked.workload, server.url, upstream.url, asked.connections, asked.requests, asked.seconds]
    with _client(words, server) as client:
        server.tree.reset_peak()
        before, cpu = server.tree.memory(), server.tree.cpu()
        seen = json.loads(_hear(client, go_on=True))
        cpu, peak = server.tree.cpu() - cpu, server.tree.peak()
        if _hear(client, go_on=True) != "right":
            raise Failed(f"{asked.workload} by {server.name}: the answers were not checked")
    return Figures(seen["requests"], seen["seconds"], cpu, peak, max(0, peak - before), seen["latencies"])


def offer(rate: float, seconds: float, server: Server, upstream: Server) -> OpenLoop:
    """Send small generations at a fixed rate (`rate.py`).

    Raises:
        Failed: a figure would be that of a proxy that does not do its work.
    """
    with _client(["rate.py", server.url, upstream.url, rate, seconds], server) as client:
        cpu = server.tree.cpu()
        seen = json.loads(_hear(client, go_on=True))
        cpu = server.tree.cpu() - cpu
        if _hear(client, go_on=True) != "right":
            raise Failed(f"{rate} a second by {server.name}: the answers were not checked")
    shown = ("asked", "sent", "rate", "latencies", "late", "errors", "unanswered")
    return OpenLoop(offered=rate, cpu=cpu / max(1, seen["requests"]) * 1e6, **{name: seen[name] for name in shown})


def wrk() -> str | None:
    """Return where it is; None: small requests come from `load.py`."""
    return shutil.which("wrk")


def measure_small(connections: int, seconds: float, server: Server, upstream: Server) -> Figures:
    """Have wrk send small generations, which costs the machine less than a client in Python does.

    Clocks are read, and the provider is asked how many requests came, when all connections are at work; wrk ends after
    that. It checks statuses; pictures are checked in requests before and after.

    Raises:
        Failed: a figure would be that of a proxy that does not do its work.
    """
    program = wrk()
    if program is None:
        return measure(Measurement("W1", connections, 1_000_000, seconds), server, upstream)
    check = Measurement("W1", 4, 8, 60)
    measure(check, server, upstream)
    body, kind = WORKLOADS["W1"].body()
    said = {**headers(upstream.url), "content-type": kind}
    environment = {
        **os.environ,
        "BENCHMARK_BODY": body.decode(),
        "BENCHMARK_HEADERS": "".join(f"{name}: {value}\n" for name, value in said.items()),
    }
    # The end comes by a signal.
    command = [program, "-t1", f"-c{connections}", "-d600s", "--timeout", "120s", "-s", str(HERE / "post.lua")]
    command.append(server.url + WORKLOADS["W1"].path)
    _received(upstream)
    server.tree.reset_peak()
    resident = server.tree.memory()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as load:
        try:
            pin(load.pid, proxy=False, workers=server.workers)
            time.sleep(0.2 + connections / 1000)
            first = _received_at_least(connections, 0.1, upstream)
            started, cpu = time.perf_counter(), server.tree.cpu()
            requests = _received_at_least(connections, seconds, upstream)
            took, cpu = time.perf_counter() - started, server.tree.cpu() - cpu
            load.send_signal(signal.SIGINT)
            told, _ = load.communicate(timeout=60)
        finally:
            load.kill()
    peak = server.tree.peak()
    server.tree.rest()
    upstream.tree.rest()
    try:
        seen = json.loads(told.strip().rpartition("\n")[2])
    except ValueError:
        raise Failed(f"wrk: {told.strip()[-300:]}") from None
    received = first + requests + _received(upstream)
    if seen["errors"] or not requests:
        raise Failed(f"{seen['requests']} answers, and {seen['errors']} that are none")
    if not seen["requests"] <= received <= seen["requests"] + connections:
        raise Failed(f"{seen['requests']} answers, but the provider got {received} requests")
    measure(check, server, upstream)
    return Figures(requests, took, cpu, peak, max(0, peak - resident), seen["latencies"])


def _received(upstream: Server) -> int:
    with urllib.request.urlopen(f"{upstream.url}/received", timeout=60) as reply:
        count: int = json.load(reply)["requests"]
        return count


def _received_at_least(requests: int, seconds: float, upstream: Server) -> int:
    """Measure what the provider gets in some time; longer where not every connection has had its turn."""
    count, deadline = 0, time.monotonic() + SLOWEST
    while True:
        time.sleep(seconds)
        count += _received(upstream)
        if count >= requests or time.monotonic() > deadline:
            return count


@contextmanager
def _client(words: Sequence[Any], server: Server) -> Iterator[subprocess.Popen[str]]:
    """Start a client of ours, and wait until it is ready."""
    command = [sys.executable, str(HERE / words[0]), *map(str, words[1:])]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        pin(client.pid, proxy=False, workers=server.workers)
        try:
            _hear(client)
            yield client
        finally:
            client.kill()


def _hear(client: subprocess.Popen[str], *, go_on: bool = False) -> str:
    if client.stdin is None or client.stdout is None or client.stderr is None:
        raise AssertionError("all three are pipes")
    if go_on:
        client.stdin.write("\n")
        client.stdin.flush()
    line = client.stdout.readline().strip()
    if not line:
        raise Failed(client.stderr.read().strip()[-1000:])
    return line
