"""``imagegate demo --once``, as a process and with a provider that misbehaves."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from imagegate.cli.commands import main
from imagegate.config.loader import load_config
from imagegate.demo.providers import tokenbay
from imagegate.demo.requests import REQUESTS
from imagegate.demo.servers import PROVIDERS

pytestmark = pytest.mark.server


def test_demo_as_a_process(tmp_path: Path) -> None:
    """The demo needs no key and no network, ends by itself with code 0, and leaves pictures, links and a sheet."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    done = subprocess.run(
        [sys.executable, "-m", "imagegate", "demo", "--once", "--port", "0", "--out", "out"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert f"{len(REQUESTS)} of {len(REQUESTS)} requests went as they should." in done.stdout
    assert "WRONG" not in done.stdout
    labels = "".join(rf"\n    {label:<8} .*" for label in ("asked", "sent", "changed", "picture"))
    blocks = re.findall(rf"^ ?\d+\. .*{labels}$", done.stdout, re.MULTILINE)
    assert len(REQUESTS) == len(blocks)
    assert set(tmp_path.iterdir()) == {tmp_path / "out"}
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        sheet.load()
        assert sheet.format == "PNG"
    pictures = sorted((tmp_path / "out" / "pictures").iterdir())
    made = sum(request.arguments.get("n", 1) for request in REQUESTS if not request.refused and not request.code)
    assert made == len(pictures)
    for picture in pictures:
        with Image.open(io.BytesIO(picture.read_bytes())) as image:
            image.verify()
    links = re.findall(r"file://(\S+)", done.stdout)
    assert sorted(map(Path, links)) == pictures  # the servers are gone, so nothing else is there to be seen
    assert len({picture.read_bytes() for picture in pictures}) == len(pictures)
    assert len(load_config(tmp_path / "out" / "imagegate.toml").upstreams) == len(PROVIDERS)


def test_demo_on_a_port_that_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that is taken is no failure: the demo takes another and says which."""
    monkeypatch.setattr("imagegate.demo.run.REQUESTS", REQUESTS[1:2])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--once", "--port", str(port), "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"127.0.0.1:{port}/v1" not in out
    assert re.search(r"Gateway at http://127\.0\.0\.1:\d+/v1", out)


def broken(**options: Any) -> Starlette:
    """A provider that has nothing but errors."""

    async def fail(request: Any) -> JSONResponse:
        return JSONResponse({"error": {"message": "Out of order.", "code": "broken"}}, 500)

    app = Starlette(routes=[Route("/{path:path}", fail, methods=["GET", "POST"])])
    app.state.received, app.state.requests_seen = [], 0
    return app


def greedy(**options: Any) -> Starlette:
    """A provider that makes its own out of every prompt, so that nothing is refused for its content."""
    app = tokenbay.create_app(**options)
    inner = app.middleware_stack = app.build_middleware_stack()

    async def tame(scope: Any, receive: Any, send: Any) -> None:
        async def rewritten() -> Any:
            message = await receive()
            body = message.get("body", b"").replace(b"forbidden", b"permitted")
            return {**message, "body": body} if message["type"] == "http.request" else message

        await inner(scope, rewritten, send)

    app.middleware_stack = tame
    return app


@pytest.mark.parametrize(
    ("provider", "misbehaving", "complaint"),
    [
        ("onetoken", broken, "WRONG    refused: Out of order."),
        ("tokenbay", greedy, "WRONG    answered with a picture instead of an error"),
    ],
)
def test_demo_with_a_provider_that_misbehaves(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    misbehaving: Any,
    complaint: str,
) -> None:
    """A provider that does not do what it should is named, and the code is 1; the sheet is made all the same."""
    mine = tuple(request for request in REQUESTS if request.model.startswith(provider))
    monkeypatch.setattr("imagegate.demo.run.REQUESTS", mine)
    monkeypatch.setitem(PROVIDERS, provider, misbehaving)
    assert main(["demo", "--once", "--port", "0", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert complaint in out
    assert f"{len(mine) - 1} of {len(mine)} requests went as they should." in out
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.format == "PNG"
