"""The pages about providers are what their contracts say."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from imagegate.cli import main
from imagegate.cli.provider_page import provider_page
from imagegate.config.price_table import find_by_pattern
from imagegate.contract import load_contracts
from imagegate.registry import installed, load_adapter

PAGES = Path(__file__).parent.parent / "docs" / "providers"
NAMES = list(installed())


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_what_its_contracts_say(name: str) -> None:
    """`make pages` makes it."""
    assert (PAGES / f"{name}.md").read_text("utf-8") == provider_page(load_adapter(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_every_model_and_member(name: str) -> None:
    """Nothing of a contract is left out."""
    page = provider_page(load_adapter(name))
    for model, contract in load_contracts(load_adapter(name).contracts()).items():
        assert ("any model" if model == "*" else f"`{model}`") in page
        for own in (contract, contract.edits):
            for member in own.parameters if own else ():
                assert f"| `{member}`" in page
        if contract.retired:
            assert f"| `{model}` | {contract.retired.since} | `{contract.retired.successor}` |" in page


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_where_prices_are_from(name: str) -> None:
    """An adapter ships prices, each with a source, or says why it does not; never both."""
    adapter = load_adapter(name)
    provider, prices = adapter.contracts().provider, adapter.prices()
    assert provider is not None
    assert bool(prices.models) != bool(provider.no_prices)
    page = provider_page(adapter).partition("## Prices")[2].partition("\n## ")[0]
    assert provider.no_prices in page
    for model, price in prices.models.items():
        assert f"`{model}`" in page
        assert f"<{price.source or prices.source}>" in page
    for model, reason in prices.unpriced.items():
        assert f"- `{model}`: {reason}" in page


@pytest.mark.parametrize("name", NAMES)
def test_every_model_has_a_price_or_a_reason(name: str) -> None:
    """None is silently unknown; and no price, or reason, is of a model that is in no contract."""
    adapter = load_adapter(name)
    contracts, prices, provider = load_contracts(adapter.contracts()), adapter.prices(), adapter.contracts().provider
    assert provider is not None
    silent = [
        model
        for model in contracts
        if not (find_by_pattern(prices.models, model) or find_by_pattern(prices.unpriced, model) or provider.no_prices)
    ]
    assert silent == []
    assert all(reason.endswith(".") for reason in prices.unpriced.values())
    named = {*prices.models, *prices.unpriced}
    assert [
        one for one in named if not any(fnmatchcase(model, one) or fnmatchcase(one, model) for model in contracts)
    ] == []


def test_no_page_is_left_over() -> None:
    """Each page is about an adapter that ships."""
    assert {file.stem for file in PAGES.glob("*.md")} == {*NAMES, "index", "matrix"}


def test_the_program_prints_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a configuration; an adapter that is not installed is an error that names the nearest."""
    assert main(["models", "--adapter", "gemini"]) == 0
    assert capsys.readouterr().out == provider_page(load_adapter("gemini"))
    assert main(["models", "--adapter", "gemeni"]) == 1
    assert "Did you mean 'gemini'?" in capsys.readouterr().err
