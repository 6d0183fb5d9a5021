"""The one table that a run prints."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from measure import MIB, Figures


@dataclass(frozen=True)
class Row:
    """A server under a workload; medians over the rounds."""

    workload: str
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
    """MiB."""
    requests: int
    rounds: list[float] = field(default_factory=list)
    """CPU microseconds of each."""

    @classmethod
    def of(cls, workload: str, server: str, rounds: Sequence[Figures], floor: Sequence[Figures] | None) -> Row:
        def median(name: str, of: Sequence[Figures] = rounds) -> float:
            return float(statistics.median(getattr(each, name) for each in of))

        def latency(share: float, of: Sequence[Figures] = rounds) -> float:
            return statistics.median(each.quantile(share) for each in of) * 1000

        together = list(zip(rounds, floor or (), strict=False))
        return cls(
            workload,
            server,
            median("microseconds"),
            statistics.median(own.microseconds / least.microseconds for own, least in together) if together else None,
            median("rate"),
            latency(0.5),
            latency(0.99),
            latency(0.5) - latency(0.5, floor) if floor else None,
            max(each.peak for each in rounds) / MIB,
            max(each.grown for each in rounds) / MIB,
            sum(each.requests for each in rounds),
            [each.microseconds for each in rounds],
        )


class Table:
    def __init__(self) -> None:
        self.rows: list[Row] = []
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
        rates = {
            (row.server, row.workload.rpartition(" ")[2]): row.rate for row in self.rows if row.workload[:2] == workload
        }
        kept = [
            f"{server} {rates[server, str(high)] / rate:.2f}"
            for (server, many), rate in rates.items()
            if many == str(low) and (server, str(high)) in rates
        ]
        self.note(f"{workload} retention, throughput at {high} connections over that at {low}: {', '.join(kept)}")

    def __str__(self) -> str:
        head = f"{'workload, connections':<40} {'server':<14} {'us CPU':>9} {'x floor':>8} {'req/s':>8} "
        head += f"{'p50 ms':>8} {'p99 ms':>8} {'added':>8} {'peak MiB':>9} {'+MiB':>6} {'checked':>8}"
        lines = [head, "-" * len(head)]
        for row in self.rows:
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            added = "" if row.added is None else f"{row.added:.1f}"
            lines.append(
                f"{row.workload:<40} {row.server:<14} {row.cpu:9.0f} {ratio:>8} {row.rate:8.1f} "
                f"{row.p50:8.1f} {row.p99:8.1f} {added:>8} {row.peak:9.0f} {row.grown:6.0f} {row.requests:8}"
            )
        return "\n".join([*lines, "", *self.notes, *(f"FAILED {each}" for each in self.failures)])

    def json(self) -> str:
        rows = [asdict(row) for row in self.rows]
        return json.dumps({"rows": rows, "notes": self.notes, "failures": self.failures}, indent=1) + "\n"
