"""What the gateway makes of each request for each adapter, by its own explanation: nothing is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
from tests.matrix.accounts import ACCOUNTS, config_of_all
from tests.matrix.asked import PROMPT, REQUESTS, Asked, plain_request

from imagegate import ImageGateway

_EXPLAIN: Final = {"imagegate-explain": "?1"}


class Cell(NamedTuple):
    """A request to an adapter, and what the gateway says about it."""

    adapter: str
    model: str
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
    """Return every cell of the page; `folder` is for the files of the configuration."""
    wanted = [(name, models.of(asked.operation), asked) for name, models in ACCOUNTS.items() for asked in REQUESTS]
    return {(cell.adapter, cell.asked.title): cell for cell in await explain(folder, wanted)}


async def explain(folder: Path, wanted: Iterable[tuple[str, str, Asked]]) -> list[Cell]:
    """Return a cell for each adapter, model of it, and request."""
    gateway = ImageGateway(config=config_of_all(folder), hooks=())
    client = httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://gateway.test/v1/images/")
    async with gateway, client:
        return [await _explain(client, *each) for each in wanted]


def plain(matrix: Matrix, cell: Cell) -> Cell:
    """Return the cell of the same adapter whose request asks for nothing beside what every such request has."""
    return matrix[cell.adapter, plain_request(cell.asked).title]


async def _explain(client: httpx.AsyncClient, adapter: str, model: str, asked: Asked) -> Cell:
    fields = {"model": f"{adapter}/{model}", "prompt": PROMPT, **asked.fields}
    if asked.files:
        files = [(file.part, (file.name, file.content, "image/png")) for file in asked.files]
        answer = await client.post(asked.operation, data=fields, files=files, headers=_EXPLAIN)
    else:
        answer = await client.post(asked.operation, json=fields, headers=_EXPLAIN)
    header = answer.headers.get("imagegate-changes", "")
    return Cell(adapter, model, asked, answer.status_code, header, answer.json())
