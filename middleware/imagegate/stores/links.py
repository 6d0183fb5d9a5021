"""Links to stored pictures: signed, and valid for a time."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from functools import cache
from urllib.parse import parse_qs, urlencode

from imagegate.stores.clock import Clock


class Links:
    """Makes and checks links of the form ``BASE/KEY?expires=UNIX&signature=HEX``.

    Args:
        secret: gives what signs key and expiry (HMAC-SHA256); asked once.
        ttl: seconds that a link is good for.
        clock: source of the time.
    """

    def __init__(self, secret: Callable[[], bytes], *, ttl: float, clock: Clock = time) -> None:
        self.secret = cache(secret)
        self._is_ready = False
        self._clock = clock
        self._ttl = ttl

    async def prepare(self) -> None:
        """Ask for the secret, in a thread: it may have to be read from a disk. Raises what that raises."""
        if not self._is_ready:
            await asyncio.to_thread(self.secret)
            self._is_ready = True

    def link(self, base: str, key: str) -> str:
        """Return a link to `key` below `base`, the public URL of the store."""
        expires = int(self._clock.time() + self._ttl)
        query = urlencode({"expires": expires, "signature": self._signature(key, expires)})
        return f"{base.rstrip('/')}/{key}?{query}"

    def holds(self, key: str, query_string: bytes) -> bool:
        """Return whether the query of a request for `key` has a valid signature and has not expired."""
        try:
            query = parse_qs(query_string.decode("ascii", "replace"), max_num_fields=16)
        except ValueError:
            return False
        expires, signature = query.get("expires", [""])[-1], query.get("signature", [""])[-1]
        if not (expires.isascii() and expires.isdecimal() and len(expires) <= 12):
            return False
        genuine = hmac.compare_digest(self._signature(key, int(expires)).encode(), signature.encode())
        return genuine and int(expires) >= self._clock.time()

    def _signature(self, key: str, expires: int) -> str:
        return hmac.new(self.secret(), f"{key}\n{expires}".encode(), hashlib.sha256).hexdigest()
