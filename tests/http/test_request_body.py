"""A request's body while it goes out."""

from __future__ import annotations

import asyncio

import pytest

from imagegate.http.messages import Timeouts
from imagegate.http.transports.request_body import RequestBody


def test_a_piece_that_is_taken_when_the_time_is_over() -> None:
    """The deadline stays as it is: moving it then is an error of asyncio's, and would hide that the time is over."""

    async def send() -> None:
        loop = asyncio.get_running_loop()
        deadline = asyncio.timeout(None)
        body = RequestBody(b"ab", 2, Timeouts(), deadline)
        async with deadline:
            deadline.reschedule(loop.time())
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                assert [piece async for piece in body] == [b"ab"]
                raise

    with pytest.raises(TimeoutError):
        asyncio.run(send())
