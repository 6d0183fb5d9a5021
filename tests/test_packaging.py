"""The packages as others see them: names, imports, entry points, and which way the arrows point."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, metadata, version
from pathlib import Path
from types import ModuleType

import pytest

import imagegate
import imagegate_adapters
from imagegate import ConfigError, OpenAIAdapter
from imagegate.contracts.documents import ContractDocument, load_contracts
from imagegate.registry import GROUP, installed, load_adapter

ROOT = Path(imagegate.__file__).parent
ADAPTERS = Path(imagegate_adapters.__file__).parent
PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
PUBLIC = [
    "Adapter",
    "Config",
    "ConfigError",
    "Contract",
    "ExchangeRecord",
    "Hook",
    "ImageGateway",
    "ImagegateError",
    "Limits",
    "OpenAIAdapter",
    "Principal",
    "load_config",
    "load_contracts",
]
NAMES = sorted(PROJECT["entry-points"][GROUP])


def test_public_names() -> None:
    """The public names are these, in order, and each can be imported from the package."""
    assert imagegate.__all__ == PUBLIC
    assert sorted(PUBLIC) == PUBLIC
    for name in PUBLIC:
        assert getattr(imagegate, name).__name__ == name


def test_unknown_name() -> None:
    """A name that the package does not have is an AttributeError that says so."""
    with pytest.raises(AttributeError, match="'imagegate' has no attribute 'nobody'"):
        _ = imagegate.nobody


@pytest.mark.server
@pytest.mark.parametrize("module", ["imagegate", "imagegate_adapters", "imagegate.standalone", "imagegate.cli"])
def test_import_costs_little(module: str) -> None:
    """Importing the package, its command line or its adapters loads no client, no framework and reads no key."""
    heavy = ("aiohttp", "httpx", "starlette", "fastapi", "uvicorn", "PIL", "openai", "imagegate_adapters.tokenlab")
    if module == "imagegate.standalone":  # which is the application
        heavy = ("uvicorn", "fastapi", "PIL", "openai", "imagegate_adapters.tokenlab")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("package", [imagegate, imagegate_adapters], ids=lambda package: package.__name__)
def test_every_module_can_be_imported(package: ModuleType) -> None:
    """No module fails when it is imported by itself."""
    names = [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    for name in names:
        if name != "imagegate.__main__":
            importlib.import_module(name)
    assert len(names) >= len(NAMES)


@pytest.mark.parametrize("folder", [ROOT, ADAPTERS], ids=lambda folder: folder.name)
def test_typed(folder: Path) -> None:
    """Both packages tell type checkers that they are typed."""
    assert (folder / "py.typed").is_file()


def test_versions_agree() -> None:
    """The package, its metadata and the project file know the same version."""
    assert imagegate.__version__ == PROJECT["version"] == version("imagegate")
    assert metadata("imagegate")["License-Expression"] == "MIT"


# Entry points


def test_adapters_are_announced() -> None:
    """Every adapter that ships is an entry point under its own name, and there are no others of this package."""
    announced = {entry.name: entry.value for entry in entry_points(group=GROUP)}
    ours = {name: value for name, value in announced.items() if value.startswith("imagegate_adapters.")}
    assert PROJECT["entry-points"]["imagegate.adapters"] == ours
    assert sorted(ours) == NAMES
    modules = {name: value.partition(":")[0].rpartition(".")[2] for name, value in ours.items()}
    assert modules == {name: name.replace("-", "_") for name in NAMES}
    tables = {file.name.removesuffix(".toml") for file in ADAPTERS.glob("*.toml")}
    assert {name for name in tables if "." not in name} == {*modules.values()}
    assert {name for name in tables if "." in name} <= {f"{module}.prices" for module in modules.values()}
    files = {file.stem for file in ADAPTERS.glob("*.py")} - {"__init__", *modules.values()}
    assert [name for name in files if not name.startswith(tuple(f"{module}_" for module in modules.values()))] == []


@pytest.mark.parametrize("name", NAMES)
def test_adapter_loads(name: str) -> None:
    """An adapter loads, knows its own name and address, and has contracts that can be merged."""
    adapter = load_adapter(name)
    assert adapter.name == name
    assert re.fullmatch(r"(https://[a-z0-9.-]+(/[a-z0-9]+)*)?", adapter.base_url)
    document = adapter.contracts()
    assert isinstance(document, ContractDocument)
    assert set(load_contracts(document)) == set(document.models)
    assert document.models


def test_command_is_announced() -> None:
    """The command ``imagegate`` is an entry point that loads."""
    (script,) = (entry for entry in entry_points(group="console_scripts") if entry.name == "imagegate")
    assert script.load().__module__ == "imagegate.cli.commands"
    assert {"imagegate": script.value} == PROJECT["scripts"]


def test_unknown_adapter() -> None:
    """An adapter that is not installed is an error that names the nearest one and all that are."""
    with pytest.raises(ConfigError, match=r"There is no adapter 'tokenlap'\. Did you mean 'tokenlab'\? Installed: "):
        load_adapter("tokenlap")


def test_two_adapters_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages that announce the same name are an error that names both."""
    first, *_ = entry_points(group=GROUP)
    other = type(first)(name=first.name, value="other.package:Adapter", group=GROUP)
    monkeypatch.setattr("imagegate.registry.entry_points", lambda group: [first, other])
    installed.cache_clear()
    try:
        with pytest.raises(ConfigError, match=f"Two packages announce the adapter '{first.name}': .*other.package"):
            installed()
    finally:
        installed.cache_clear()


def test_an_adapter_without_contracts() -> None:
    """A third party's adapter without a TOML file beside it has no contracts, and that is no error."""

    class Other(OpenAIAdapter):
        name = "other"
        base_url = "https://api.example.com"

    assert ContractDocument() == Other().contracts()
