"""The event loops that the HTTP client is tested with: asyncio's own, and uvloop, with which uvicorn runs it."""

from __future__ import annotations

from typing import Any

import pytest

LOOPS = (False, True)


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Each asynchronous test runs in both."""
    return "asyncio", {"use_uvloop": request.param}
