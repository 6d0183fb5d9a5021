"""Clients of the simulators, for the simulators' own tests."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient


def client_of(app: Starlette, **headers: str) -> TestClient:
    """A client without a server."""
    return TestClient(app, headers={name.replace("_", "-"): value for name, value in headers.items()})


def mask(*, by: str, size: int = 64) -> bytes:
    """Its upper half is to be painted: transparent or white."""
    if by == "alpha":
        image = Image.new("RGBA", (size, size), (0, 0, 0, 255))
        image.paste((0, 0, 0, 0), (0, 0, size, size // 2))
    else:
        image = Image.new("L", (size, size), 0)
        image.paste(255, (0, 0, size, size // 2))
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def size_of_base64(text: str) -> tuple[int, int, str | None]:
    """Width, height and format of a picture."""
    with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
        return (*image.size, image.format)


def pictures_of(response: Any) -> list[str]:
    """The pictures of a reply in OpenAI's shape, as base64."""
    assert response.status_code == 200, response.text
    return [item["b64_json"] for item in response.json()["data"]]
