"""``imagegate keys``: what it prints, for people and programs, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from imagegate.cli.commands import main

CONFIG = """
[[upstreams]]
name = "openai"
api_key = "k"

[access]
keys = ["sk-operator"]
names = ["operator"]
store = "sqlite:///data/keys.db"

[access.groups.team]
in_flight = 3
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "imagegate.toml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("IMAGEGATE_CONFIG", "")  # the command sets it, and this takes it back

    def run(*words: str, code: int = 0) -> str:
        action, *more = words
        assert main(["keys", action, "--config", str(config), *more]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return run


def test_a_key_is_shown_once(run: Any, config: Path) -> None:
    key = run("create", "alice").strip()
    assert re.fullmatch(r"sk-ig-[\w-]{43}", key)
    listed = run("list")
    assert key[:12] in listed
    assert key not in listed
    assert (config.parent / "data" / "keys.db").exists()  # relative to the configuration


def test_for_programs(run: Any) -> None:
    made = json.loads(
        run(
            "create",
            "alice",
            "--json",
            "--models",
            "gpt-*, dall-e-3",
            "--groups",
            "team",
            "--limit",
            "images_per_day=5",
            "--metadata",
            "team=design",
            "--expires",
            "30d",
        )
    )
    assert (made["models"], made["groups"], made["limits"]) == (["gpt-*", "dall-e-3"], ["team"], {"images_per_day": 5})
    assert made["metadata"] == {"team": "design"}
    assert made["expires"] - made["created"] == 30 * 86400
    (listed,) = json.loads(run("list", "--json"))
    assert listed == {name: value for name, value in made.items() if name != "key"}
    rotated = json.loads(run("rotate", "alice", "--keep", "1h", "--json"))
    assert (rotated["id"], rotated["key"] != made["key"]) == (made["id"], True)
    assert json.loads(run("revoke", made["id"], "--json"))["state"] == "revoked"
    assert json.loads(run("list", "--json")) == []
    assert [key["name"] for key in json.loads(run("list", "--all", "--json"))] == ["alice"]


def test_limits_change_what_is_named_and_nothing_else(run: Any) -> None:
    run("create", "alice", "--models", "gpt-*", "--limit", "images_per_day=5", "--limit", "spend_per_month=1.5")
    assert "images_per_day=5, spend_per_month=1.5" in run("limits", "alice")
    changed = json.loads(run("limits", "alice", "--json", "--limit", "images_per_day=none", "--sizes", "1024x1024"))
    assert (changed["models"], changed["sizes"], changed["limits"]) == (
        ["gpt-*"],
        ["1024x1024"],
        {"spend_per_month": 1.5},
    )
    changed = json.loads(run("limits", "alice", "--json", "--limit", "none", "--models", "none", "--sizes", ""))
    assert (changed["models"], changed["sizes"], changed["limits"]) == ([], [], {})
    assert "models      any" in run("limits", "alice")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "a b"), "is no name"),
        (("create", "operator"), "in the configuration"),
        (("create", "alice", "--groups", "crew"), "access.groups of the configuration has: team"),
        (("create", "alice", "--operations", "paint"), "operations"),
        (("create", "alice", "--limit", "images=5"), "must be one of: requests_per_minute"),
        (("create", "alice", "--limit", "images_per_day=many"), "is no number"),
        (("create", "alice", "--limit", "images_per_day=-1"), "0 or more"),
        (("create", "alice", "--limit", "images_per_day"), "NAME=VALUE"),
        (("revoke", "bob"), "There is no key called 'bob'"),
        (("rotate", "bob"), "There is no key called 'bob'"),
        (("limits", "bob"), "There is no key called 'bob'"),
    ],
)
def test_mistakes(run: Any, words: tuple[str, ...], said: str) -> None:
    assert said in run(*words, code=1)
    assert json.loads(run("list", "--json")) == []


def test_without_a_database(run: Any, config: Path) -> None:
    config.write_text(CONFIG.replace("store =", "# store ="))
    assert "names no database for keys" in run("list", code=1)
    config.write_text(CONFIG.replace("sqlite:///data/keys.db", f"sqlite:///{config}/keys.db"))
    assert "access.store: cannot be used" in run("list", code=1)


def test_times_are_checked(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("create", "alice", "--expires", "tomorrow")
    assert "is no time" in capsys.readouterr().err


@pytest.mark.parametrize("access", ['store = "sqlite:///data/keys.db"', 'callable = "os:getcwd"'])
def test_whoever_has_the_file_needs_no_key(
    config: Path, access: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands of the operator's own are no client's requests."""
    monkeypatch.setenv("IMAGEGATE_CONFIG", "")
    config.write_text(f'[[upstreams]]\nname = "openai"\napi_key = "k"\n[access]\n{access}\n')
    assert main(["explain", "--config", str(config), '{"model": "gpt-image-2", "prompt": "A cat"}']) == 0
    assert json.loads(capsys.readouterr().out)["upstream"] == "openai"
