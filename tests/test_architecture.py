"""Which way imports point, what pure code reaches, and that dependencies are used through what they document."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import pytest

import imagegate
import imagegate_adapters
from imagegate.registry import GROUP

ROOT = Path(imagegate.__file__).parent
ADAPTERS = Path(imagegate_adapters.__file__).parent
REPOSITORY = Path(__file__).parents[1]

ORDER: Final = (
    # Each may import those above it in this table, and nothing else of ours.
    "errors",
    "logger",
    "contracts",
    "protocol",
    "tracing",
    "fitting",
    "adapter",
    "registry",
    "asgi",
    "spool",
    "http",
    "stores",
    "streaming",
    "access",
    "config",
    "telemetry",
    "moderation",
    "routing",
    "spending",
    "ingest",
    "upstream",
    "delivery",
    "idempotency",
    "tasks",
    "layers",
    "openapi",
    "wiring",
    "reloading",
    "gateway",
    "terminal",
    "standalone",
    "server",
    "testing",
    "demo",
    "cli",
)
PURE: Final = ("contracts", "protocol", "fitting")
"""Packages from which no chain of imports leads to an event loop, a file, a socket or a thread."""
IMPURE: Final = frozenset(
    (
        *("aiohttp", "anyio", "asyncio", "concurrent", "http", "httpx", "multiprocessing", "os", "queue", "sched"),
        *("select", "selectors", "shutil", "signal", "sniffio", "socket", "ssl", "starlette", "subprocess"),
        *("tempfile", "threading", "time", "urllib.request", "uvicorn", "uvloop"),
    )
)
FACADES: Final[Mapping[str, str]] = {
    "opentelemetry": "telemetry",
    "contract": "contracts",
    "events": "telemetry",
    "log": "telemetry",
    "prometheus": "telemetry",
    "replies": "protocol",
}
"""Modules that only give public names to what lies in a package."""
PUBLIC: Final[Mapping[str, tuple[str, ...]]] = {
    "imagegate": tuple(imagegate.__all__),
    "imagegate.adapter": (
        "Adapter",
        "Authentication",
        "FilePart",
        "FileRef",
        "InlineFile",
        "OpenAIAdapter",
        "Upload",
        "UpstreamReply",
        "UpstreamRequest",
    ),
    "imagegate.contract": ("Contract", "ContractDocument", "Parameter", "ReferenceRule", "load_contracts"),
    "imagegate.errors": ("ConfigError", "ImagegateError", "UpstreamError"),
    "imagegate.events": (
        "ExchangeRecord",
        "Hook",
        "StartHook",
        "BreakerHook",
        "TaskHook",
        "ConfiguredHook",
        "MemoryHook",
    ),
    "imagegate.layers": (
        *("Admit", "Deliver", "ExchangeLayer", "Fit", "Idempotency", "Layer", "Moderate", "Observe", "Read"),
        *("References", "Route"),
        *("TaskEndpoints", "Tasks", "Upstream"),
    ),
    "imagegate.log": ("LogHook",),
    "imagegate.openapi": ("merge",),
    "imagegate.prometheus": ("PrometheusHook",),
    "imagegate.replies": ("PendingTask", "UpstreamReply", "read_reply", "read_upload"),
    "imagegate.standalone": ("Standalone", "create_app"),
    "imagegate.testing": (
        "AdapterContract",
        "Answer",
        "FakeUpstream",
        "Fixture",
        "Lint",
        "Lost",
        "MemoryFile",
        "outbound",
    ),
    "imagegate_adapters": (),
}
DOCUMENTED: Final = frozenset(
    (
        *("aiohttp", "aiohttp.abc", "aiohttp_socks", "certifi", "httpx", "idna", "yarl"),
        *("alembic", "alembic.command", "alembic.config", "alembic.context", "alembic.op", "alembic.util"),
        *("msgspec", "msgspec.inspect", "msgspec.structs", "pybase64"),
        *("obstore", "obstore.store", "openai", "redis.asyncio", "redis.asyncio.retry", "redis.backoff"),
        *("opentelemetry", "opentelemetry.context", "opentelemetry.metrics", "opentelemetry.trace"),
        "opentelemetry.exporter.otlp.proto.http.metric_exporter",
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        *("opentelemetry.sdk.metrics", "opentelemetry.sdk.metrics.export", "opentelemetry.sdk.resources"),
        *("opentelemetry.sdk.trace", "opentelemetry.sdk.trace.export", "opentelemetry.trace.propagation.tracecontext"),
        *("PIL", "PIL.Image", "PIL.ImageChops", "PIL.ImageDraw", "PIL.ImageFont", "PIL.ImageOps"),
        *("prometheus_client", "prometheus_client.exposition", "prometheus_client.multiprocess"),
        *("prometheus_client.registry", "python_multipart.exceptions", "python_multipart.multipart"),
        *("redis.exceptions", "sqlalchemy", "sqlalchemy.dialects", "sqlalchemy.dialects.postgresql"),
        *("sqlalchemy.dialects.sqlite", "sqlalchemy.engine", "sqlalchemy.event", "sqlalchemy.exc"),
        *("starlette.applications", "starlette.datastructures", "starlette.exceptions", "starlette.formparsers"),
        *("starlette.middleware", "starlette.middleware.cors", "starlette.requests", "starlette.responses"),
        *("starlette.routing", "starlette.testclient", "starlette.types"),
        *("structlog", "structlog.contextvars", "uvicorn"),
        # Of examples and benchmarks.
        *("fastapi", "fastapi.security", "fastapi.testclient", "httptools", "respx", "uvloop"),
        *("matplotlib", "matplotlib.backends.backend_agg", "matplotlib.figure"),
    )
)
"""Modules of dependencies that their documentation names."""
NEEDED: Final[Mapping[str, frozenset[str]]] = {
    # uvicorn has no other way to bound a connection before its parser sees it: docs/uvicorn.md.
    "imagegate.server.uvicorn_protocol": frozenset(
        {"uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol"}
    ),
}
"""Modules that use such a module all the same, and which."""


def name_of(file: Path) -> str:
    package = ADAPTERS if file.is_relative_to(ADAPTERS) else ROOT
    parts = (package.name, *file.relative_to(package).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


MODULES: Final = {name_of(file): file for folder in (ROOT, ADAPTERS) for file in sorted(folder.rglob("*.py"))}


@cache
def nodes(name: str) -> tuple[ast.AST, ...]:
    """Everything in a module's syntax tree."""
    return tuple(ast.walk(ast.parse(MODULES[name].read_text("utf-8"))))


@cache
def imports(name: str) -> frozenset[str]:
    """Every module that a module imports, also inside functions, for types, and where relative."""
    found: set[str] = set()
    file = MODULES[name]
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in nodes(name):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            names = {f"{base}.{alias.name}" for alias in node.names}
            ours = names & MODULES.keys()
            found |= ours if len(ours) == len(names) else {base, *names}
    return frozenset(found)


def ours(name: str) -> Iterator[str]:
    """The modules of ours that a module imports, with the packages that importing them runs."""
    for found in imports(name):
        parts = found.split(".")
        for end in range(2, len(parts) + 1):
            if (module := ".".join(parts[:end])) in MODULES and not name.startswith(f"{module}."):
                yield module


def room(name: str) -> str:
    """The package, or root module, that a module of imagegate belongs to."""
    first = (*name.split("."), "")[1]
    return FACADES.get(first, first)


def reached(*start: str) -> dict[str, str]:
    """Every module of ours that importing one of `start` runs -> the module that imports it."""
    found = dict.fromkeys(start, "")
    queue = [*start]
    while queue:
        name = queue.pop()
        for other in ours(name):
            if other not in found:
                found[other] = name
                queue.append(other)
    return found


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


PACKAGES: Final = sorted(file for file in MODULES.values() if file.name == "__init__.py")
CORE: Final = [name for name in MODULES if below(name, "imagegate") and room(name) not in ("", "__main__")]

CORE_NAMES: Final = frozenset(CORE)


def test_every_package_has_its_place() -> None:
    """A new package is put into the order, where everybody sees what it may import."""
    assert {room(name) for name in CORE} == set(ORDER)


def test_imports_point_one_way() -> None:
    """No module imports from a package that stands below its own in the order."""
    place = {package: position for position, package in enumerate(ORDER)}
    assert [
        f"{name}: {other}"
        for name in CORE
        for other in sorted(set(ours(name)))
        if room(other) not in ("", room(name)) and place[room(other)] > place[room(name)]
    ] == []


@pytest.mark.parametrize("package", PURE)
def test_the_rules_reach_no_io(package: str) -> None:
    """No chain of imports leads pure code to an event loop, a file, a socket or a thread; and it waits for nothing."""
    names = [name for name in CORE if room(name) == package]
    assert names
    for module, importer in reached(*names).items():
        outside = {found for found in imports(module) if not below(found, "imagegate")}
        impure = sorted(found for found in outside if below(found, *IMPURE))
        assert impure == [], f"{module} (imported by {importer or 'the rules'})"
    waits = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)
    assert [name for name in names if any(isinstance(node, waits) for node in nodes(name))] == []


def test_no_circles() -> None:
    """No module is imported, at once or later, by what it imports."""

    def circle(name: str) -> bool:
        queue, seen = [name], set[str]()
        while queue:
            found = imports(queue.pop()) & CORE_NAMES - seen
            seen |= found
            queue += found
        return name in seen

    assert [name for name in CORE if circle(name)] == []


@pytest.mark.parametrize("file", PACKAGES, ids=lambda file: file.parent.name)
def test_a_package_says_what_it_is_for(file: Path) -> None:
    """Its docstring has two sentences at least, so that a stranger finds the room."""
    text = ast.get_docstring(ast.parse(file.read_text("utf-8")))
    assert text is not None
    assert len(re.findall(r"\.(?:\s|$)", text)) >= 2, text


def test_nothing_private_of_a_dependency() -> None:
    """No name that begins with an underscore is imported from elsewhere, and no module that is not documented."""
    assert [
        f"{name}: {found}"
        for name in MODULES
        for found in sorted(imports(name) - NEEDED.get(name, frozenset()))
        if is_foreign(found) and not is_documented(found)
    ] == []


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_nothing_private_beside_the_packages(folder: str) -> None:
    """Examples and benchmarks do as the product does, and import no private name of ours."""
    files = sorted((REPOSITORY / folder).rglob("*.py"))
    assert files
    neighbours = {file.stem for file in files} | {file.parent.name for file in files}
    found = {file: imported_by([*ast.walk(ast.parse(file.read_text("utf-8")))]) for file in files}
    assert [
        f"{file.relative_to(REPOSITORY)}: {name}"
        for file, names in found.items()
        for name in sorted(names)
        if re.search(r"\b_[a-z]", name)
        or (is_foreign(name) and not is_documented(name) and name.partition(".")[0] not in neighbours)
    ] == []


def imported_by(tree: Iterable[ast.AST]) -> set[str]:
    """The modules that a file outside of the packages imports, and the names that it takes from them."""
    found = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in tree if isinstance(node, ast.ImportFrom) and node.module]
    return found | {f"{node.module}.{alias.name}" for node in froms for alias in node.names}


def is_foreign(name: str) -> bool:
    """Whether a module or name is a dependency's."""
    top = name.partition(".")[0]
    return top not in (*sys.stdlib_module_names, "imagegate", "imagegate_adapters")


def is_documented(name: str) -> bool:
    """Whether it is a documented module, or a public name in one."""
    module, _, last = name.rpartition(".")
    return name in DOCUMENTED or (module in DOCUMENTED and not last.startswith("_"))


def test_nothing_private_is_reached_for() -> None:
    """Private attributes are used on `self`, `cls` and objects of the module's own classes only."""
    reach: list[str] = []
    for name in MODULES:
        attributes = [node for node in nodes(name) if isinstance(node, ast.Attribute)]
        own = {node.attr for node in attributes if is_self(node.value)}
        own |= {node.name for node in nodes(name) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
        reach += [
            f"{name}, {node.lineno}: {ast.unparse(node)}"
            for node in attributes
            if re.match(r"_[a-z]", node.attr)
            and not is_self(node.value)
            and node.attr not in own
            and node.attr not in ("_replace", "_asdict")  # which named tuples document
        ]
    assert reach == []


def test_one_logger() -> None:
    """Lines go where the host wants them: only these decide where that is."""
    named = re.compile(r"structlog\.(get_logger|getLogger|stdlib\.get_logger)|\blogging\.getLogger|\bwarnings\.warn\(")
    found = {name for name, file in MODULES.items() if named.search(file.read_text("utf-8"))}
    assert found == {"imagegate.logger", "imagegate.telemetry.log", "imagegate.telemetry.log_output"}


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def imported(by: str, *packages: str) -> list[str]:
    """What the modules of a package import from others, each with its importer."""
    names = [name for name in MODULES if below(name, by)]
    assert names
    return [f"{name}: {found}" for name in names for found in sorted(imports(name)) if below(found, *packages)]


def test_no_import_of_the_adapters() -> None:
    """Nothing in `imagegate` imports an adapter's package, so that ours have no way of their own."""
    assert imported("imagegate", "imagegate_adapters") == []


def test_one_way_out() -> None:
    """Only `imagegate.http` names an HTTP client; the demo, which is a client, and what tests need, may."""
    clients = ("httpx", "aiohttp", "aiohttp_socks", "httpcore", "requests", "urllib3", "urllib.request", "http.client")
    # The standard library knows the environment's proxies; what is imported from a module is listed beside the module.
    environment = ("urllib.request.getproxies", "urllib.request.proxy_bypass")
    allowed = {
        "imagegate.http": ("httpx", "aiohttp", "aiohttp_socks", *environment),
        "imagegate.demo": clients,
        "imagegate.testing": clients,
    }
    found: list[str] = []
    for name in (name for name in MODULES if below(name, "imagegate")):
        own = [each for package, may in allowed.items() if below(name, package) for each in may]
        named = {each for each in imports(name) if below(each, *clients)}
        if named & {*environment}:
            named.discard("urllib.request")
        found += [f"{name}: {each}" for each in sorted(named) if not below(each, *own)]
    assert found == []


def test_no_layer_imports_an_adapter() -> None:
    """Layers know accounts and contracts, and no adapter."""
    assert imported("imagegate.layers", "imagegate.adapter") == []


def test_adapters_import_what_third_parties_may() -> None:
    """An adapter that ships needs nothing that an adapter of somebody else cannot have."""
    allowed = ("imagegate.adapter", "imagegate.contract", "imagegate.errors", "imagegate.replies", "imagegate_adapters")
    found = imported("imagegate_adapters", "imagegate", "imagegate_adapters")
    assert [each for each in found if not below(each.rpartition(" ")[2], *allowed)] == []


@pytest.mark.parametrize("module", list(PUBLIC))
def test_public_imports_stay(module: str) -> None:
    """What applications and adapters import is where it was, wherever the code lies."""
    loaded: Any = importlib.import_module(module)
    assert [name for name in PUBLIC[module] if not hasattr(loaded, name)] == []
    if module.partition(".")[2] in FACADES:
        assert set(PUBLIC[module]) <= set(loaded.__all__)


def test_entry_points_stay() -> None:
    """The command, the adapters, and what an ASGI server is given."""
    assert {entry.value for entry in entry_points(group="console_scripts", name="imagegate")} == {"imagegate.cli:main"}
    assert {entry.name for entry in entry_points(group=GROUP)} >= {"openai", "tokenlab", "toapis", "tokenbay"}
    tree = ast.parse(MODULES["imagegate.standalone"].read_text("utf-8"))
    assert "app" in {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
