"""A client that keeps silent in the middle of a body is not waited for; a slow one is."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message
from tests.virtual_time import run

from imagegate.asgi.helpers import receive_with_timeout
from imagegate.errors import RequestTimeout


def test_a_slow_client_is_waited_for_and_a_silent_one_is_not() -> None:
    """What counts is the silence before one piece, however long the body takes."""

    async def receive() -> Message:
        await asyncio.sleep(pauses.pop(0))
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def work() -> None:
        async with receive_with_timeout(receive, silence=1.5) as receive_in_time:
            while True:
                await receive_in_time()

    pauses = [0.4] * 6 + [60.0]
    with pytest.raises(RequestTimeout) as caught:
        run(work())
    assert caught.value.status == 408
    assert pauses == []


def test_what_takes_long_beside_receiving_is_not_the_clients_fault() -> None:
    """A disk that hangs is an error of ours."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def work() -> None:
        async with receive_with_timeout(receive, silence=0.1) as receive_in_time:
            await receive_in_time()
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        run(work())
