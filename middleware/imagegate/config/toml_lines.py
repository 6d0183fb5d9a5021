"""Find the line of a TOML file on which a key is, so that an error can point at it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

_TABLE = re.compile(r"\s*\[(\[)?(.+?)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")


def line_of(source: str, path: Sequence[str | int]) -> int | None:
    """Return the line, counted from 1, of the key at `path`, or of the nearest table around it; None: there is none.

    ``("upstreams", 1, "name")`` is the key ``name`` of the second ``[[upstreams]]``; ``("routes", "m", 1)`` is the
    second item of a list, which may stand on a line of its own.
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
    if best is None:
        return None
    length, number = best
    index = path[length] if len(path) > length else None
    return number + _lines_to_item(source.splitlines()[number - 1 :], index) if isinstance(index, int) else number


_MARK = re.compile(r"""\"(?:\\.|[^"\\])*"|'[^']*'|\#.*|[\[\]{},]|[^\s\[\]{},"'\#]+""")


def _lines_to_item(lines: Sequence[str], index: int) -> int:
    """Return how many lines below a list's key its item begins; 0 where that is not found."""
    depth, items, is_new = 0, -1, False
    for below, text in enumerate(lines):
        for mark in _MARK.findall(text.partition("=")[2] if below == 0 else text):
            if mark.startswith("#"):
                break
            if depth == 1 and is_new and mark != "]":
                items, is_new = items + 1, False
                if items == index:
                    return below
            if mark in "[{":
                depth += 1
                is_new = is_new or depth == 1
            elif mark in "]}":
                depth -= 1
                if depth == 0:
                    return 0
            elif mark == "," and depth == 1:
                is_new = True
    return 0


def _names(dotted: str) -> tuple[str, ...]:
    """Return ``a."b.c"`` as its parts, by the real parser."""
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
    """Return the table's path with the index of each array of tables on the way."""
    path: list[str | int] = []
    for end in range(1, len(names) + 1):
        path.append(names[end - 1])
        if names[:end] in counts:
            path.append(counts[names[:end]])
    return tuple(path)
