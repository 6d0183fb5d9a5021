"""On which line of a TOML file a key stands, so that an error can point at it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

_TABLE = re.compile(r"\s*\[(\[)?(.+?)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")


def line_of(source: str, path: Sequence[str | int]) -> int | None:
    """The line, counted from 1, of the key at `path`, or of the nearest table around it; None where there is none.

    ``("upstreams", 1, "name")`` is the key ``name`` of the second ``[[upstreams]]``.
    """
    counts: dict[tuple[str, ...], int] = {}
    table: tuple[str | int, ...] = ()
    best: tuple[int, int] | None = None
    for number, text in enumerate(source.splitlines(), start=1):
        if found := _TABLE.fullmatch(text):
            names = _names(found[2])
            if found[1]:
                counts[names] = counts.get(names, -1) + 1
            table = _indexed(names, counts)
            here: tuple[str | int, ...] = table
        elif found := _KEY.match(text):
            here = (*table, *_names(found[1]))
        else:
            continue
        if tuple(path[: len(here)]) == here and (best is None or len(here) > best[0]):
            best = (len(here), number)
    return best[1] if best else None


def _names(dotted: str) -> tuple[str, ...]:
    """``a."b.c"`` as its parts, by the real parser."""
    try:
        node: Any = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    parts: list[str] = []
    while isinstance(node, dict):
        name, node = next(iter(node.items()))
        parts.append(name)
    return tuple(parts)


def _indexed(names: tuple[str, ...], counts: dict[tuple[str, ...], int]) -> tuple[str | int, ...]:
    """The table's path with the index of each array of tables on the way."""
    path: list[str | int] = []
    for end in range(1, len(names) + 1):
        path.append(names[end - 1])
        if names[:end] in counts:
            path.append(counts[names[:end]])
    return tuple(path)
