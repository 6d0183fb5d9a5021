"""A reply's body on its way in, from aiohttp."""

from __future__ import annotations

import asyncio

import aiohttp

from imagegate.http.messages import CHUNK, Interrupted
from imagegate.http.transports.attempt import Attempt
from imagegate.http.transports.failures import as_interrupted

_LOOK = 1.0
"""Seconds after which a waiting reader looks whether there still is a connection: aiohttp does not wake it when a chunk
is malformed, nor when the session is closed."""


class ReplyBody:
    """Pieces of at most `CHUNK` bytes as they come. Closing it early drops the connection."""

    def __init__(self, response: aiohttp.ClientResponse, attempt: Attempt) -> None:
        self._response = response
        self._content = response.content
        self._has_length = "Content-Length" in response.headers
        self._timeouts = attempt.timeouts
        self._attempt: Attempt | None = attempt
        self._is_unread = True

    def __aiter__(self) -> ReplyBody:
        return self

    async def __anext__(self) -> bytes:
        while not self._content.at_eof():
            try:
                if self._is_unread:  # a small reply is there with its head, and needs no timer
                    self._is_unread = False
                    piece = self._content.read_nowait(CHUNK)
                else:
                    piece = await self._read()
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                raise as_interrupted(exc, self._timeouts, in_body=True) from exc
            if piece:
                return piece
        raise StopAsyncIteration

    async def _read(self) -> bytes:
        left = self._timeouts.read
        while True:
            alarm = asyncio.timeout(min(_LOOK, left))
            try:
                async with alarm:
                    if self._has_length:
                        return (await self._content.readchunk())[0]  # what the socket gave; no copying
                    return await self._content.read(CHUNK)  # puts small chunks together
            except TimeoutError:
                if not alarm.expired():
                    raise
            left -= _LOOK
            if left <= 0:
                raise Interrupted(f"the reply stopped for {self._timeouts.read:g} s", timed_out=True)
            if self._attempt is not None and self._attempt.is_closing:
                raise Interrupted("connection closed before the reply was complete")

    async def aclose(self) -> None:
        """Give the connection back, or drop it where the reply is unread or the request still goes out."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        response, upload = self._response, attempt.upload
        if response.content.at_eof() and (upload is None or upload.is_complete):
            response.release()
        elif response.connection is None:  # it serves others already
            attempt.cancel_upload()
        else:
            attempt.drop()
            response.close()
