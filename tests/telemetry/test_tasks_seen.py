"""Tasks and keyed requests in metrics, log and console: counted once, whoever does the work and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.conftest import Running
from tests.telemetry.support import wait_until
from tests.telemetry.test_two_workers import sums, total

from imagegate.config.loader import load_config
from imagegate.demo.servers import serving, write_config
from imagegate.standalone import Standalone

pytestmark = pytest.mark.server


@pytest.fixture
def url(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway of its own, whose counters are at nought."""
    folder = tmp_path_factory.mktemp("tasks")
    write_config(folder / "imagegate.toml", running.ports, store=folder / "images")
    with serving(Standalone(load_config(folder / "imagegate.toml"))) as port:
        yield f"http://127.0.0.1:{port}"


def post(url: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/images/generations", json={"prompt": "A heron", **fields}, headers=headers, timeout=30)


def ended(url: str, created: dict[str, Any]) -> dict[str, Any]:
    """The task, when it is over."""
    last: dict[str, Any] = {}

    def is_over() -> bool:
        last.update(httpx.get(url + created["poll_url"]).json())
        return last["status"] in ("completed", "failed")

    wait_until(is_over, what=lambda: last)
    return last


def metrics(url: str) -> str:
    return httpx.get(f"{url}/metrics").text


def test_a_task_of_the_gateways_own(url: str) -> None:
    """One request, one POST, one picture, one task that began and ended, and nothing in flight."""
    created = post(url, model="tokmodel/openai/dall-e-2", size="256x256", **{"async": True})
    assert created.status_code == 202
    assert ended(url, created.json())["status"] == "completed"
    text = metrics(url)
    assert sums(text, "operation", "outcome")["imagegate_requests_total"]["generations", "ok"] == 1
    for name in ("images_asked", "images_made", "images_delivered", "upstream_requests"):
        assert total(text, f"imagegate_{name}_total") == 1, name
    states = sums(text, "state")["imagegate_tasks_total"]
    assert (states["pending",], states["completed",], states["failed",]) == (1, 1, 0)
    assert total(text, "imagegate_task_duration_seconds_count", state="completed") == 1
    assert total(text, "imagegate_requests_in_flight") == 0
    entries = httpx.get(f"{url}/console/exchanges").json()["exchanges"]
    assert [(entry["status"], entry["outcome"]) for entry in entries] == [(202, "ok")]


def test_a_task_of_the_providers(url: str) -> None:
    """Where the client is handed the provider's own task, its POST is counted, and no task of ours."""
    created = post(url, model="toapis/gpt-image-1.5-official", size="1:1", **{"async": True})
    assert created.status_code == 202
    assert ended(url, created.json())["status"] == "completed"
    text = metrics(url)
    assert total(text, "imagegate_upstream_requests_total", upstream="toapis", outcome="ok") == 1
    assert sums(text, "operation")["imagegate_requests_total"]["generations",] == 1
    states = sums(text, "state")["imagegate_tasks_total"]
    assert states["pending",] == states["completed",] + states["failed",]
    assert total(text, "imagegate_requests_in_flight") == 0


def test_a_task_that_fails(url: str) -> None:
    """A task that the provider refuses has failed; its POST is counted, and no picture."""
    created = post(url, model="tokenbay/gpt-image-2", prompt="Something forbidden", **{"async": True})
    assert created.status_code == 202
    assert ended(url, created.json())["status"] == "failed"
    text = metrics(url)
    assert total(text, "imagegate_upstream_requests_total", upstream="tokenbay", outcome="rejected") == 1
    states = sums(text, "state")["imagegate_tasks_total"]
    assert (states["pending",], states["failed",]) == (1, 1)
    assert total(text, "imagegate_images_asked_total") == 1
    assert total(text, "imagegate_images_made_total") == 0


def test_a_request_that_makes_no_task(url: str) -> None:
    """What is refused before there is a task is an exchange that failed."""
    assert post(url, model="tokenlab/gpt-image-2", size="8:1", **{"async": True}).status_code == 400
    text = metrics(url)
    assert sums(text, "operation", "outcome")["imagegate_requests_total"]["generations", "invalid"] == 1
    assert total(text, "imagegate_tasks_total") == 0


def test_a_keyed_request_is_paid_once(url: str) -> None:
    """A replay is an exchange without a POST, and says what saved it."""
    headers = {"idempotency-key": "one"}
    answers = [post(url, headers, model="tokmodel/openai/dall-e-2", size="256x256") for _ in range(3)]
    assert len({answer.text for answer in answers}) == 1
    text = metrics(url)
    assert total(text, "imagegate_upstream_requests_total") == total(text, "imagegate_images_made_total") == 1
    assert total(text, "imagegate_idempotent_requests_total", how="replayed") == 2
    assert sums(text, "outcome")["imagegate_requests_total"]["ok",] == 3
