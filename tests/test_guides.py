"""The code of the guides works: files are taken from the pages and run."""

from __future__ import annotations

import importlib
import re
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from imagegate.registry import load_adapter
from imagegate.testing import Answer, FakeUpstream, png

pytestmark = pytest.mark.server

GUIDES = Path(__file__).parent.parent / "docs" / "guides"
MADE = Answer(document={"created": 1, "data": [{"b64_json": b64encode(png(16, 16)).decode()}]})
CONFIG = '[[upstreams]]\nname = "openai"\napi_key = "key"\n\n[delivery]\nstore = "memory://"\n'


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Write the files of a guide to where they can be imported, and forget them afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "imagegate.toml").write_text(CONFIG)
    before = set(sys.modules)

    def write(page: str) -> None:
        text = (GUIDES / page).read_text("utf-8")
        for name, content in re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL):
            (tmp_path / name).write_text(content, "utf-8")

    yield write
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUpstream]:
    with FakeUpstream(MADE) as started:
        monkeypatch.setattr(type(load_adapter("openai")), "base_url", started.url)
        yield started


def ask(app: Any, **request: Any) -> None:
    with TestClient(app) as client:
        assert client.post("/v1/images/generations", **request).status_code == 200


def test_hook(modules: Callable[[str], None], provider: FakeUpstream) -> None:
    """The hook has a row for each exchange that made something."""
    modules("extend.md")
    service = importlib.import_module("service")
    ask(service.app, json={"model": "gpt-image-1.5", "prompt": "A kite"})
    row = service.billing.rows.get(timeout=5)
    assert (row["model"], row["upstream"], row["images"], row["outcome"]) == ("gpt-image-1.5", "openai", 1, "ok")


@pytest.mark.parametrize("kind", ["json", "form"])
def test_layer(kind: str, modules: Callable[[str], None], provider: FakeUpstream) -> None:
    """The layer changes prompts of JSON and of forms."""
    modules("extend.md")
    fields = {"model": "gpt-image-1.5", "prompt": "A kite"}
    form = {name: (None, value) for name, value in fields.items()}
    ask(importlib.import_module("styled").app, **({"json": fields} if kind == "json" else {"files": form}))
    assert provider.posts[0].json["prompt"] == "A kite, as a woodcut"


def test_tests_of_a_service(modules: Callable[[str], None]) -> None:
    """The tests that the guide shows pass."""
    modules("testing.md")
    shown = importlib.import_module("test_service")
    tests = [value for name, value in vars(shown).items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()
