"""What the gateway costs, beside floors and, with --peers, beside others: one table. README.md tells the method.

python benchmarks/run.py [--form smallest|short|long] [--only W1,W3] [--peers] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import peers
import servers
from about import about
from driver import Failed, Measurement, measure
from goals import GOALS_AT
from measure import MIB, Figures
from servers import Proxy, Server
from table import Row, Table
from workloads import WORKLOADS

ENDLESS = 1_000_000
FLOOR = "floor aiohttp"
AT_MOST = {"floor httpx": 64, "litellm": 512}
"""Connections; beyond, they take so much CPU for a request that the run would be about them."""
WARM = 200
"""Generations before the first round: interpreters and compilers do better after the first ones."""


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
    at_once: dict[int, int]
    """W4: requests -> rounds."""
    tasks: int
    """W5."""
    mixes: int
    """W7: times that the mixed traffic is sent."""
    mounts: int
    """W6: rounds."""
    starts: int


FORMS = {
    "smallest": Form(1, 30, (1,), 1, {1: 1}, 1, 2, 1, 1),
    "short": Form(3, 0.7, (1, 16, 64, 512), ENDLESS, {500: 2, 2000: 2}, 1000, 4, 100, 3),
    "long": Form(9, 4, (1, 16, 64, 512), ENDLESS, {500: 5, 2000: 5}, 1000, 60, 400, 9),
}


class Run:
    def __init__(self, form: Form, table: Table, upstream: Server, folder: Path, pause: float) -> None:
        self._form, self._table, self._upstream, self._folder, self._pause = form, table, upstream, folder, pause
        self._fresh: dict[str, int] = {}
        self._warm: dict[str, int] = {}

    @contextmanager
    def started(self, proxies: Sequence[Proxy]) -> Iterator[dict[str, Server]]:
        """Fresh ones, so that none has memory left from another workload; each answers once, which loads what is
        loaded late, and is made warm."""
        with ExitStack() as stack:
            up: dict[str, Server] = {}
            for proxy in proxies:
                own = Path(tempfile.mkdtemp(dir=self._folder))
                try:
                    server = stack.enter_context(proxy.start(own, self._upstream.url))
                except RuntimeError as error:
                    self._table.fail(str(error))
                    continue
                status = servers.first_answer(server, self._upstream.url)
                if status != 200:
                    self._table.fail(f"{proxy.name}: the first answer was {status}")
                self._fresh[proxy.name] = server.tree.memory()
                warm = min(WARM, self._form.requests)
                self._measure(Measurement("W1", min(16, warm), warm, 60), server)
                self._warm[server.url] = server.tree.memory()
                up[proxy.name] = server
            yield up

    def compare(self, turns: Sequence[tuple[str, Server]], connections: int, rounds: int | None = None) -> None:
        """Rounds in which each server has its turn, so that what the machine does meanwhile is everybody's lot.

        Args:
            turns: workloads and who is asked.
            connections: at which all of them are asked.
            rounds: None: as many as the form has.
        """
        form = self._form
        seen: dict[tuple[str, str], dict[int, Figures]] = {}
        for at in range(rounds or form.rounds):
            first = at % len(turns)
            for workload, server in (*turns[first:], *turns[:first]):
                work = WORKLOADS[workload]
                # In a crowd each connection asks once; as many questions are asked as there are tasks.
                requests = connections if work.crowd else form.tasks if work.task else form.requests
                seconds = 600 if work.crowd or work.task else form.seconds
                time.sleep(self._pause)
                asked = Measurement(workload, connections, requests, seconds)
                if work.links:
                    self._measure(asked, server)  # what it has stored has given the machine memory for the next
                figures = self._measure(asked, server)
                if figures is not None:
                    seen.setdefault((workload, server.name), {})[at] = figures
        # What links cost is compared with passing the same reply on as it is.
        floor = next((each for (_, name), each in seen.items() if name == FLOOR), None)
        for workload, server in turns:
            if figures_of := seen.get((workload, server.name)):
                name = (workload, WORKLOADS[workload].title, connections)
                self._table.add(Row.of(name, server.name, figures_of, floor, self._warm[server.url]))

    def _measure(self, asked: Measurement, server: Server) -> Figures | None:
        try:
            return measure(asked, server, self._upstream)
        except Failed as error:
            self._table.fail(f"{asked.workload} at {asked.connections} by {server.name}: {error}")
            servers.settle(self._upstream)
            return None
        finally:
            server.forget_pictures()

    def all(self, proxies: Sequence[Proxy], bucket: Proxy | None, chosen: Callable[[str], bool]) -> None:
        form, gateway = self._form, [each for each in proxies if each.name == "imagegate"]
        few = min(4, form.requests)
        if chosen("W1"):
            with self.started(proxies) as up:
                for connections in form.connections:
                    # Most goals are about one of them, and a machine that others share has its moods.
                    rounds = form.rounds * 3 if connections == GOALS_AT else form.rounds
                    self.compare([("W1", each) for each in _able(up, connections)], connections, rounds)
            self._table.retention("W1", form.connections)
        if chosen("W2"):
            # Links are made by gateways of their own: what they leave in memory is not the other form's.
            with self.started(proxies) as up, self.started([*gateway, *([bucket] if bucket else [])]) as linked:
                turns = [("W2", each) for each in up.values()] + [("W2url", each) for each in linked.values()]
                self.compare(turns, few)
        if chosen("W3"):
            with self.started(proxies) as up:
                self.compare([("W3", each) for each in up.values()], few)
        if chosen("W4"):
            for at_once, rounds in form.at_once.items():
                with self.started([each for each in proxies if _can(each, at_once)]) as up:
                    self.crowd(list(up.values()), at_once, rounds)
        if chosen("W5"):
            with self.started(gateway) as up:
                self.compare([("W5", each) for each in up.values()], min(16, form.requests), -(-form.rounds // 2))
        if self._fresh:
            told = ", ".join(f"{name} {bytes_ / MIB:.0f} MiB" for name, bytes_ in self._fresh.items())
            self._table.note(f"W7 memory at rest, freshly started and asked once: {told}")
        if chosen("W7"):
            with self.started(gateway) as up:
                for each in up.values():
                    self.mix(each)

    def crowd(self, up: Sequence[Server], at_once: int, rounds: int) -> None:
        """W4; beside it what the client sees without any proxy, for client and provider have their part in it."""
        self.compare([("W4", each) for each in up], at_once, rounds)
        mine = [row for row in self._table.rows if (row.workload, row.connections) == ("W4", at_once)]
        for row in mine:
            if row.server == "imagegate":
                self._table.facts[f"answered at {at_once}"] = row.requests / rounds
        alone = self._measure(Measurement("W4", at_once, at_once, 600), self._upstream)
        if alone is not None:
            self._table.facts[f"p50 without a proxy at {at_once}"] = alone.quantile(0.5) * 1000
            told = "".join(f", {row.server} {row.p50 / 1000:.2f} s" for row in mine)
            self._table.note(f"W4 p50 of {at_once} at once: without a proxy {alone.quantile(0.5):.2f} s{told}")

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
        self._table.facts["growth"] = (grown[-1] - grown[len(grown) // 2]) / MIB
        self._table.note(f"W7 memory of {server.name} before mixed traffic and after each part of it, MiB: {sizes}")


def _can(proxy: Proxy | Server, connections: int) -> bool:
    return connections <= AT_MOST.get(proxy.name, connections)


def _able(up: dict[str, Server], connections: int) -> list[Server]:
    return [each for each in up.values() if _can(each, connections)]


def mounted(rounds: int, table: Table) -> None:
    command = [sys.executable, str(Path(__file__).parent / "mount.py"), "--rounds", str(rounds)]
    seen = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    table.facts["mount"] = seen["cost"]
    table.note(
        f"W6 a host's own route: {seen['without']:.1f} us CPU, with the gateway mounted {seen['with']:.1f} us: "
        f"{seen['cost']:.1f} us more (between medians {seen['median']:.1f})"
    )


def started(times: int, folder: Path, upstream: Server, table: Table) -> None:
    """From the command to the first answer to a generation."""
    took: list[float] = []
    for _ in range(times):
        own = Path(tempfile.mkdtemp(dir=folder))
        before = time.perf_counter()
        with servers.gateway(own, upstream.url) as server:
            status = servers.first_answer(server, upstream.url)
            took.append(time.perf_counter() - before)
        if status != 200:
            table.fail(f"start: the first answer was {status}")
    table.facts["start"] = sorted(took)[len(took) // 2]
    table.note(f"start to first answer: {min(took):.2f} s at the least, {max(took):.2f} s at the most of {times}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--form", choices=FORMS, default="short")
    parser.add_argument("--only", default="", help="workloads, such as W1,W3,start")
    parser.add_argument(
        "--peers", action="store_true", help="nginx, Portkey's gateway and LiteLLM proxy, where installed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes all figures there, too")
    parser.add_argument(
        "--provider-keep-alive",
        type=int,
        default=600,
        metavar="SECONDS",
        help="after which the provider closes idle connections",
    )
    parser.add_argument(
        "--pause", type=float, default=0, metavar="SECONDS", help="before each measurement; connections are idle then"
    )
    options = parser.parse_args()
    form, only = FORMS[options.form], set(filter(None, options.only.split(",")))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers end with us

    def chosen(name: str) -> bool:
        return not only or name in only

    table, before = Table(about(options.form)), time.monotonic()
    if table.about["load"] > 0.5:
        table.note("OTHERS ARE AT WORK HERE: these figures are not for publication")
    with tempfile.TemporaryDirectory(prefix="imagegate-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        upstream = stack.enter_context(servers.upstream(folder, options.provider_keep_alive))
        proxies = [*FLOORS, GATEWAY, *(_peers(table) if options.peers else [])]
        bucket = None
        if program := servers.rclone():
            if chosen("W2"):
                s3 = stack.enter_context(servers.s3(folder, program))
                bucket = Proxy("imagegate S3", functools.partial(servers.gateway, s3=s3.url))
        else:
            table.note("W2 to S3 is left out: rclone is not installed")
        if chosen("W6"):
            mounted(form.mounts, table)
        if chosen("start"):
            started(form.starts, folder, upstream, table)
        Run(form, table, upstream, folder, options.pause).all(proxies, bucket, chosen)
    if options.provider_keep_alive != 600:
        table.note(f"the provider closed connections that were idle for {options.provider_keep_alive} s")
    table.about["seconds"] = round(time.monotonic() - before)
    print(table)
    if options.json:
        options.json.write_text(table.json())
    return 1 if table.failures else 0


FLOORS = [Proxy(f"floor {kind}", functools.partial(servers.floor, kind=kind)) for kind in ("aiohttp", "httpx")]
GATEWAY = Proxy("imagegate", servers.gateway)


def _peers(table: Table) -> Iterator[Proxy]:
    for peer in peers.PEERS:
        version = peer.version()
        if version is None:
            table.note(f"{peer.name} is left out: not installed (make bench-peers installs what can be)")
        else:
            table.about["versions"][peer.name] = version
            yield peer.proxy


if __name__ == "__main__":
    raise SystemExit(main())
