"""What the gateway costs, beside floors and, with --peers, beside others: one table. README.md tells the method.

python benchmarks/run.py [--form smallest|short|long] [--only W1,W3] [--peers] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import peers
import servers
from driver import Failed, Measurement, measure
from measure import MIB, Figures
from servers import Server
from table import Row, Table
from workloads import WORKLOADS

ENDLESS = 1_000_000
WHOLE = ("imagegate", "imagegate S3")
HTTPX_AT_MOST = 64
"""Connections; beyond, httpx's pool takes tens of milliseconds of CPU for a request, and the run would be about it."""


@dataclass(frozen=True)
class Form:
    """How much is measured."""

    rounds: int
    seconds: float
    """Of one measurement."""
    connections: tuple[int, ...]
    """Of W1."""
    requests: int
    """At most in one measurement."""
    at_once: tuple[int, ...]
    """W4."""
    tasks: int
    """W5."""
    mixes: int
    """W7: times that the mixed traffic is sent."""
    mounts: int
    """W6: rounds."""
    starts: int


FORMS = {
    "smallest": Form(1, 30, (1,), 1, (1,), 1, 1, 1, 1),
    "short": Form(3, 1, (1, 16, 64, 512), ENDLESS, (500, 2000), 1000, 3, 100, 3),
    "long": Form(9, 4, (1, 16, 64, 512), ENDLESS, (500, 2000), 1000, 60, 400, 9),
}


class Run:
    def __init__(self, form: Form, table: Table, upstream: Server, proxies: Sequence[Server]) -> None:
        self._form, self._table, self._upstream, self._proxies = form, table, upstream, proxies

    def compare(
        self, workload: str, proxies: Sequence[Server], connections: int, *, floor: str = "floor aiohttp"
    ) -> None:
        """Rounds in which each proxy has its turn, so that what the machine does meanwhile is every proxy's lot."""
        form = self._form
        title = f"{workload} {WORKLOADS[workload].title}, {connections}"
        seen: dict[str, list[Figures]] = {}
        for at in range(form.rounds):
            turn = at % len(proxies)
            for server in (*proxies[turn:], *proxies[:turn]):
                # In W4 each connection asks once; in W5 as many questions are asked as there are tasks.
                requests = {"W4": connections, "W5": form.tasks}.get(workload, form.requests)
                seconds = form.seconds if workload not in {"W4", "W5"} else 600
                figures = self._measure(Measurement(workload, connections, requests, seconds), server)
                if figures is not None:
                    seen.setdefault(server.name, []).append(figures)
        for server in proxies:
            if figures_of := seen.get(server.name):
                self._table.add(Row.of(title, server.name, figures_of, seen.get(floor)))

    def _measure(self, asked: Measurement, server: Server) -> Figures | None:
        try:
            return measure(asked, server, self._upstream)
        except Failed as error:
            self._table.fail(f"{asked.workload} at {asked.connections} by {server.name}: {error}")
            servers.settle(self._upstream)
            return None

    def all(self, chosen: Callable[[str], bool]) -> None:
        form = self._form
        everybody = [each for each in self._proxies if each.name != "imagegate S3"]
        ours = [each for each in self._proxies if each.name in WHOLE]
        if chosen("W7"):
            self._table.note(
                "W7 memory at rest: " + ", ".join(f"{s.name} {s.tree.memory() / MIB:.0f} MiB" for s in self._proxies)
            )
        if chosen("W1"):
            for connections in form.connections:
                able = [s for s in everybody if s.name != "floor httpx" or connections <= HTTPX_AT_MOST]
                self.compare("W1", able, connections)
            self._table.retention("W1", form.connections)
        for name in filter(chosen, ("W2", "W3")):
            self.compare(name, everybody, min(4, form.requests))
        if chosen("W2"):
            self.compare("W2url", ours, min(4, form.requests), floor="")
        if chosen("W4"):
            for at_once in form.at_once:
                self.compare("W4", [s for s in everybody if s.name != "floor httpx"], at_once)
        if chosen("W5"):
            self.compare("W5", ours[:1], min(16, form.requests))
        if chosen("W7"):
            self.mix(ours[0])

    def mix(self, server: Server) -> None:
        """W7: an hour of mixed traffic without the pauses; what is resident after each part must stop growing."""
        many = min(self._form.requests, 200)
        grown = [server.tree.memory()]
        parts = (
            ("W1", 16, many),
            ("W2", 2, min(many, 4)),
            ("W2url", 2, min(many, 4)),
            ("W3", 2, min(many, 4)),
            ("W5", 4, many),
        )
        for _ in range(self._form.mixes):
            for name, connections, requests in parts:
                self._measure(Measurement(name, min(connections, requests), requests, 60), server)
            grown.append(server.tree.memory())
        sizes = ", ".join(f"{each / MIB:.0f}" for each in grown)
        self._table.note(f"W7 memory of {server.name} before mixed traffic and after each part of it, MiB: {sizes}")


def mounted(rounds: int, table: Table) -> None:
    command = [sys.executable, str(Path(__file__).parent / "mount.py"), "--rounds", str(rounds)]
    seen = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    table.note(
        f"W6 a host's own route: {seen['without']:.1f} us CPU, with the gateway mounted {seen['with']:.1f} us: "
        f"{seen['cost']:.1f} us more (between medians {seen['median']:.1f})"
    )


def started(times: int, folder: Path, upstream: Server, table: Table) -> None:
    """From the command to the first answer to a generation."""
    took: list[float] = []
    for at in range(times):
        own = folder / f"start-{at}"
        own.mkdir()
        before = time.perf_counter()
        with servers.gateway(own, upstream.url) as server:
            status = servers.first_answer(server)
            took.append(time.perf_counter() - before)
        if status != 200:
            table.fail(f"start: the first answer was {status}")
    table.note(f"start to first answer: {min(took):.2f} s at the least, {max(took):.2f} s at the most of {times}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--form", choices=FORMS, default="short")
    parser.add_argument("--only", default="", help="workloads, such as W1,W3,start")
    parser.add_argument(
        "--peers", action="store_true", help="nginx, Portkey's gateway and LiteLLM proxy, where installed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes all rounds there, too")
    options = parser.parse_args()
    form, only = FORMS[options.form], set(filter(None, options.only.split(",")))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers end with us

    def chosen(name: str) -> bool:
        return not only or name in only

    table = Table()
    table.note(_machine())
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        upstream = stack.enter_context(servers.upstream(folder))
        proxies = list(_proxies(stack, folder, upstream, table, with_peers=options.peers))
        if chosen("W6"):
            mounted(form.mounts, table)
        if chosen("start"):
            started(form.starts, folder, upstream, table)
        Run(form, table, upstream, proxies).all(chosen)
    print(table)
    if options.json:
        options.json.write_text(table.json())
    return 1 if table.failures else 0


def _proxies(stack: ExitStack, folder: Path, upstream: Server, table: Table, *, with_peers: bool) -> Iterator[Server]:
    yield stack.enter_context(servers.floor("aiohttp", folder, upstream.url))
    yield stack.enter_context(servers.floor("httpx", folder, upstream.url))
    yield stack.enter_context(servers.gateway(folder, upstream.url))
    if program := servers.rclone():
        bucket = stack.enter_context(servers.s3(folder, program))
        yield stack.enter_context(servers.gateway(folder, upstream.url, s3=bucket.url))
    else:
        table.note("W2 to S3 is left out: rclone is not installed")
    for peer in peers.PEERS if with_peers else ():
        try:
            yield stack.enter_context(peer(folder, upstream.url))
        except (peers.NotInstalled, RuntimeError) as error:
            table.note(f"left out: {error}")


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    busy = "; OTHERS ARE AT WORK HERE: these figures are not for publication" if load > 0.5 else ""
    model = ""
    with suppress(OSError):
        model = next(
            (
                line.partition(":")[2].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if "model name" in line
            ),
            "",
        )
    return f"Python {sys.version.split()[0]}, {cores} cores {model}, load before the run {load:.2f}{busy}"


if __name__ == "__main__":
    raise SystemExit(main())
