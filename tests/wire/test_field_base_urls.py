"""Base URLs of `tests/field`: what is requested, and what cannot be configured."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.wire.field_support import (
    CLIENT,
    EDITS,
    GENERATIONS,
    GOOD,
    JSON,
    KEY,
    SMALL,
    Answer,
    Bench,
    gateway,
    rows,
    target_of,
)

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving
from imagegate.errors import ConfigError


@pytest.mark.parametrize("row", rows("base_urls.csv"), ids=lambda row: f"{row['base_url']} {row['path asked']}")
def test_base_urls(bench: Bench, row: dict[str, str], tmp_path: Path) -> None:
    right = row["right URL"]
    if right.startswith("error: "):
        with pytest.raises(ConfigError) as caught:
            gateway(tmp_path, row["base_url"], bench.second.origin)
        assert right.removeprefix("error: ") in str(caught.value)
        return
    parts = urlsplit(row["base_url"])
    here = row["base_url"].replace(f"{parts.scheme}://{parts.netloc}", bench.first.origin)
    if row["path asked"].startswith("GET task"):
        bench.first.post = Answer(200, JSON, b'{"task_id": "t1", "status": "queued"}')
        bench.first.answers["GET", target_of(right)] = GOOD
    else:
        bench.first.post = GOOD
    with serving(gateway(tmp_path, here, bench.second.origin)) as port:
        url = f"http://127.0.0.1:{port}"
        reply = send(url, row["path asked"])
        assert reply.status_code == 200, reply.text
        assert target_of(right) in [request.target for request in bench.first.requests]
    with serving(gateway(tmp_path, row["base_url"], bench.second.origin)) as port:
        shown = send(f"http://127.0.0.1:{port}", row["path asked"], {"imagegate-explain": "?1"}).json()
        if not row["path asked"].startswith("GET"):
            assert shown["url"] == right


def test_uploads_and_addresses_of_tasks(bench: Bench, tmp_path: Path) -> None:
    """They follow the base URL as the requests do, whether the provider names a path or none."""
    base = f"{bench.first.origin}/api/v3?team=7"
    config = f"""
        [[upstreams]]
        name = "toapis"
        base_url = "{base}"
        api_key = "{KEY}"
        [delivery]
        store = "file://{tmp_path}"
        [tasks]
        poll_interval = "10ms"
    """
    served = {"data": {"url": "https://files.example/a.png"}, "task_id": "t1", "status": "queued"}
    for poll_url, target in (
        (None, "/api/v3/images/generations/t1?team=7"),
        ("/v1/jobs/t1", "/api/v3/jobs/t1?team=7"),
        ("/api/v3/jobs/t1?x=1", "/api/v3/jobs/t1?x=1&team=7"),
        (f"{bench.first.origin}/jobs/t1", "/jobs/t1?team=7"),
        ("/jobs/t2", "/jobs/t2?team=7"),
        ("jobs/t3", "/api/v3/jobs/t3?team=7"),
    ):
        bench.first.reset()
        bench.first.answers["POST", "/api/v3/uploads/images?team=7"] = Answer(200, JSON, json.dumps(served).encode())
        made = Answer(200, JSON, json.dumps({"task_id": "t1", "status": "queued", "poll_url": poll_url}).encode())
        bench.first.answers["POST", "/api/v3/images/generations?team=7"] = made
        bench.first.answers["GET", target] = GOOD
        with serving(ImageGateway(config=parse_config(config))) as port:
            files = {"image": ("a.png", SMALL, "image/png")}
            fields = {"model": "toapis/gpt-image-2", "prompt": "A kite"}
            reply = httpx.post(f"http://127.0.0.1:{port}{EDITS}", data=fields, files=files)
        assert reply.status_code == 200, reply.text
        assert bench.first.requests[-1].target == target


def test_a_task_that_is_at_neither_place(bench: Bench, tmp_path: Path) -> None:
    """A link without a host may begin at the origin or at the API; the error says where it was looked for."""
    config = f"""
        [[upstreams]]
        name = "openai"
        base_url = "{bench.first.origin}/api/v3"
        api_key = "{KEY}"
        [delivery]
        store = "file://{tmp_path}"
        [tasks]
        poll_interval = "10ms"
    """
    made = {"task_id": "t1", "status": "queued", "poll_url": "/jobs/t1"}
    bench.first.post = Answer(200, JSON, json.dumps(made).encode())
    with serving(ImageGateway(config=parse_config(config))) as port:
        reply = httpx.post(
            f"http://127.0.0.1:{port}{GENERATIONS}", json={"model": "openai/any", "prompt": "A kite"}, headers=CLIENT
        )
    message = reply.json()["error"]["message"]
    assert "'/api/v3/jobs/t1' and at '/jobs/t1'" in message
    assert bench.first.origin not in reply.text
    assert len(bench.first.posts) == 1


def send(url: str, path: str, more: dict[str, str] | None = None) -> httpx.Response:
    headers = {**CLIENT, **(more or {})}
    fields = {"model": "alone", "prompt": "A kite"}
    if path == EDITS:
        return httpx.post(url + EDITS, data=fields, files={"image": ("a.png", SMALL, "image/png")}, headers=headers)
    return httpx.post(url + GENERATIONS, json=fields, headers=headers)
