"""The one table that a run prints, and what is kept of it in a file."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from about import told
from goals import Goal, Seen, goals_of
from measure import MIB, Figures
from rates import RateRow, lines


@dataclass(frozen=True)
class Row:
    """A server under a workload; medians over the rounds."""

    workload: str
    """Its name, such as ``W1``."""
    title: str
    connections: int
    server: str
    cpu: float
    """Microseconds of a request."""
    ratio: float | None
    """To the floor's, each round to its own."""
    rate: float
    """Requests a second."""
    p50: float
    p99: float
    """Milliseconds."""
    added: float | None
    """Milliseconds between the medians of the latency and the floor's."""
    peak: float
    grown: float
    """MiB, of the worst round: at the most, and above what the server had when it was warm."""
    requests: int
    rounds: list[float] = field(default_factory=list)
    """CPU microseconds of each."""

    @classmethod
    def of(
        cls,
        name: tuple[str, str, int],
        server: str,
        rounds: Mapping[int, Figures],
        floor: Mapping[int, Figures] | None,
        warm: int,
    ) -> Row:
        """
        Args:
            name: of the workload, its title and connections.
            server: its name.
            rounds: by number; a round that failed has no figures.
            floor: the rounds of what it is compared with.
            warm: bytes that the server had before the first round.
        """

        def median(name: str) -> float:
            return float(statistics.median(getattr(each, name) for each in rounds.values()))

        def latency(share: float, of: Mapping[int, Figures]) -> float:
            return statistics.median(each.quantile(share) for each in of.values()) * 1000

        ratios = [
            own.microseconds / floor[at].microseconds for at, own in rounds.items() if floor is not None and at in floor
        ]
        p50, peak = latency(0.5, rounds), max(each.peak for each in rounds.values())
        # fmt: off
        return cls(
            *name, server, median("microseconds"), statistics.median(ratios) if ratios else None,
            median("rate"), p50, latency(0.99, rounds), p50 - latency(0.5, floor) if floor else None,
            peak / MIB, max(0, peak - warm) / MIB, sum(each.requests for each in rounds.values()),
            [each.microseconds for each in rounds.values()],
        )
        # fmt: on


class Table:
    """What is seen in a run.

    Args:
        about: the machine, versions, the day: what figures mean nothing without.
    """

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.about = dict(about)
        self.rows: list[Row] = []
        self.rates: list[RateRow] = []
        self.facts: dict[str, float] = {}
        """Figures that are in no row, by name; `goals` has the names."""
        self.notes: list[str] = []
        self.failures: list[str] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def fail(self, text: str) -> None:
        self.failures.append(text)

    def retention(self, workload: str, connections: Sequence[int]) -> None:
        """Throughput at the most connections over that at 16, or at the fewest."""
        low, high = (16 if 16 in connections else connections[0]), connections[-1]
        if low == high:
            return
        rates = {(row.server, row.connections): row.rate for row in self.rows if row.workload == workload}
        kept = {
            server: rates[server, high] / rate
            for (server, many), rate in rates.items()
            if many == low and (server, high) in rates
        }
        self.facts |= {f"retention of {server}": each for server, each in kept.items()}
        each_one = ", ".join(f"{server} {each:.2f}" for server, each in kept.items())
        self.note(f"{workload} retention, throughput at {high} connections over that at {low}: {each_one}")

    @property
    def goals(self) -> list[Goal]:
        return goals_of(Seen([asdict(row) for row in self.rows], self.facts))

    def __str__(self) -> str:
        head = f"{'workload, connections':<36} {'server':<28} {'us CPU':>9} {'x floor':>8} {'req/s':>8} "
        head += f"{'p50 ms':>8} {'p99 ms':>8} {'added':>8} {'peak MiB':>9} {'+MiB':>6} {'checked':>8}"
        text = [head, "-" * len(head)]
        for row in self.rows:
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            added = "" if row.added is None else f"{row.added:.1f}"
            text.append(
                f"{f'{row.workload} {row.title}, {row.connections}':<36} {row.server:<28} {row.cpu:9.0f} {ratio:>8} "
                f"{row.rate:8.1f} {row.p50:8.1f} {row.p99:8.1f} {added:>8} {row.peak:9.0f} {row.grown:6.0f} "
                f"{row.requests:8}"
            )
        text += lines([asdict(each) for each in self.rates])
        if goals := self.goals:
            text += ["", f"{'Goals':<80} {'measured':>12} {'goal':>12}"]
            text += [
                f"{each.title:<80} {each.measured:>12} {each.wanted:>12}  {each.verdict}"
                + (f" ({each.beside})" if each.beside else "")
                for each in goals
            ]
        return "\n".join([*text, "", told(self.about), *self.notes, *(f"FAILED {each}" for each in self.failures)])

    def json(self) -> str:
        kept = {
            **self.about,
            "rows": [asdict(row) for row in self.rows],
            "rates": [asdict(each) for each in self.rates],
            "facts": self.facts,
            "goals": [each.told() for each in self.goals],
            "notes": self.notes,
            "failures": self.failures,
        }
        return json.dumps(kept, indent=1) + "\n"
