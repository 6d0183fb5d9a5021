"""One run of a gateway with two workers under traffic of every kind, for all tests that look at it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.telemetry.browser import Page, chromium
from tests.telemetry.support import CountingUpstream, Traffic, config_of, serve

from imagegate.demo.servers import serving


@dataclass(frozen=True)
class TwoWorkers:
    """A gateway, what stands behind it, and what it wrote."""

    url: str
    traffic: Traffic
    upstream: CountingUpstream
    log: Path
    config: Path

    def metrics(self) -> str:
        return httpx.get(f"{self.url}/metrics").text


@pytest.fixture(scope="package")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoWorkers]:
    """After one round of traffic."""
    folder = tmp_path_factory.mktemp("observe")
    upstream = CountingUpstream()
    config, log = folder / "imagegate.toml", folder / "log"
    with serving(upstream.app()) as port, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        config.write_text(config_of(port, closed.getsockname()[1], folder))
        with serve(config, log) as bound:
            traffic = Traffic(f"http://127.0.0.1:{bound}")
            traffic.run()
            yield TwoWorkers(traffic.url, traffic, upstream, log, config)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One for all tests that look at the console; each says of which gateway."""
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(autouse=True)
def left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the console after each test: it would go on to ask its gateway's port, which is soon another server's."""
    yield
    if "browser" in request.fixturenames:
        request.getfixturevalue("browser").leave()
