"""A gateway in front of strict providers, for the tests of what was seen in the field."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.wire.field_support import GOOD, Bench, Provider, gateway

from imagegate.demo.servers import serving
from imagegate.tasks.creation import TaskCreation


@pytest.fixture
def providers_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients wait for their provider's own id of a task, however long a busy machine takes."""
    monkeypatch.setattr(TaskCreation, "answer_within", 30.0)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("field")
    with (
        Provider().running() as first,
        Provider().running() as second,
        Provider().running() as other,
        serving(gateway(folder, first.origin, second.origin)) as port,
    ):
        yield Bench(f"http://127.0.0.1:{port}", first, second, other)


@pytest.fixture
def bench(started: Bench) -> Bench:
    for provider in started.providers:
        provider.reset()
    started.second.post = GOOD
    return started
