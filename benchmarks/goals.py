"""What must hold, every layer on, in one run: each goal with what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

GATEWAY: Final = "imagegate"
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
        """For a file."""
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
    """Those that were measured."""
    goals: list[Goal] = []

    def goal(
        name: str, value: float | None, limit: float, unit: str = "", *, at_least: bool = False, beside: str = ""
    ) -> None:
        if value is not None:
            goals.append(Goal(name, value, limit, unit, at_least, beside))

    def own(workload: str, connections: int, figure: str) -> float | None:
        return seen.figure(GATEWAY, workload, connections, figure)

    goal("W1 at 16: CPU to the aiohttp floor's", own("W1", GOALS_AT, "ratio"), 2, " x")
    for server, name, limit in (("portkey", "Portkey", 1 / 2), ("litellm", "LiteLLM", 1 / 20)):
        mine, other = own("W1", GOALS_AT, "cpu"), seen.figure(server, "W1", GOALS_AT, "cpu")
        goal(f"W1 at 16: CPU to {name}'s", mine / other if mine and other else None, limit, " x")
    goal("W1: retention from 16 to 512 connections", seen.facts.get(f"retention of {GATEWAY}"), 0.7, at_least=True)
    goal("W2 as base64: CPU to the aiohttp floor's", own("W2", 4, "ratio"), 1.3, " x")
    goal("W2 as base64: memory at the peak above that before", own("W2", 4, "grown"), 16, " MiB")
    goal("W2 as links: CPU to the aiohttp floor's, which passes base64", own("W2url", 4, "ratio"), 2, " x")
    goal("W3: CPU to the aiohttp floor's", own("W3", 4, "ratio"), 1.3, " x")
    goal("W3: memory at the peak above that before", own("W3", 4, "grown"), 16, " MiB")
    goal("W4 at 2000: answered, of each round", seen.facts.get("answered at 2000"), 2000, at_least=True)
    for many in (500, 2000):
        alone = seen.facts.get(f"p50 without a proxy at {many}")
        floor = _added(seen.figure("floor aiohttp", "W4", many, "p50"), alone)
        beside = "" if floor is None else f"the aiohttp floor adds {_number(floor)} %"
        name = f"W4 at {many}: p50 added to that without a proxy, in % of the provider's 2 s"
        goal(name, _added(own("W4", many, "p50"), alone), 25, " %", beside=beside)
    grown = own("W4", 2000, "grown")
    goal("W4 at 2000: memory of a request in flight", None if grown is None else grown * 1024 / 2000, 40, " KiB")
    goal("W6: what a host's own route pays", seen.facts.get("mount"), 5, " us")
    goal("W7: growth in the later half of mixed traffic", seen.facts.get("growth"), 4, " MiB")
    goal("start to first answer", seen.facts.get("start"), 1, " s")
    return goals


def _added(p50: float | None, alone: float | None) -> float | None:
    return None if p50 is None or alone is None else (p50 - alone) / WAIT_MS * 100


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"
