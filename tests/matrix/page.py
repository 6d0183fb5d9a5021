"""The page of the matrix: for each request and adapter, what becomes of it. ``python -m tests.matrix.page FILE``."""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.matrix.accounts import ACCOUNTS
from tests.matrix.asked import GROUPS, PLAIN, PLAIN_EDIT, PLAIN_MASK, Asked
from tests.matrix.disclosure import always_sent
from tests.matrix.explained import Cell, Matrix, explain_all

_INTRODUCTION: Final = """\
# One request, any provider

What becomes of {requests} typical requests at each adapter: the explanation that the gateway itself gives
(`Imagegate-Explain: ?1`), written down by `make pages` and compared with the code by a test, which also looks for
anything that goes out otherwise than asked and is not disclosed. A provider has other models too; its page has what
each of them takes.

- **as asked**: every member goes out with the value that the client wrote, under whatever name the provider has for it.
- Otherwise the cell says what the provider gets instead, as `Imagegate-Changes` tells the client: *`size` → 1:1, 1K*;
  *no `seed`*: left out; *+ `watermark` false*: sent though nothing asked for it.
- **refused**: a 400 that names the member, before anything is sent.

The gateway itself does three things that a provider does not, so that the client gets them all the same:
`response_format` (links from its store, or base64), `stream` (an event for each finished image), and `n`, which becomes
several requests: *`n` → 1+1+1+1*. `policy.exact_format` makes `output_format` true where the provider has another.
Explaining fetches no link, so that what depends on the image there, such as a size, is not in its column.
"""
_MODEL: Final = re.compile(r"^The model '[^']+' ")
_ALWAYS: Final = """\
## Sent beside what is asked for

Constants of a provider's own protocol, in every such request. They choose nothing that a client could ask for, but for
the form in which images come back to the gateway.
"""


def page(matrix: Matrix) -> str:
    """Return the page, as Markdown."""
    blocks = [_INTRODUCTION.format(requests=sum(map(len, GROUPS.values()))).rstrip(), _models()]
    for title, requests in GROUPS.items():
        blocks += [f"## {title}", _table(("adapter", *(asked.title for asked in requests)), _rows(matrix, requests))]
    blocks += [_ALWAYS.rstrip(), _table(("adapter", "generations", "edits", "edits with a mask"), _constants(matrix))]
    return "\n\n".join(blocks) + "\n"


def _models() -> str:
    rows = [
        (f"[{name}]({name}.md)", f"`{each.generations}`", f"`{each.of('edits')}`") for name, each in ACCOUNTS.items()
    ]
    return "## Models\n\n" + _table(("adapter", "generations", "edits"), rows)


def _rows(matrix: Matrix, requests: Sequence[Asked]) -> Iterator[Sequence[str]]:
    for name in ACCOUNTS:
        yield (name, *(_said(matrix[name, asked.title]) for asked in requests))


def _constants(matrix: Matrix) -> Iterator[Sequence[str]]:
    for name, models in ACCOUNTS.items():
        if models.options.get("workflow"):
            yield name, "the workflow", "the workflow", "the workflow"
            continue
        cells = [matrix[name, asked.title] for asked in (PLAIN, PLAIN_EDIT, PLAIN_MASK)]
        sent = [[] if cell.is_refused else always_sent(cell) for cell in cells]
        if any(sent):
            yield name, *(", ".join(f"`{each}`" for each in listed) for listed in sent)


def _said(cell: Cell) -> str:
    if cell.is_refused:
        reason = cell.error["message"].partition(". ")[0].rstrip(".").removeprefix("This model ")
        return f"**refused**: {_MODEL.sub('', reason)}"
    return "; ".join(map(_changed, _joined(cell.changes))) or "as asked"


def _joined(changes: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the changes, one for a member that has another name and another value there."""
    names = {change["to"]: change["field"] for change in changes if change["kind"] == "renamed"}
    mapped = {change["field"] for change in changes if change["kind"] != "renamed"}
    for change in changes:
        if change["kind"] == "renamed":
            if change["to"] not in mapped:
                yield change
        elif change["field"] in names and change["kind"] != "dropped":
            yield {**change, "field": names[change["field"]], "to": f"{change['field']} {_text(change['to'])}"}
        else:
            yield change


def _changed(change: Mapping[str, Any]) -> str:
    name, to = f"`{change['field']}`", change.get("to")
    if change["kind"] == "dropped":
        return f"no {name}"
    if change["kind"] == "added":
        return f"+ {name} {_text(to)}"
    if change["kind"] == "renamed":
        return f"{name} as `{to}`"
    return f"{name} → {_text(to)}"


def _text(value: Any) -> str:
    """Return a value as it stands in a cell: ``16:9, 1K`` for ``aspect_ratio=16:9,resolution=1K``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    return ", ".join(word.partition("=")[2] or word for word in value.split(","))


def _table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main(file: str) -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as folder:
        Path(file).write_text(page(asyncio.run(explain_all(Path(folder)))), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
