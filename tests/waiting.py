"""Waits for conditions that other threads and processes bring about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

TIMEOUT: Final = 60.0
"""Seconds after which a condition counts as failed."""


def until(condition: Callable[[], object], *, what: str = "it") -> None:
    """Wait for a condition; fail where it does not come about."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.005)
