"""What all tests share."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import hypothesis
import pytest
import structlog
from starlette.applications import Starlette

from imagegate.demo.servers import gateway, local_providers, write_config

if TYPE_CHECKING:
    from tests.postgres import Postgres

hypothesis.settings.register_profile("default", deadline=None, max_examples=100)
hypothesis.settings.register_profile("fast", deadline=None, max_examples=30)
hypothesis.settings.register_profile("long", deadline=None, max_examples=20_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


SERVER_FOLDERS = ("http", "wire")
"""Their tests use real sockets, but for those of `SERVERLESS_FILES`."""
SERVERLESS_FILES = ("http/test_public_addresses.py",)
PROGRAMS = (
    "chromium",
    "matplotlib",
    "mount",
    "nginx",
    "node",
    "postgres",
    "prometheus",
    "rclone",
    "redis",
    "swift",
    "systemd",
)
"""Markers of tests that need a program."""
TESTS = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Trusts one authority only: reading all of them takes every new HTTP client of a test 30 ms, and there are many.

    Programs that tests start, and the processes of xdist, inherit it; pip alone asks the world.
    """
    if "SSL_CERT_FILE" in os.environ:
        return
    end = "-----END CERTIFICATE-----\n"
    folder = Path(tempfile.mkdtemp(prefix="imagegate-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    (folder / "authority.pem").write_text(Path(certifi.where()).read_text("utf-8").partition(end)[0] + end, "utf-8")
    os.environ["SSL_CERT_FILE"] = str(folder / "authority.pem")
    os.environ.setdefault("PIP_CERT", certifi.where())


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names bytes by their argument: processes that run tests together must agree, and gzip writes the time."""
    return argname if isinstance(val, bytes) and not val.isascii() else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests that start servers or programs, and has the files with the slowest of them run first.

    Processes that run files together end at about the same time then: what is left at the end is short.
    """
    slowness: dict[str, int] = {}
    for item in items:
        file = item.path.relative_to(TESTS).as_posix()
        is_in_server_folder = file.startswith(tuple(f"{name}/" for name in SERVER_FOLDERS))
        if (is_in_server_folder and file not in SERVERLESS_FILES) or any(map(item.get_closest_marker, PROGRAMS)):
            item.add_marker("server")
        slow = sum(any(map(item.get_closest_marker, kinds)) for kinds in (("server",), ("memory", *PROGRAMS)))
        slowness[file] = max(slow, slowness.get(file, 0))
    items.sort(key=lambda item: -slowness[item.path.relative_to(TESTS).as_posix()])


def pytest_collection_finish() -> None:
    """Thousands of collected tests are nothing that `gc.collect` in a test should look through each time."""
    gc.collect()
    gc.freeze()


class Guard:
    """Fails tests that bind a socket or start a process without being marked ``server``.

    An audit hook sees both whoever does them, and there is no way to take it away again, so that there is one.
    """

    EVENTS = frozenset({"os.fork", "os.posix_spawn", "socket.bind", "subprocess.Popen"})

    def __init__(self) -> None:
        self.is_up = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.is_up and event in self.EVENTS:
            pytest.fail(f"{event} in a test that is not marked: add @pytest.mark.server", pytrace=True)


GUARD = Guard()
sys.addaudithook(GUARD)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Guards the test and the fixtures that are made for it."""
    GUARD.is_up = item.get_closest_marker("server") is None
    try:
        return (yield)
    finally:
        GUARD.is_up = False


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI every program is installed, so a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def structlog_as_it_was() -> Iterator[None]:
    """Tests that configure structlog leave no trace."""
    yield
    structlog.reset_defaults()


@dataclass(frozen=True)
class Running:
    """A gateway and the five local providers, each under a real server."""

    url: str
    """Of the gateway, without ``/v1``."""
    providers: Mapping[str, Starlette]
    """Name -> application; ``app.state.received`` is what it got."""
    ports: Mapping[str, int]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server that all tests share, each with databases of its own."""
    from tests.postgres import postgres_server  # its driver is imported only where it is needed

    with postgres_server() as server:
        yield server


@contextmanager
def running_product(folder: Path) -> Iterator[Running]:
    """Run the whole product with a file store, as the demo does."""
    with local_providers(task_seconds=0.05) as (providers, ports):
        write_config(folder / "imagegate.toml", ports, store=folder / "images")
        with gateway(folder / "imagegate.toml", port=0) as port:
            yield Running(f"http://127.0.0.1:{port}", providers, ports)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The whole product, shared by all tests."""
    with running_product(tmp_path_factory.mktemp("running")) as product:
        yield product
