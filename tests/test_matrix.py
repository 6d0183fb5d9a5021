"""One request, any provider: the page is what the gateway does, and it does nothing in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.matrix.accounts import ACCOUNTS
from tests.matrix.asked import PLAIN, PLAIN_EDIT, PLAIN_MASK, REQUESTS, plain_request
from tests.matrix.disclosure import undisclosed, unlike_header
from tests.matrix.explained import Cell, Matrix, explain, explain_all, plain
from tests.matrix.page import page

from imagegate.registry import installed, load_adapter
from imagegate.testing.outbound import contracts_of

PAGE = Path(__file__).parent.parent / "docs" / "providers" / "matrix.md"


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return asyncio.run(explain_all(tmp_path_factory.mktemp("matrix")))


def test_every_adapter_and_thirty_requests() -> None:
    """None is left out."""
    assert set(ACCOUNTS) == set(installed())
    assert len(REQUESTS) == len({asked.title for asked in REQUESTS}) == 30


def test_the_page_is_what_the_gateway_says(matrix: Matrix) -> None:
    """`make pages` makes it."""
    assert PAGE.read_text("utf-8") == page(matrix)


def test_no_cell_is_unknown(matrix: Matrix) -> None:
    """A request goes out, or is an error that names the member."""
    for cell in matrix.values():
        assert cell.status == 200 or (cell.status == 400 and cell.error["param"] and cell.error["message"]), cell


def test_the_header_lists_what_the_explanation_lists(matrix: Matrix) -> None:
    """What the page says of a cell is what a client is told."""
    assert [cell for cell in matrix.values() if not cell.is_refused and unlike_header(cell)] == []


@pytest.mark.parametrize("name", ACCOUNTS)
def test_nothing_changes_in_silence(matrix: Matrix, name: str) -> None:
    """Everything that is asked for goes out or is disclosed, and so is everything that goes out unasked."""
    cells = [cell for cell in matrix.values() if cell.adapter == name and not cell.is_refused]
    found = [f"{cell.asked.title}: {each}" for cell in cells for each in undisclosed(cell, plain(matrix, cell))]
    assert found == []


BRIEFLY = ("1920x1080", "16:9", "jpeg, `output_compression` 80", "`n` 4, `seed` 42", "`quality` hd, `style` vivid")


def test_no_model_changes_anything_in_silence(tmp_path: Path) -> None:
    """Those that the page leaves out neither."""
    requests = [PLAIN, *(asked for asked in REQUESTS if asked.title in BRIEFLY), PLAIN_EDIT, PLAIN_MASK]
    wanted = [
        (name, model.replace("*", "x"), asked)
        for name in ACCOUNTS
        for model, contract in contracts_of(load_adapter(name)).items()
        if not contract.retired
        for asked in requests
    ]
    cells = {(each.adapter, each.model, each.asked.title): each for each in asyncio.run(explain(tmp_path, wanted))}
    assert {cell.status for cell in cells.values()} == {200, 400}
    found = [
        f"{cell.adapter}/{cell.model}, {cell.asked.title}: {each}"
        for cell in cells.values()
        if not cell.is_refused
        for each in undisclosed(cell, cells[cell.adapter, cell.model, plain_request(cell.asked).title])
    ]
    assert found == []


def _with(cell: Cell, *, header: bool = True, **body: Any) -> Cell:
    document: Mapping[str, Any] = {**cell.document, "body": {**cell.document["body"], **body}}
    return cell._replace(document=document if header else {**document, "changes": []})


def test_silence_would_be_found(matrix: Matrix) -> None:
    """The comparison itself: a value changed, one added, one lost, a file lost, a change that is not told."""
    size, link = matrix["openai", "1536x1024"], matrix["bfl", "a link"]
    base = plain(matrix, size)
    assert undisclosed(size, base) == []
    changed = undisclosed(_with(size, size="1024x1024"), base)
    assert changed == ["size '1536x1024' does not go out", "size '1024x1024' is not asked for"]
    assert undisclosed(_with(size, watermark=True), base) == ["watermark 'true' is not asked for"]
    assert undisclosed(_with(size, prompt="Another"), base)[0] == "the prompt does not go out"
    assert undisclosed(_with(link, input_image=None), plain(matrix, link)) == ["1 references do not go out in order"]
    files = matrix["gemini", "3 files, `input_fidelity` high"]
    first, *rest = files.document["body"]["contents"][0]["parts"]
    for parts in (rest, [*rest[:1], first, *rest[1:]]):
        lost = _with(files, contents=[{"role": "user", "parts": parts}])
        assert undisclosed(lost, plain(matrix, files)) == ["3 references do not go out in order"]
    mapped = matrix["gemini", "1536x1024"]
    assert len(undisclosed(_with(mapped, header=False), plain(matrix, mapped))) == 3
    assert unlike_header(mapped._replace(header=""))
