"""The tutorials work: their files are taken from the pages and run against real servers on this machine."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.ports import free_port
from tests.stores.s3_support import BUCKET, KEY, SECRET, s3_server
from tests.waiting import until

from imagegate import load_config
from imagegate.adapter import OpenAIAdapter
from imagegate.registry import load_adapter
from imagegate.server.in_thread import serving
from imagegate.standalone import Standalone
from imagegate.testing import Answer, FakeUpstream, png

pytestmark = pytest.mark.server

TUTORIALS = Path(__file__).parent.parent / "docs" / "tutorials"
PICTURE = png(32, 32)
MADE = Answer(document={"created": 1, "data": [{"b64_json": b64encode(PICTURE).decode()}]})
OVERLOADED = Answer(
    status=503, document={"error": {"message": "Overloaded.", "type": "server_error", "code": "overloaded"}}
)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write the files of a tutorial, with other addresses in place of its own, into the folder where the test runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "TOKENLAB_API_KEY", "CLIENT_KEY"):
        monkeypatch.setenv(name, f"{name.lower()}-for-the-tutorial")
    for name in ("LINK_SECRET", "WEBHOOK_SECRET"):
        monkeypatch.setenv(name, "at-least-16-characters")

    def files(page: str, **instead: str) -> Path:
        text = (TUTORIALS / page).read_text("utf-8")
        for old, new in instead.items():
            assert old in text
            text = text.replace(old, new)
        for name, content in re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL):
            (tmp_path / name).write_text(content, "utf-8")
        return tmp_path

    return files


def run(file: Path) -> str:
    """What a script of a tutorial prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        runpy.run_path(str(file), run_name="__main__")
    return said.getvalue()


def at(monkeypatch: pytest.MonkeyPatch, adapter: str, provider: FakeUpstream) -> None:
    monkeypatch.setattr(type(load_adapter(adapter)), "base_url", provider.url)


def gateway(folder: Path, port: int) -> Any:
    return serving(Standalone(load_config(folder / "imagegate.toml")), port=port)


def addressed(port: int) -> dict[str, str]:
    return {"127.0.0.1:8000": f"127.0.0.1:{port}"}


def test_every_tutorial_is_tested() -> None:
    """There is no tutorial that this file does not run."""
    source = Path(__file__).read_text("utf-8")
    assert [page.name for page in TUTORIALS.glob("*.md") if f'write("{page.name}"' not in source] == []
    assert isinstance(load_adapter("openai"), OpenAIAdapter)


@pytest.mark.rclone
def test_links_from_s3(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The image is in the bucket, below the prefix, and its presigned link loads it."""
    monkeypatch.setenv("S3_KEY", KEY)
    monkeypatch.setenv("S3_SECRET", SECRET)
    port = free_port()
    with FakeUpstream(MADE) as provider, s3_server(tmp_path / "s3") as bucket:
        at(monkeypatch, "openai", provider)
        folder = write("links-from-s3.md", **addressed(port), **{"127.0.0.1:8333": f"127.0.0.1:{bucket.port}"})
        with gateway(folder, port):
            link, loaded = run(folder / "ask.py").splitlines()
        assert link.startswith(f"http://127.0.0.1:{bucket.port}/{BUCKET}/made/")
        assert loaded == f"image/png {len(PICTURE)} bytes"
        assert PICTURE in bucket.files.values()


def test_fallback(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second provider answers where the first is overloaded, and each is asked once; an explanation asks none."""
    port = free_port()
    with FakeUpstream(OVERLOADED) as first, FakeUpstream(MADE) as second:
        at(monkeypatch, "openai", first)
        at(monkeypatch, "tokenlab", second)
        folder = write("fallback.md", **addressed(port))
        with gateway(folder, port):
            explained = json.loads(run(folder / "explain.py"))
            assert "gpt-image-1.5" in json.dumps(explained)
            assert first.posts == second.posts == []
            answered, changed, images = run(folder / "ask.py").splitlines()
            assert (answered, images) == ("from tokenlab", "images 1")
            assert 'size;from="1920x1080";to="1920x1088"' in changed
        assert (len(first.posts), len(second.posts)) == (1, 1)


def test_tasks_and_webhooks(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver gets one genuine webhook with a link that works, and takes no forged one."""
    port, hooks = free_port(), free_port()
    with FakeUpstream(MADE) as provider:
        at(monkeypatch, "openai", provider)
        folder = write("tasks-and-webhooks.md", **addressed(port), **{"127.0.0.1:9000": f"127.0.0.1:{hooks}"})
        receiver = runpy.run_path(str(folder / "receiver.py"))
        with serving(receiver["app"], port=hooks), gateway(folder, port):
            assert run(folder / "ask.py").splitlines()[0] == "202 pending"
            until(lambda: bool(receiver["ended"]))
            (event,) = receiver["ended"]
            assert event["type"] == "task.completed"
            assert httpx.get(event["data"]["data"][0]["url"]).content == PICTURE
            forged = {"webhook-id": "x", "webhook-timestamp": "1", "webhook-signature": "v1,x"}
            assert httpx.post(f"http://127.0.0.1:{hooks}/hooks/images", headers=forged).status_code == 401
        assert len(provider.posts) == 1


def test_users_and_budgets(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images fit the budget; the third is refused and not sent, and the account says what was spent."""
    port = free_port()
    with FakeUpstream(MADE) as provider:
        at(monkeypatch, "openai", provider)
        folder = write("users-and-budgets.md", **addressed(port))
        app = runpy.run_path(str(folder / "service.py"))["app"]
        with serving(app, port=port):
            said = run(folder / "spend.py").splitlines()
            stranger = httpx.post(f"http://127.0.0.1:{port}/v1/images/generations", json={"prompt": "A cat"})
        assert said[:3] == ["made", "made", "402 insufficient_quota"]
        assert json.loads("\n".join(said[3:]))["name"] == "Bob"
        assert len(provider.posts) == 2
        assert stranger.status_code == 401
