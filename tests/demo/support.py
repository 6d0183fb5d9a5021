"""Helpers for the tests of the demo: clients with a right key, and pictures of a chosen kind."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

KEY = "sk-demo-tests"


def client_of(app: Starlette, *, key: str = KEY) -> TestClient:
    """A client of the app that sends the key, or no key where it is empty."""
    return TestClient(app, headers={"authorization": f"Bearer {key}"} if key else {})


def picture_file(width: int = 256, height: int = 256, *, mode: str = "RGBA", form: str = "PNG") -> bytes:
    """A real picture of that size in pixels."""
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 0).save(buffer, form)
    return buffer.getvalue()


def image_part(name: str = "image", data: bytes | None = None, media_type: str = "image/png") -> tuple[str, Any]:
    """A file part of a form, 256 x 256 pixels unless told otherwise."""
    return name, ("source.png", picture_file() if data is None else data, media_type)


def size_and_format(data: bytes) -> tuple[int, int, str | None]:
    """Width, height and format of a picture as its own head tells."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return (*image.size, image.format)


def decoded(entry: dict[str, Any]) -> bytes:
    """The picture in a `b64_json` member."""
    return base64.b64decode(entry["b64_json"], validate=True)


def error_of(response: Any) -> dict[str, Any]:
    """The `error` object of a reply."""
    error = response.json()["error"]
    assert isinstance(error, dict)
    return error
