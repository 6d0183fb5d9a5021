"""Access tokens that are renewed before they end: one renewal for all requests that wait for it."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from imagegate.config.callables import function_of
from imagegate.config.schema import CredentialConfig
from imagegate.errors import UpstreamUnreachable
from imagegate.logger import get_logger

_EARLY: Final = 300.0
"""Seconds before its end from which on a token is renewed, but no more than a fifth of its life."""
_LONGEST: Final = 10 * 365 * 86400.0


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """An access token as RFC 6749 section 5.1 has it."""

    access_token: str
    expires_in: float | None = None
    """Seconds; None: not said."""


class Credential:
    """The access token of an upstream.

    Args:
        load: gets a new token.
        lifetime: seconds that a token lasts where it does not say.
        timeout: seconds for `load`.
        clock: seconds since any moment.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[Token]],
        *,
        lifetime: float,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._lifetime = lifetime
        self._timeout = timeout
        self._clock = clock
        self._renewal: asyncio.Task[str] | None = None
        self._token = ""
        self._renew_at = self._ends_at = 0.0

    @property
    def secret(self) -> str:
        """The last token; empty before the first."""
        return self._token

    async def token(self) -> str:
        """Return a token that has not ended.

        Raises:
            UpstreamUnreachable: there is none, so nothing can be sent.
        """
        if self._token and self._clock() < self._renew_at:
            return self._token
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
        renewal = self._renewal
        try:
            return await asyncio.shield(renewal)  # others may wait for it when this request is cancelled
        except UpstreamUnreachable:
            if self._token and self._clock() < self._ends_at:
                return self._token
            raise

    def refused(self) -> None:
        """Forget the token, which the provider did not accept, so that the next request gets a new one."""
        self._renew_at = self._ends_at = 0.0

    async def _renew(self) -> str:
        started = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                token = await self._load()
        except Exception as error:
            get_logger().warning("credential not renewed", reason=f"{type(error).__name__}: {error}")
            raise UpstreamUnreachable(
                "The gateway has no valid credential for the provider.", code="credential_unavailable"
            ) from None
        lasts = self._lifetime if token.expires_in is None else max(0.0, min(token.expires_in, _LONGEST))
        self._token = token.access_token
        self._ends_at = started + lasts
        self._renew_at = self._ends_at - min(_EARLY, lasts / 5)
        return self._token


def credential_of(config: CredentialConfig) -> Credential:
    """Return the credential that a configuration describes. Raises `ConfigError`."""
    load = partial(_run, config.command) if config.command else partial(_call, function_of(config.callable))
    return Credential(load, lifetime=config.lifetime, timeout=config.timeout)


def read_token(text: str) -> Token:
    """Return the token that a program printed: JSON with ``access_token`` (or ``accessToken``), or nothing else.

    Raises:
        ValueError: it is none.
    """
    text = text.strip()
    if text.startswith("{"):
        document = msgspec.json.decode(text)
        if "accessToken" in document:  # az account get-access-token
            ends = document.get("expires_on")
            left = float(ends) - time.time() if ends is not None else None
            document = {"access_token": document["accessToken"], "expires_in": left}
        token = msgspec.convert(document, Token, strict=False)
    else:
        token = Token(access_token=text)
    if not re.fullmatch(r"[!-~]+", token.access_token):
        raise ValueError("what was printed is no token")
    return token


async def _run(command: tuple[str, ...]) -> Token:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        raise OSError(f"{command[0]} ended with status {process.returncode}")
    return read_token(printed.decode())


async def _call(function: Callable[[], Any]) -> Token:
    found = await asyncio.to_thread(function) if not inspect.iscoroutinefunction(function) else function()
    if inspect.isawaitable(found):
        found = await found
    return read_token(found if isinstance(found, str) else msgspec.json.encode(found).decode())
