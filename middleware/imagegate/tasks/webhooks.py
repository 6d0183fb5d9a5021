"""Webhooks: a POST to the ``callback_url`` of a finished task.

The request is signed as the Standard Webhooks specification says: ``webhook-id`` is the same for every try of one
event, ``webhook-timestamp`` is Unix time in seconds, and ``webhook-signature`` is ``v1,`` and the base64 of the
HMAC-SHA256 of ``ID.TIMESTAMP.BODY``. Delivery is at least once; receivers recognize a repetition by its id.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import random
import time
from typing import Final

from imagegate.errors import ConfigError, Overloaded, RequestError
from imagegate.http.guarded_fetch import FetchBusy, Fetcher, FetchFailed, FetchRefused
from imagegate.logger import get_logger
from imagegate.protocol.references import check_link

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0


class Webhooks:
    """Sign and send webhooks.

    Args:
        fetcher: connects to public addresses only.
        secret: ``whsec_`` and base64 of the key, or the key itself; empty: callbacks are refused.
        attempts: most requests for one event.
        pause: seconds before the second attempt; each later pause is twice as long.

    Raises:
        ConfigError: the secret cannot be read.
    """

    def __init__(self, fetcher: Fetcher, *, secret: str, attempts: int, pause: float = _FIRST_PAUSE) -> None:
        self._fetcher = fetcher
        self._key = signing_key(secret) if secret else b""
        self._attempts = attempts
        self._pause = pause

    async def check(self, url: object) -> str:
        """Check a client's ``callback_url`` and resolve its host.

        Raises:
            RequestError: callbacks are not configured, or the URL is not allowed.
            Overloaded: too many lookups are running.
        """
        if not self._key:
            raise RequestError(
                "Callbacks are not set up here: tasks.callback_secret is not set. Ask for the task instead.",
                param="callback_url",
                code="unsupported_parameter",
            )
        check_link("callback_url", url)
        try:
            await self._fetcher.check(str(url))
        except FetchRefused as error:
            raise RequestError(
                f"'callback_url' may not be called: {error}.", param="callback_url", code="invalid_url"
            ) from error
        except FetchBusy as error:
            raise Overloaded(f"'callback_url' was not checked: {error}.", headers=[(b"retry-after", b"5")]) from error
        except FetchFailed as error:
            raise RequestError(
                f"'callback_url' cannot be called: {error}.", param="callback_url", code="invalid_url"
            ) from error
        return str(url)

    async def send(self, url: str, event_id: str, body: bytes) -> bool:
        """Send a webhook until it is answered with a 2xx. Return False where it is given up."""
        pause, reason = self._pause, ""
        for attempt in range(1, self._attempts + 1):
            try:
                status = await self._fetcher.post(url, body, self._headers(event_id, body))
                if 200 <= status < 300:
                    return True
                reason = f"answered {status}"
            except FetchRefused as error:  # it was allowed when the task was made
                get_logger().warning("a webhook is refused", webhook_id=event_id, reason=str(error))
                return False
            except FetchFailed as error:
                reason = str(error)
            if attempt < self._attempts:
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
                pause = min(pause * 2, _LONGEST_PAUSE)
        get_logger().warning("a webhook is given up", webhook_id=event_id, reason=reason)
        return False

    def _headers(self, event_id: str, body: bytes) -> list[tuple[str, str]]:
        timestamp = str(int(time.time()))
        return [
            ("Content-Type", "application/json"),
            ("webhook-id", event_id),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", signature(self._key, event_id, timestamp, body)),
        ]


def signing_key(secret: str) -> bytes:
    """Return the key of a secret. Raises `ConfigError` where it cannot be read."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("tasks.callback_secret: what follows 'whsec_' is no base64") from None


def signature(key: bytes, event_id: str, timestamp: str, body: bytes) -> str:
    """Return the value of ``webhook-signature``."""
    signed = hmac.digest(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(signed).decode()
