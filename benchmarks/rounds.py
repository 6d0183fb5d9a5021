"""Rounds in which servers take turns, workload by workload."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import servers
from driver import Failed, Measurement, measure, measure_small, offer
from forms import Form
from goals import ALONE, FLOOR, GATEWAYS, GOALS_AT
from measure import MIB, Figures, OpenLoop
from rates import RateRow
from servers import Proxy, Server
from table import Row, Table
from workloads import WORKLOADS

AT_MOST: Final = {"floor httpx": 64, "litellm": 512}
"""Connections; beyond, they take so much CPU for a request that the run would be about them."""
WARM: Final = 200
"""Generations before the first round: interpreters and compilers do better after the first ones."""
WORKERS: Final = 2
"""Beside one."""
WORKERS_AT: Final = 64
"""Connections of W1 at which several workers are measured."""
FLOORS: Final = [
    Proxy(FLOOR, functools.partial(servers.floor, kind="aiohttp")),
    Proxy("floor httpx", functools.partial(servers.floor, kind="httpx")),
]
OWN: Final = [Proxy(name, functools.partial(servers.gateway, kind=name.split()[1])) for name in GATEWAYS]
SEVERAL: Final = [
    Proxy(f"{FLOOR}, {WORKERS} workers", functools.partial(servers.floor, kind="aiohttp", workers=WORKERS)),
    *(
        Proxy(f"{name}, {WORKERS} workers", functools.partial(servers.gateway, kind=name.split()[1], workers=WORKERS))
        for name in GATEWAYS
    ),
]


class Run:
    def __init__(self, form: Form, table: Table, upstream: Server, folder: Path, pause: float) -> None:
        self._form, self._table, self._upstream, self._folder, self._pause = form, table, upstream, folder, pause
        self._fresh: dict[str, int] = {}
        self._warm: dict[str, int] = {}

    @contextmanager
    def started(self, proxies: Sequence[Proxy]) -> Iterator[dict[str, Server]]:
        """Start fresh ones, so that none has memory left from another workload; each answers once, which loads what is
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
        """Measure in rounds in which each server has its turn, so that noise of the machine falls on all.

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
                figures = self._small(connections, server) if workload == "W1" else self._measure(asked, server)
                if figures is not None:
                    seen.setdefault((workload, server.name), {})[at] = figures
        # What links cost is compared with passing the same reply on as it is.
        floor = next((each for (_, name), each in seen.items() if name.startswith(FLOOR)), None)
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

    def _small(self, connections: int, server: Server) -> Figures | None:
        try:
            return measure_small(connections, self._form.small_seconds, server, self._upstream)
        except Failed as error:
            self._table.fail(f"W1 at {connections} by {server.name}: {error}")
            servers.settle(self._upstream)
            return None

    def all(self, proxies: Sequence[Proxy], bucket: Proxy | None, chosen: Callable[[str], bool]) -> None:
        form, gateway = self._form, [each for each in proxies if each.name in GATEWAYS]
        few = min(4, form.requests)
        # For what most goals are about: a machine that others share has its moods.
        many = form.rounds * 3 if form.rounds > 1 else 1
        if chosen("W1"):
            with self.started(proxies) as up:
                for connections in form.connections:
                    rounds = many if connections == GOALS_AT else form.rounds
                    self.compare([("W1", each) for each in _able(up, connections)], connections, rounds)
            self._table.retention("W1", form.connections)
        if chosen("rates"):
            with self.started(proxies) as up:
                self.rates(list(up.values()))
        if chosen("W1") or chosen("rates"):
            with self.started(SEVERAL) as up:
                if chosen("W1"):
                    self.compare([("W1", each) for each in up.values()], min(WORKERS_AT, form.connections[-1]))
                if chosen("rates"):
                    self.rates(list(up.values()))
        if chosen("W2"):
            # Links are made by gateways of their own: what they leave in memory is not the other form's.
            with self.started(proxies) as up, self.started([*gateway, *([bucket] if bucket else [])]) as linked:
                turns = [("W2", each) for each in up.values()] + [("W2url", each) for each in linked.values()]
                self.compare(turns, few, many)
        if chosen("W3"):
            with self.started(proxies) as up:
                self.compare([("W3", each) for each in up.values()], few, many)
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
            with self.started([each for each in gateway if each.name == ALONE]) as up:
                for each in up.values():
                    self.mix(each)

    def rates(self, up: Sequence[Server]) -> None:
        """Offer small generations at fixed rates; a higher one only to who has reached the one below."""
        form, beaten = self._form, set[str]()
        for rate in form.rates:
            seen: dict[str, list[OpenLoop]] = {}
            for at in range(form.rate_rounds):
                first = at % len(up)
                for server in (*up[first:], *up[:first]):
                    if server.name in beaten:
                        continue
                    try:
                        figures = offer(rate, form.rate_seconds, server, self._upstream)
                    except Failed as error:
                        self._table.fail(f"{rate} a second by {server.name}: {error}")
                        servers.settle(self._upstream)
                        continue
                    seen.setdefault(server.name, []).append(figures)
                    if not figures.reached:
                        server.tree.rest()
                        self._upstream.tree.rest()
            for server in up:
                if server.name in beaten:
                    self._table.note(f"{rate} requests a second were not offered to {server.name}: fewer were too many")
                elif rounds := seen.get(server.name):
                    row = RateRow.of(server.name, rate, rounds)
                    self._table.rates.append(row)
                    if not row.reached:
                        beaten.add(server.name)

    def crowd(self, up: Sequence[Server], at_once: int, rounds: int) -> None:
        """Measure W4, and what the client sees without any proxy: client and provider have their part in it."""
        self.compare([("W4", each) for each in up], at_once, rounds)
        mine = [row for row in self._table.rows if (row.workload, row.connections) == ("W4", at_once)]
        for row in mine:
            if row.server in GATEWAYS:
                self._table.facts[f"answered at {at_once} by {row.server}"] = row.requests / rounds
        alone = self._measure(Measurement("W4", at_once, at_once, 600), self._upstream)
        if alone is not None:
            self._table.facts[f"p50 without a proxy at {at_once}"] = alone.quantile(0.5) * 1000
            told = "".join(f", {row.server} {row.p50 / 1000:.2f} s" for row in mine)
            self._table.note(f"W4 p50 of {at_once} at once: without a proxy {alone.quantile(0.5):.2f} s{told}")

    def mix(self, server: Server) -> None:
        """Measure W7, an hour of mixed traffic without the pauses: what is resident must stop growing."""
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
