"""One measurement: a client is started and made ready, clocks are read around its work, then it checks the answers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from measure import Figures, pin
from servers import Server

LOAD = Path(__file__).parent / "load.py"


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
    """
    Raises:
        Failed: a figure would be that of a proxy that does not do its work.
    """
    words = [asked.workload, server.url, upstream.url, asked.connections, asked.requests, asked.seconds]
    command = [sys.executable, str(LOAD), *map(str, words)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        pin(client.pid, proxy=False)
        try:
            _hear(client)
            server.tree.reset_peak()
            before, cpu = server.tree.memory(), server.tree.cpu()
            seen = json.loads(_hear(client, go_on=True))
            cpu, peak = server.tree.cpu() - cpu, server.tree.peak()
            if _hear(client, go_on=True) != "right":
                raise Failed(f"{asked.workload} by {server.name}: the answers were not checked")
        finally:
            client.kill()
    return Figures(seen["requests"], seen["seconds"], cpu, peak, max(0, peak - before), seen["latencies"])


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
