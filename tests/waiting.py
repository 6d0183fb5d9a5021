"""Waits for conditions that other threads and processes bring about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

_Found = TypeVar("_Found")

TIMEOUT: Final = 60.0
"""Seconds after which a condition counts as failed."""


def until(condition: Callable[[], _Found], *, what: str = "it") -> _Found:
    """Wait for a condition, and return its value; fail where it does not come about."""
    deadline = time.monotonic() + TIMEOUT
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.005)
    return found


async def async_until(condition: Callable[[], object], *, what: str = "it") -> None:
    """Wait for a condition that the event loop brings about; fail where it does not come about."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        await asyncio.sleep(0.005)
