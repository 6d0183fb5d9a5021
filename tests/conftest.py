"""What all tests share."""

from __future__ import annotations

import functools
import gc
import inspect
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import certifi
import hypothesis
import pytest
import structlog
from starlette.applications import Starlette

from imagegate.demo.servers import gateway, local_providers, write_config

if TYPE_CHECKING:
    from types import FrameType

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
    """Trusts one authority only: reading all of them takes every new HTTP client of a test 20 ms, and there are many.

    Whatever the environment says: many machines name a file of all authorities there. Programs that tests start, and
    the processes of xdist, inherit it; pip alone asks the world.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    end = "-----END CERTIFICATE-----\n"
    folder = Path(tempfile.mkdtemp(prefix="imagegate-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    (folder / "authority.pem").write_text(Path(certifi.where()).read_text("utf-8").partition(end)[0] + end, "utf-8")
    os.environ.setdefault("PIP_CERT", os.environ.get("SSL_CERT_FILE") or certifi.where())
    os.environ["SSL_CERT_FILE"] = str(folder / "authority.pem")
    os.environ.pop("SSL_CERT_DIR", None)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names bytes by their argument: processes that run tests together must agree, and gzip writes the time."""
    return argname if isinstance(val, bytes) and not val.isascii() else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests that start servers or programs, and puts their files in between the others, the slowest ones first.

    They wait while the others compute, so that processes that run files together use the whole machine, and end at
    about the same time: what is left at the end is short.
    """
    slowness: dict[str, int] = {}
    for item in items:
        file = item.path.relative_to(TESTS).as_posix()
        is_in_server_folder = file.startswith(tuple(f"{name}/" for name in SERVER_FOLDERS))
        if (is_in_server_folder and file not in SERVERLESS_FILES) or any(map(item.get_closest_marker, PROGRAMS)):
            item.add_marker("server")
        slow = sum(any(map(item.get_closest_marker, kinds)) for kinds in (("server",), ("memory", *PROGRAMS)))
        slowness[file] = max(slow, slowness.get(file, 0))
    waiting = sorted((file for file, slow in slowness.items() if slow), key=lambda file: -slowness[file])
    computing = [file for file, slow in slowness.items() if not slow]
    # Those that wait take longest, so that their last one begins when most of the others have run.
    places = {file: number / len(waiting) * 0.8 for number, file in enumerate(waiting)}
    places |= {file: number / len(computing) for number, file in enumerate(computing)}
    items.sort(key=lambda item: places[item.path.relative_to(TESTS).as_posix()])


def pytest_collection_finish() -> None:
    """Thousands of collected tests are nothing that `gc.collect` in a test should look through each time."""
    gc.collect()
    gc.freeze()


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refused(*_: object, **__: object) -> NoReturn:
        pytest.fail(f"{name} in a test that is not marked: add @pytest.mark.server", pytrace=True)

    return refused


@contextmanager
def guarded() -> Iterator[None]:
    """Fail whoever binds a socket or starts a process.

    An audit hook would see it, too. But beside coverage Python 3.11 refuses to trace a thread that starts while the
    hook runs for another one: the thread ends before it has begun, and whoever waits for it waits for ever.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "bind", _refuse("socket.bind"))
        patch.setattr(subprocess.Popen, "__init__", _refuse("subprocess.Popen"))
        patch.setattr(os, "posix_spawn", _refuse("os.posix_spawn"))
        patch.setattr(os, "fork", _refuse("os.fork"))
        yield


def traced(test: Callable[..., None], tracer: Callable[[FrameType, str, Any], Any]) -> Callable[..., None]:
    """A test that coverage follows, called where it follows nothing."""

    @functools.wraps(test)
    def run(*args: Any, **arguments: Any) -> None:
        sys.settrace(tracer)
        try:
            test(*args, **arguments)
        finally:
            sys.settrace(None)

    return run


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Has coverage follow each example of a test, and not how Hypothesis makes them: half of the time went there."""
    handle, tracer = getattr(pyfuncitem.obj, "hypothesis", None), sys.gettrace()
    if handle is None or tracer is None or inspect.iscoroutinefunction(handle.inner_test):
        return (yield)
    test = handle.inner_test
    handle.inner_test = traced(test, tracer)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        handle.inner_test = test
        sys.settrace(tracer)
        (lambda: None)()  # with the next call, coverage's own tracer is in its place again


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Guards the test and the fixtures that are made for it."""
    if item.get_closest_marker("server") is not None:
        return (yield)
    with guarded():
        return (yield)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI every program is installed, so a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Tests that configure structlog or the standard library's logging leave no trace.

    A handler that is left behind writes into the captured output of a test that has ended, which is closed.
    """
    root, own = logging.getLogger(), logging.getLogger("imagegate")
    levels, handlers = (root.level, own.level), {*root.handlers, *own.handlers}
    yield
    structlog.reset_defaults()
    for logger, level in zip((root, own), levels, strict=True):
        logger.setLevel(level)
        for handler in logger.handlers[:]:
            if type(handler) is logging.StreamHandler and handler not in handlers:  # pytest's own are of other types
                logger.removeHandler(handler)


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
