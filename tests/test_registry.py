"""Adapters by name, as installed packages announce them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from imagegate import registry
from imagegate.errors import ConfigError

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
SHIPPED = sorted(PROJECT["entry-points"][registry.GROUP])


@pytest.fixture
def announce(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Makes the installed packages announce other adapters than they do."""

    def entries(*pairs: tuple[str, str]) -> None:
        found = [EntryPoint(name, value, registry.GROUP) for name, value in pairs]
        monkeypatch.setattr(registry, "entry_points", lambda *, group: found if group == registry.GROUP else [])
        registry.installed.cache_clear()

    yield entries
    registry.installed.cache_clear()


def test_the_shipped_adapters_are_announced():
    """The adapters are found under their own names, in alphabetical order."""
    assert list(registry.installed()) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_loaded_adapter_has_the_name_that_it_was_loaded_by(name):
    """An entry point leads to the adapter of that name."""
    assert name == registry.load_adapter(name).name


def test_the_group_is_the_documented_one():
    """Third parties announce adapters in the group `imagegate.adapters`."""
    assert registry.GROUP == "imagegate.adapters"


def test_a_third_party_is_found_beside_the_shipped_ones(announce):
    """Any package may announce an adapter; its class is made without arguments."""
    announce(("zeta", "imagegate_adapters.tokenlab:TokenLab"), ("alpha", "imagegate_adapters.openai:OpenAI"))
    assert list(registry.installed()) == ["alpha", "zeta"]
    assert registry.load_adapter("zeta").base_url == "https://api.tokenlab.sh"


def test_nothing_is_imported_before_it_is_used(announce):
    """A broken adapter harms nobody who does not use it."""
    announce(("broken", "imagegate_no_such_package:Broken"), ("openai", "imagegate_adapters.openai:OpenAI"))
    assert registry.load_adapter("openai").name == "openai"
    assert "imagegate_no_such_package" not in sys.modules


def test_two_packages_with_one_name_are_an_error(announce):
    """A name means one adapter; the error says who announces it."""
    announce(("same", "first:A"), ("same", "second:B"))
    with pytest.raises(ConfigError, match=r"^Two packages announce the adapter 'same': first:A and second:B\.$"):
        registry.installed()


def test_one_adapter_announced_twice_is_none(announce):
    """The same class found twice, as in an editable install beside a wheel, is one adapter."""
    announce(("same", "first:A"), ("same", "first:A"))
    assert list(registry.installed()) == ["same"]


def test_packages_are_looked_through_once(announce, monkeypatch):
    """The scan, which reads every installed package's metadata, is remembered."""
    announce(("one", "first:A"))
    expected = registry.installed()
    monkeypatch.setattr(registry, "entry_points", lambda *, group: pytest.fail(f"scanned {group} again"))
    assert expected is registry.installed()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tokenlabs", f"There is no adapter 'tokenlabs'. Did you mean 'tokenlab'? Installed: {', '.join(SHIPPED)}."),
        ("zzz", f"There is no adapter 'zzz'. Installed: {', '.join(SHIPPED)}."),
        ("", "There is no adapter ''. Installed: "),
        ("OpenAI", "There is no adapter 'OpenAI'. "),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_what_exists(name, message):
    """The message helps with the nearest name and all others."""
    with pytest.raises(ConfigError) as caught:
        registry.load_adapter(name)
    assert str(caught.value).startswith(message)


def test_an_unknown_name_where_nothing_is_installed(announce):
    """An empty list is said to be one."""
    announce()
    with pytest.raises(ConfigError, match=r"^There is no adapter 'openai'\. Installed: none\.$"):
        registry.load_adapter("openai")


@pytest.mark.server
def test_a_start_reads_only_the_adapters_that_are_configured(tmp_path):
    """However many are installed: modules and contracts of others take no time."""
    config = tmp_path / "imagegate.toml"
    config.write_text('[[upstreams]]\nname = "gemini"\napi_key = "k"\n[delivery]\nstore = "memory://"\n', "utf-8")
    program = (
        "import sys; from imagegate import ImageGateway\n"
        f"ImageGateway(config={str(config)!r})\n"
        "print(*sorted(name for name in sys.modules if name.startswith('imagegate_adapters.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[2] for name in done.stdout.split()}
    others = {entry.module.rpartition(".")[2] for entry in entry_points(group="imagegate.adapters")} - {"gemini"}
    assert "gemini" in loaded
    assert not loaded & others
