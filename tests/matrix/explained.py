"""What the gateway makes of each request for each adapter, by its own explanation: nothing is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
from tests.matrix.accounts import ACCOUNTS, config_of_all
from tests.matrix.asked import PLAIN, PLAIN_EDIT, PLAIN_MASK, PROMPT, REQUESTS, Asked

from imagegate import ImageGateway

_EXPLAIN: Final = {"imagegate-explain": "?1"}


class Cell(NamedTuple):
    """A request to an adapter, and what the gateway says about it."""

    adapter: str
    asked: Asked
    status: int
    header: str
    """``Imagegate-Changes``; empty: there is none."""
    document: Mapping[str, Any]
    """The explanation, or the error."""

    @property
    def is_refused(self) -> bool:
        return 400 <= self.status < 500

    @property
    def changes(self) -> Sequence[Mapping[str, Any]]:
        return self.document.get("changes") or ()

    @property
    def error(self) -> Mapping[str, Any]:
        return self.document["error"]


Matrix = Mapping[tuple[str, str], Cell]
"""By adapter and title of the request."""


async def explain_all(folder: Path) -> Matrix:
    """Return every cell; `folder` is for the files of the configuration."""
    gateway = ImageGateway(config=config_of_all(folder), hooks=())
    client = httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://gateway.test/v1/images/")
    async with gateway, client:
        cells = [await _explain(client, name, asked) for name in ACCOUNTS for asked in REQUESTS]
    return {(cell.adapter, cell.asked.title): cell for cell in cells}


def plain(matrix: Matrix, cell: Cell) -> Cell:
    """Return the cell of the same adapter whose request asks for nothing beside what every such request has."""
    own = PLAIN if cell.asked.operation == "generations" else PLAIN_MASK if cell.asked.has_mask else PLAIN_EDIT
    return matrix[cell.adapter, own.title]


async def _explain(client: httpx.AsyncClient, adapter: str, asked: Asked) -> Cell:
    model = f"{adapter}/{ACCOUNTS[adapter].of(asked.operation)}"
    fields = {"model": model, "prompt": PROMPT, **asked.fields}
    if asked.files:
        files = [(file.part, (file.name, file.content, "image/png")) for file in asked.files]
        answer = await client.post(asked.operation, data=fields, files=files, headers=_EXPLAIN)
    else:
        answer = await client.post(asked.operation, json=fields, headers=_EXPLAIN)
    return Cell(adapter, asked, answer.status_code, answer.headers.get("imagegate-changes", ""), answer.json())
