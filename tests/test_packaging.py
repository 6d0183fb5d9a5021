"""The packages as others see them: names, imports, entry points, and which way the arrows point."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, metadata, version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import imagegate
import imagegate_adapters
from imagegate import ConfigError, OpenAIAdapter
from imagegate.contracts.contract import ContractDocument, load_contracts
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
    "OpenAIAdapter",
    "load_config",
    "load_contracts",
]
NAMES = ["onetoken", "openai", "toapis", "tokenbay", "tokenlab", "tokmodel"]


def modules(folder: Path) -> list[Any]:
    """The dotted name and the file of every module of a package."""
    found: list[Any] = []
    for file in sorted(folder.rglob("*.py")):
        parts = (folder.name, *file.relative_to(folder).with_suffix("").parts)
        name = ".".join(part for part in parts if part != "__init__")
        found.append(pytest.param(name, file, id=name))
    return found


def imports(name: str, file: Path) -> set[str]:
    """Every module that a file imports, also inside functions and where relative."""
    found: set[str] = set()
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


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
    assert sorted(file.stem for file in ADAPTERS.glob("*.py") if file.stem != "__init__") == NAMES
    assert sorted(file.stem for file in ADAPTERS.glob("*.toml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_adapter_loads(name: str) -> None:
    """An adapter loads, knows its own name and address, and has contracts that can be merged."""
    adapter = load_adapter(name)
    assert adapter.name == name
    assert re.fullmatch(r"https://[a-z0-9.]+", adapter.base_url)
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
    with pytest.raises(ConfigError, match=r"There is no adapter 'tokenlap'\. Did you mean 'tokenlab'\? Installed: one"):
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


# Arrows


@pytest.mark.parametrize(("name", "file"), modules(ROOT))
def test_no_arrow_to_the_adapters(name: str, file: Path) -> None:
    """Nothing in `imagegate` imports an adapter's package, so that ours have no way of their own."""
    assert {found for found in imports(name, file) if below(found, "imagegate_adapters")} == set()


@pytest.mark.parametrize(("name", "file"), modules(ROOT))
def test_one_way_out(name: str, file: Path) -> None:
    """Only the modules of the one way out name an HTTP client; the demo, which is a client, may."""
    clients = ("httpx", "aiohttp", "httpcore", "httpx2", "requests", "urllib3", "urllib.request", "http.client")
    found = {found.partition(".")[0] for found in imports(name, file) if below(found, *clients)}
    if below(name, "imagegate.http"):
        assert found <= {"httpx", "aiohttp", "urllib"}  # the last knows the environment's proxies
    elif not below(name, "imagegate.demo"):
        assert found == set()


@pytest.mark.parametrize(("name", "file"), modules(ROOT / "layers"))
def test_no_layer_imports_an_adapter(name: str, file: Path) -> None:
    """Layers know accounts and contracts, and no adapter."""
    assert {found for found in imports(f"imagegate.{name}", file) if below(found, "imagegate.adapter")} == set()


@pytest.mark.parametrize(("name", "file"), modules(ADAPTERS))
def test_adapters_import_what_third_parties_may(name: str, file: Path) -> None:
    """An adapter that ships needs nothing that an adapter of somebody else cannot have."""
    ours = {found for found in imports(name, file) if below(found, "imagegate", "imagegate_adapters")}
    allowed = (
        "imagegate.adapter",
        "imagegate.contract",
        "imagegate.errors",
        "imagegate.replies",
        "imagegate_adapters",
    )
    assert {found for found in ours if not below(found, *allowed)} == set()


PURE = ("contracts", "protocol", "fitting")
ENCODERS = ("protocol.request_encoding", "protocol.reply_encoding")  # wait for files on disk


@pytest.mark.parametrize(("name", "file"), [module for package in PURE for module in modules(ROOT / package)])
def test_the_rules_do_no_io(name: str, file: Path) -> None:
    """The rules import no server, client or loop, and wait for nothing."""
    found = imports(f"imagegate.{name}", file)
    outside = ("asyncio", "socket", "starlette", "httpx", "aiohttp", "imagegate.http", "imagegate.layers", "os", "time")
    assert {module for module in found if below(module, *outside)} == set()
    nodes = ast.walk(ast.parse(file.read_text("utf-8")))
    assert name in ENCODERS or not any(isinstance(node, (ast.Await, ast.AsyncFunctionDef)) for node in nodes)
