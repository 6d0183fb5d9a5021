"""The page of figures, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from about import told
from figures import NAMES, PROSE, summary
from goals import ALONE, FLOOR, MOUNTED
from rates import verdict

PIVOT: Final = (FLOOR, ALONE, MOUNTED, "floor httpx", "nginx", "portkey", "litellm")
"""Columns, in order."""


def page(result: Mapping[str, Any], prose: str, changes: str) -> str:
    """
    Args:
        result: as ``run.py --json`` writes it.
        prose: what people wrote about it, which stays.
        changes: what is different from the last figures, and why (`CHANGES.md`).
    """
    text = f"""\
# Figures

{told(result)}.

[README.md](README.md) tells the method and what the workloads are; `figures.json` has each round.
{_pinning(result)}

![{summary(result)}](figures.svg)

## What changed

{changes.strip()}

## Goals

| every layer on, in one run | alone | mounted | goal | |
|---|---:|---:|---:|---|
"""
    for name, group in groupby(result["goals"], lambda goal: goal["name"]):
        text += _goal(name, list(group))
    text += f"""
{PROSE[0]}
{prose.strip()}
{PROSE[1]}

## CPU of a request

Microseconds, of the whole process tree; behind it how many times the aiohttp floor of the same rounds.

"""
    text += _pivot(result["rows"])
    text += _rates(result.get("rates", []))
    text += """
## All figures

Closed loops: each connection asks again when it has its answer. CPU is that of a request, of the whole process tree;
latencies in ms; memory in MiB at the peak, and above that before.

| workload, connections | server | CPU µs | x floor | req/s | p50 | p99 | peak | above |
|---|---|---:|---:|---:|---:|---:|---:|---:|
"""
    for row in result["rows"]:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        cells = [f"{row['workload']} {row['title']}, {row['connections']}", row["server"], f"{row['cpu']:,.0f}", ratio]
        cells += [f"{row[name]:,.1f}" for name in ("rate", "p50", "p99")]
        cells += [f"{row[name]:.0f}" for name in ("peak", "grown")]
        text += _line(cells)
    notes = [*result["notes"], *(f"FAILED {each}" for each in result["failures"])]
    return text + "\n" + "".join(f"- {each}\n" for each in notes)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _pinning(result: Mapping[str, Any]) -> str:
    places = result.get("cores", {})
    return "".join(f"\nCores, {workers}: {told}." for workers, told in places.items())


def _goal(name: str, group: Sequence[Mapping[str, Any]]) -> str:
    measured = {goal["of"]: goal["measured"] for goal in group}
    beside = f" ({group[0]['beside']})" if group[0]["beside"] else ""
    missed = [goal for goal in group if goal["verdict"] != "reached"]
    which = " and ".join(goal["of"] for goal in missed) if len(missed) < len(group) else ""
    said = f"**not reached{f' {which}' if which else ''}**" if missed else "reached"
    columns = [measured.get("alone", ""), measured.get("mounted", "")]
    return _line([f"{name}{beside}", *columns, group[0]["wanted"], said])


def _pivot(rows: Sequence[Mapping[str, Any]]) -> str:
    """Workloads by servers."""
    servers = [server for server in PIVOT if any(row["server"] == server for row in rows)]
    text = _line(["workload, connections", *(NAMES[server] for server in servers)])
    text += _line(["---", *("---:" for _ in servers)]).replace(" ", "")
    names = dict.fromkeys((row["workload"], row["title"], row["connections"]) for row in rows)
    for workload, title, connections in names:
        cells = []
        for server in servers:
            found = [
                row
                for row in rows
                if (row["workload"], row["connections"], row["server"]) == (workload, connections, server)
            ]
            ratio = f" ({found[0]['ratio']:.2f})" if found and found[0]["ratio"] is not None else ""
            cells.append(f"{found[0]['cpu']:,.0f}{ratio}" if found else "")
        if any(cells):
            text += _line([f"{workload} {title}, {connections}", *cells])
    return text


def _rates(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what was offered at fixed rates."""
    if not rows:
        return ""
    text = """
## Fixed rates

Small generations (W1), sent at times that were fixed beforehand, whatever the answers do. A latency, in ms, is counted
from the time at which a request was to be sent, so that a server that keeps others waiting is charged with it for each
of them. What has no answer five seconds after the last request counts with the time that it has waited. `late` is by
how much 1 % of the requests were sent after their time, which is the generator's own part. Where a rate was not
reached, the table says so: latencies then say how long the queue was, and a higher rate was not offered.

| server | offered a second | | CPU µs | p50 | p99 | p99.9 | late |
|---|---:|---|---:|---:|---:|---:|---:|
"""
    for row in rows:
        said = verdict(row)
        cells = [row["server"], f"{row['offered']:,}", said if row["reached"] else f"**{said}**", f"{row['cpu']:,.0f}"]
        cells += [f"{row[name]:,.2f}" for name in ("p50", "p99", "p999", "late")]
        text += _line(cells)
    return text
