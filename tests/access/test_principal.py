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


def test_lists_are_taken_and_single_texts_are_not() -> None:
    """A text would be read as its characters, each of them a pattern."""
    assert Principal(id="u", models=["gpt-*"]).models == ("gpt-*",)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="models must be a tuple"):
        Principal(id="u", models="gpt-*")  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["", "sk-a b", "sk-ä", "sk-a\n"])
def test_keys_for_upstreams_are_keys(key: str) -> None:
    """What no header field may have would count as a failure of the provider."""
    with pytest.raises(ValueError, match="the key for the upstream 'openai'"):
        Principal(id="u", upstream_keys={"openai": key})


def test_metadata_is_bounded() -> None:
    metadata = Principal(id="u", metadata={f"{n:03}" * 30: "v" * 300 for n in range(20)}).metadata
    assert len(metadata) == 16
    assert {(len(name), len(value)) for name, value in metadata.items()} == {(64, 256)}
