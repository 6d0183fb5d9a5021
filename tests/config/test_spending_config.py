"""What ``[spending]`` may say, and what an operator is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from imagegate.config.loader import read_config
from imagegate.config.model_contracts import warnings_of
from imagegate.errors import ConfigError


def config(**more: Any) -> dict[str, Any]:
    return {"upstreams": [{"name": "o", "adapter": "openai", "api_key": "k"}], **more}


@pytest.mark.parametrize(
    ("spending", "told"),
    [
        ({"ledger": "mysql://a/b"}, "spending.ledger: must be"),
        ({"ledger": "sqlite:///"}, "spending.ledger: must be"),
        ({"ledger": ""}, "spending.ledger: must be"),
        ({"rates": "http://a"}, "spending.rates: must be"),
        ({"reserve": -1}, "spending.reserve: must not be negative"),
        ({"lease": 0}, "no duration"),
        ({"lease": 0.4}, "must be at least 0.5 s"),
        ({"ledgers": "x"}, "ledgers"),
    ],
)
def test_what_cannot_be_used(spending: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_config(config(spending=spending))


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagegate.config.checks.find_spec", lambda name: None)
    for address, extra in (("sqlite:///a.db", "keys"), ("postgresql://a@b/c", "postgres")):
        with pytest.raises(ConfigError, match=rf"imagegate\[{extra}\]"):
            read_config(config(spending={"ledger": address}))
    with pytest.raises(ConfigError, match=r"imagegate\[redis\]"):
        read_config(config(spending={"rates": "redis://a"}))


def test_a_budget_that_is_forgotten_is_told() -> None:
    budget = {"limits": {"spend_per_day": 1.0}}
    found = warnings_of(read_config(config(access=budget)))
    assert [warning for warning in found if warning.startswith("spending.ledger")]
    kept = warnings_of(read_config(config(access=budget, spending={"ledger": "sqlite:///a.db"})))
    assert not [warning for warning in (*kept, *warnings_of(read_config(config()))) if "spending" in warning]
