"""A gateway in front of a simulator, both on real sockets, and the official SDK in front of that."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
from PIL import Image
from starlette.applications import Starlette
from tests.wire.edit_support import Tap

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving


@dataclass
class Setting:
    """One server behind one gateway."""

    client: openai.OpenAI
    raw: httpx.Client
    server: Starlette
    tap: Tap
    model: str

    def forget(self) -> None:
        """Forget what the server was sent, and what it noted."""
        self.tap.posts.clear()
        for name in ("dropped", "repainted", "references", "prompts", "sources"):
            getattr(self.server.state, name, []).clear()

    @property
    def sent(self) -> Any:
        """The body of the last POST to the server."""
        return self.tap.posts[-1].json

    def generate(self, **fields: Any) -> Any:
        """What the SDK makes of a generation."""
        return self.client.images.generate(model=self.model, **{"prompt": "a cat", **fields})

    def edit(self, *images: bytes, **fields: Any) -> Any:
        """What the SDK makes of an edit."""
        files = [(f"{place}.png", image, "image/png") for place, image in enumerate(images)]
        chosen: Any = files[0] if len(files) == 1 else files
        return self.client.images.edit(model=self.model, image=chosen, **{"prompt": "a cat", **fields})

    def changes(self, **fields: Any) -> str:
        """What the gateway discloses of a generation."""
        body = {"model": self.model, "prompt": "a cat", **fields}
        reply = self.raw.post("/images/generations", json=body)
        assert reply.status_code == 200, reply.text
        return reply.headers.get("imagegate-changes", "")

    def explained(self, **fields: Any) -> Any:
        """What would be sent for a generation."""
        body = {"model": self.model, "prompt": "a cat", **fields}
        return self.raw.post("/images/generations", json=body, headers={"imagegate-explain": "?1"}).json()


@contextmanager
def setting(
    folder: Path,
    app: Starlette,
    adapter: str,
    *,
    model: str = "model",
    more: str = "",
    rest: str = "",
    path: str = "",
) -> Generator[Setting]:
    """Serve a simulator and a gateway in front of it.

    Args:
        more: further keys of the upstream.
        rest: of the configuration.
        path: in front of the server's own.
    """
    tap = Tap(app)
    with serving(tap) as port:
        source = f"""
            [[upstreams]]
            name = "own"
            adapter = "{adapter}"
            base_url = "http://127.0.0.1:{port}{path}"
            {more}
            [delivery]
            store = "file://{(folder / "images").as_posix()}"
            [tasks]
            poll_interval = "20ms"
            deadline = "20s"
            [policy]
            retries = 0
            {rest}
        """
        config = parse_config(source, environment={}, directory=folder)
        with (
            serving(ImageGateway(config=config, hooks=())) as own,
            openai.OpenAI(base_url=f"http://127.0.0.1:{own}/v1", api_key="sk-clients", max_retries=0) as client,
            httpx.Client(base_url=f"http://127.0.0.1:{own}/v1", timeout=60) as raw,
        ):
            yield Setting(client, raw, app, tap, f"own/{model}")


def contents(response: Any) -> list[bytes]:
    """The pictures of a reply, whichever form they have."""
    found: list[bytes] = []
    for item in response.data or []:
        if item.url:
            with urllib.request.urlopen(item.url, timeout=30) as reply:
                found.append(reply.read())
        else:
            found.append(base64.b64decode(item.b64_json, validate=True))
    return found


def sizes(response: Any) -> list[tuple[int, int]]:
    """Width and height of each picture."""
    return [Image.open(io.BytesIO(content)).size for content in contents(response)]


def form_of(content: bytes) -> str | None:
    """PNG, JPEG or WEBP."""
    return Image.open(io.BytesIO(content)).format


def streamed(stream: Any) -> list[bytes]:
    """The finished pictures of a stream."""
    events = list(stream)
    return [base64.b64decode(event.b64_json) for event in events if event.type.endswith(".completed")]


def problem(call: Any) -> dict[str, Any]:
    """The error that a call of the SDK raises, with its status."""
    try:
        call()
    except openai.APIStatusError as error:
        body: Any = error.body
        return {"status": error.status_code, **body}
    raise AssertionError("there was no error")


def form_fields(post: Any) -> dict[str, str]:
    """The text parts of a form."""
    return {part.name: part.content.decode() for part in post.parts if part.filename is None}


def as_json(text: str) -> Any:
    return json.loads(text)
