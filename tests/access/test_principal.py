"""What a principal refuses to be, and what it never shows."""

from __future__ import annotations

import pytest

from imagegate import Limits, Principal


def test_the_name_is_the_id_where_there_is_none() -> None:
    assert Principal(id="u-1").name == "u-1"
    assert Principal(id="u-1", name="Ada").name == "Ada"


def test_an_empty_id_would_be_everybody() -> None:
    with pytest.raises(ValueError, match="id"):
        Principal(id="")


@pytest.mark.parametrize("value", [-1, -0.01, float("nan")])
def test_limits_are_amounts(value: float) -> None:
    with pytest.raises(ValueError, match="spend_per_day must be 0 or more"):
        Limits(spend_per_day=value)


def test_keys_are_not_shown() -> None:
    principal = Principal(id="u-1", upstream_keys={"openai": "sk-secret"}, metadata={"plan": "gold"})
    assert "secret" not in f"{principal} {principal!r} {[principal]}"
