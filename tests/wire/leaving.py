"""A client that hangs up when a condition holds, not after some time: a busy machine takes longer."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import httpx
from tests.waiting import TIMEOUT, until


def leave_once(when: Callable[[], object], url: str, **request: Any) -> None:
    """Send a POST as httpx does, and hang up once a condition holds."""
    posted = httpx.Request("POST", url, **request)
    head = [f"POST {posted.url.raw_path.decode()} HTTP/1.1", *(f"{k}: {v}" for k, v in posted.headers.items()), "", ""]
    with socket.create_connection((posted.url.host, posted.url.port or 80), timeout=TIMEOUT) as connection:
        connection.sendall("\r\n".join(head).encode() + posted.read())
        until(when)
