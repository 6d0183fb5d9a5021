"""The pages of the reference that are made from the code are as `make pages` makes them now."""

from __future__ import annotations

import re
import runpy
import typing
from pathlib import Path
from typing import Any

import pytest

from imagegate.config.schema import Config

ROOT = Path(__file__).parent.parent
MADE: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / ".site" / "reference.py"))
PAGES = ROOT / "docs" / "reference"


def words(text: str) -> str:
    """Text without its line breaks, which argparse sets differently from one Python to the next."""
    return " ".join(text.split())


@pytest.mark.parametrize("page", MADE["PAGES"])
def test_page_is_as_made(page: str) -> None:
    """Whoever changes a setting, an error code, a metric or a command runs `make pages`."""
    assert words(MADE["PAGES"][page]()) == words((PAGES / page).read_text("utf-8"))


def test_every_key_has_a_meaning() -> None:
    """No key of the configuration is without a docstring, but for tables, which have one of their own."""
    rows = [line for line in MADE["settings"]().splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_table_is_shown() -> None:
    """The tables of the page are those of the structs, and each heading is one that links to it find."""
    page = MADE["settings"]()
    for name in typing.get_type_hints(Config):
        assert re.search(rf"^## \[+{name}[.\]]", page, re.MULTILINE) or name == "prefix", name
    anchors = {MADE["_anchor"](heading) for heading in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\(#([\w-]+)\)", page)) <= anchors


def test_error_codes_have_meanings() -> None:
    """Each code of the source has an entry, and no entry is of a code that is gone."""
    codes = {each.code for each in MADE["raised"]()}
    assert len(codes) > 70
    assert codes == set(MADE["meanings"]())


def test_error_codes_are_found_wherever_they_stand() -> None:
    """A plain search of the source finds no code that the page does not have."""
    folders = (ROOT / "middleware" / "imagegate", ROOT / "adapters" / "imagegate_adapters")
    source = "\n".join(
        file.read_text("utf-8")
        for folder in folders
        for file in folder.rglob("*.py")
        if {"demo", "testing"}.isdisjoint(file.parts)
    )
    found = set(re.findall(r'\bcode(?:: [\w |]+)? ?= ?"([a-z_]+)"', source))
    assert len(found) > 60
    assert found <= set(MADE["meanings"]())


def test_headers_are_on_the_page() -> None:
    """Every header of the gateway's own that the source names is described."""
    page = (PAGES / "http-api.md").read_text("utf-8").lower()
    source = "\n".join(file.read_text("utf-8") for file in (ROOT / "middleware" / "imagegate").rglob("*.py"))
    names = set(
        re.findall(r'b"((?:imagegate|idempotency)-[a-z-]+|x-should-retry|x-request-id|x-accel-buffering)"', source)
    )
    assert {"imagegate-changes", "imagegate-explain", "idempotency-replayed"} <= names
    assert [name for name in names if name not in page] == []
    kinds = [
        f"x-ratelimit-{word}-{kind}" for word in ("limit", "remaining", "reset") for kind in ("requests", "images")
    ]
    assert [name for name in kinds if name not in page] == []


def test_python_api_is_complete() -> None:
    """Every public name of the package is on its page."""
    import imagegate

    page = (PAGES / "python-api.md").read_text("utf-8")
    missing = [
        name for name in imagegate.__all__ if not re.search(rf"imagegate\.{name}$|`{name}\(", page, re.MULTILINE)
    ]
    assert missing == []
