"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
import structlog
from starlette.applications import Starlette

from imagegate.demo.servers import gateway, local_providers, write_config

hypothesis.settings.register_profile("default", deadline=None, max_examples=200)
hypothesis.settings.register_profile("long", deadline=None, max_examples=20_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


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
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The whole product with a file store, as the demo runs it."""
    folder: Path = tmp_path_factory.mktemp("running")
    with local_providers(task_seconds=0.05) as (providers, ports):
        write_config(folder / "imagegate.toml", ports, store=folder / "images")
        with gateway(folder / "imagegate.toml", port=0) as port:
            yield Running(f"http://127.0.0.1:{port}", providers, ports)
