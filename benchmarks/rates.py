"""What was seen at fixed rates, as rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from measure import OpenLoop, quantile


@dataclass(frozen=True)
class RateRow:
    """A server to which small generations were offered at a rate; medians over the rounds."""

    server: str
    offered: int
    """Requests a second."""
    reached: bool
    """In every round."""
    rate: float
    """Answers a second while requests were sent."""
    cpu: float
    """Microseconds of a request."""
    p50: float
    p99: float
    p999: float
    """Milliseconds from the time at which a request was to be sent."""
    late: float
    """Milliseconds by which 1 % of the requests were sent late by the generator: a part of the latencies."""
    errors: int
    unanswered: int
    """Of all rounds."""
    sent: int

    @classmethod
    def of(cls, server: str, offered: int, rounds: Sequence[OpenLoop]) -> RateRow:
        def latency(share: float) -> float:
            return statistics.median(quantile(each.latencies, share) for each in rounds) * 1000

        return cls(
            server,
            offered,
            all(each.reached for each in rounds),
            statistics.median(each.rate for each in rounds),
            statistics.median(each.cpu for each in rounds),
            latency(0.5),
            latency(0.99),
            latency(0.999),
            statistics.median(quantile(each.late, 0.99) for each in rounds) * 1000,
            sum(each.errors for each in rounds),
            sum(each.unanswered for each in rounds),
            sum(each.sent for each in rounds),
        )


def verdict(row: Any) -> str:
    """Return whether the server kept up, in words.

    Args:
        row: as a file has it.
    """
    if row["reached"]:
        return "reached"
    words = [f"NOT REACHED: {row['rate']:,.0f} answers a second"]
    words += [f"{row[name]:,} {name}" for name in ("errors", "unanswered") if row[name]]
    return ", ".join(words)


def lines(rows: Sequence[Any]) -> list[str]:
    """Return a table for a terminal.

    Args:
        rows: as a file has them.
    """
    if not rows:
        return []
    head = f"{'W1 at a fixed rate':<40} {'a second':>9} {'us CPU':>9} {'p50 ms':>9} {'p99 ms':>9} {'p99.9':>9} "
    head += f"{'late p99':>9}"
    found = ["", head, "-" * len(head)]
    for row in rows:
        figures = "".join(f" {row[name]:9.2f}" for name in ("p50", "p99", "p999", "late"))
        found.append(f"{row['server']:<40} {row['offered']:9} {row['cpu']:9.0f}{figures}  {verdict(row)}")
    return found
