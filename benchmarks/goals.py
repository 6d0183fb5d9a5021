"""What must hold, every layer on, in one run: each goal with what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

ALONE: Final = "imagegate alone"
MOUNTED: Final = "imagegate mounted"
GATEWAYS: Final = (ALONE, MOUNTED)
FLOOR: Final = "floor aiohttp"
GOALS_AT: Final = 16
"""Connections of W1 that most goals are about."""
WAIT_MS: Final = 2000.0
"""The provider takes it in W4."""


@dataclass(frozen=True)
class Goal:
    name: str
    value: float
    limit: float
    unit: str = ""
    at_least: bool = False
    beside: str = ""
    """What others have, where the value says little without."""
    of: str = "alone"
    """Or ``mounted``."""

    @property
    def title(self) -> str:
        return f"{self.name}, {self.of}"

    @property
    def reached(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def verdict(self) -> str:
        return "reached" if self.reached else "NOT REACHED"

    @property
    def measured(self) -> str:
        return f"{_number(self.value)}{self.unit}"

    @property
    def wanted(self) -> str:
        return f"{'>=' if self.at_least else '<='} {_number(self.limit)}{self.unit}"

    def told(self) -> dict[str, Any]:
        """Return the goal as a file has it."""
        return {**asdict(self), "measured": self.measured, "wanted": self.wanted, "verdict": self.verdict}


@dataclass(frozen=True)
class Seen:
    """What was measured: rows as the table has them, or as a file has them, and facts by name."""

    rows: Sequence[Mapping[str, Any]]
    facts: Mapping[str, float]

    def figure(self, server: str, workload: str, connections: int, name: str) -> float | None:
        for row in self.rows:
            if (row["server"], row["workload"], row["connections"]) == (server, workload, connections):
                value: float | None = row[name]
                return value
        return None


def goals_of(seen: Seen) -> list[Goal]:
    """Return all that can be told from what was measured."""
    goals: list[Goal] = []

    def goal(
        name: str,
        value: float | None,
        limit: float,
        unit: str = "",
        *,
        at_least: bool = False,
        beside: str = "",
        of: str = "alone",
    ) -> None:
        if value is not None:
            goals.append(Goal(name, value, limit, unit, at_least, beside, of))

    def each(name: str, workload: str, connections: int, figure: str, limit: float, unit: str) -> None:
        for gateway in GATEWAYS:
            value = seen.figure(gateway, workload, connections, figure)
            goal(name, value, limit, unit, of=gateway.split()[1])

    each("W1 at 16: CPU to the aiohttp floor's", "W1", GOALS_AT, "ratio", 3, " x")
    for server, name, limit in (("portkey", "Portkey", 0.4), ("litellm", "LiteLLM", 0.06)):
        other = seen.figure(server, "W1", GOALS_AT, "cpu")
        for gateway in GATEWAYS:
            mine = seen.figure(gateway, "W1", GOALS_AT, "cpu")
            ratio = mine / other if mine and other else None
            goal(f"W1 at 16: CPU to {name}'s", ratio, limit, " x", of=gateway.split()[1])
    for gateway in GATEWAYS:
        kept = seen.facts.get(f"retention of {gateway}")
        goal("W1: retention from 16 to 512 connections", kept, 0.7, at_least=True, of=gateway.split()[1])
    each("W2 as base64: CPU to the aiohttp floor's", "W2", 4, "ratio", 1.2, " x")
    each("W2 as base64: memory at the peak above that before", "W2", 4, "grown", 16, " MiB")
    each("W2 as links: CPU to the aiohttp floor's, which passes base64", "W2url", 4, "ratio", 1.7, " x")
    each("W3: CPU to the aiohttp floor's", "W3", 4, "ratio", 1.3, " x")
    each("W3: memory at the peak above that before", "W3", 4, "grown", 16, " MiB")
    for gateway in GATEWAYS:
        answered = seen.facts.get(f"answered at 2000 by {gateway}")
        goal("W4 at 2000: answered, of each round", answered, 2000, at_least=True, of=gateway.split()[1])
    for many in (500, 2000):
        alone = seen.facts.get(f"p50 without a proxy at {many}")
        floor = _added(seen.figure(FLOOR, "W4", many, "p50"), alone)
        beside = "" if floor is None else f"the aiohttp floor adds {_number(floor)} %"
        name = f"W4 at {many}: p50 added to that without a proxy, in % of the provider's 2 s"
        for gateway in GATEWAYS:
            added = _added(seen.figure(gateway, "W4", many, "p50"), alone)
            goal(name, added, 25, " %", beside=beside, of=gateway.split()[1])
    for gateway in GATEWAYS:
        grown = seen.figure(gateway, "W4", 2000, "grown")
        of_one = None if grown is None else grown * 1024 / 2000
        goal("W4 at 2000: memory of a request in flight", of_one, 40, " KiB", of=gateway.split()[1])
    goal("W6: what a host's own route pays", seen.facts.get("mount"), 5, " us", of="mounted")
    goal("W7: growth in the later half of mixed traffic", seen.facts.get("growth"), 4, " MiB")
    goal("start to first answer", seen.facts.get("start"), 1, " s")
    return goals


def _added(p50: float | None, alone: float | None) -> float | None:
    return None if p50 is None or alone is None else (p50 - alone) / WAIT_MS * 100


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"
