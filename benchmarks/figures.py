"""What the picture shows of a run's figures, and the marks between which text is kept; no drawing here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

NAMES: Final = {
    "imagegate alone": "imagegate alone",
    "imagegate mounted": "imagegate mounted",
    "floor aiohttp": "pass-through, aiohttp",
    "floor httpx": "pass-through, httpx",
    "nginx": "nginx",
    "portkey": "Portkey",
    "litellm": "LiteLLM",
}
"""Those that are drawn, as they are called there, in this order."""


@dataclass(frozen=True)
class Bar:
    server: str
    value: float

    @property
    def label(self) -> str:
        return f"{self.value:,.{0 if self.value >= 10 else 1 if self.value >= 1 else 2}f}"

    @property
    def kind(self) -> str:
        """``own``, ``floor`` or ``other``."""
        return "own" if self.server.startswith("imagegate") else "floor" if "pass-through" in self.server else "other"


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    bars: tuple[Bar, ...]


ASKED: Final = (
    ("Small generation", "CPU ms a request", "W1", 16, "cpu", 1000),
    ("Reply of 4 × 4 MiB", "CPU ms a request", "W2", 4, "cpu", 1000),
    ("Edit with 3 × 4 MiB", "CPU ms a request", "W3", 4, "cpu", 1000),
    ("500 at once to a provider of 2 s", "seconds, median", "W4", 500, "p50", 1000),
    ("Reply of 4 × 4 MiB", "MiB of memory at the peak", "W2", 4, "peak", 1),
    ("Edit with 3 × 4 MiB", "MiB of memory at the peak", "W3", 4, "peak", 1),
)


def panels(result: Mapping[str, Any]) -> list[Panel]:
    """One for each question that somebody answered.

    Args:
        result: as ``run.py --json`` writes it.
    """
    found: list[Panel] = []
    for title, unit, workload, connections, figure, scale in ASKED:
        values = {
            row["server"]: row[figure] / scale
            for row in result["rows"]
            if (row["workload"], row["connections"]) == (workload, connections)
        }
        bars = tuple(Bar(name, values[server]) for server, name in NAMES.items() if server in values)
        if bars:
            found.append(Panel(title, unit, bars))
    return found


def summary(result: Mapping[str, Any]) -> str:
    """One sentence for those who do not read on."""
    for panel in panels(result)[:1]:
        told = ", ".join(f"{bar.server} {bar.label}" for bar in panel.bars)
        return f"{panel.title}, {panel.unit}: {told}"
    return ""


PROSE: Final = ("<!-- what is not reached, and why: kept -->", "<!-- end -->")
BLOCK: Final = ("<!-- figures -->", "<!-- end of figures -->")


def between(text: str, marks: tuple[str, str]) -> str | None:
    """Return what is between two marks; None: they are not there."""
    _, first, rest = text.partition(marks[0])
    inner, last, _ = rest.partition(marks[1])
    return inner if first and last else None


def put_between(text: str, marks: tuple[str, str], inner: str) -> str:
    """Replace what is between two marks.

    Raises:
        ValueError: the marks are not there.
    """
    old = between(text, marks)
    if old is None:
        raise ValueError(f"there is no {marks[0]} with a {marks[1]} behind it")
    return text.replace(f"{marks[0]}{old}{marks[1]}", f"{marks[0]}\n{inner}\n{marks[1]}")


def untold(result: Mapping[str, Any], prose: str) -> list[str]:
    """Goals that were not reached, and of which the prose does not speak by name."""
    return [
        name
        for name in dict.fromkeys(each["name"] for each in result["goals"] if each["verdict"] != "reached")
        if name not in prose
    ]
