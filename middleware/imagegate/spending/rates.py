"""Limits of requests and images by time, and of requests at a time: what a store of them promises."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final, NamedTuple, Protocol

from imagegate.errors import ImagegateError, Overloaded
from imagegate.spending.accounts import Account
from imagegate.spending.windows import Use

_WORDS: Final = {
    "in_flight": "{most} requests at a time",
    "requests_per_minute": "{most} requests a minute",
    "images_per_minute": "{most} images a minute",
    "requests_per_day": "{most} requests a day",
    "images_per_day": "{most} images a day",
}
_FIELDS: Final = {
    kind: tuple(f"x-ratelimit-{word}-{kind}".encode() for word in ("limit", "remaining", "reset"))
    for kind in ("requests", "images")
}
_LONGEST_RETRY: Final = 60
"""Seconds after which no SDK should repeat a request by itself."""


class RateLimited(ImagegateError):
    """A limit of requests or images is reached; nothing was sent."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, use: Use, account: Account) -> None:
        whose = {"key": "Your key", "group": "Your group"}.get(account.kind, "The gateway")
        wait = max(1, ceil(use.reset))
        super().__init__(
            f"{whose} may have {_WORDS[use.limit].format(most=use.most)}. Retry in {wait} seconds.",
            headers=[(b"retry-after", str(wait).encode()), *rate_headers([use])],
        )
        if wait > _LONGEST_RETRY:
            self.headers.append((b"x-should-retry", b"false"))
        self.use = use

    @property
    def nothing_sent(self) -> bool:
        return True


class TooManyAccounts(Overloaded):
    """There are more accounts with limits than can be counted."""

    code = "limits_unavailable"

    def __init__(self) -> None:
        super().__init__("Limits cannot be counted at the moment. Retry later.", headers=[(b"retry-after", b"5")])

    @property
    def nothing_sent(self) -> bool:
        return True


class Admission(NamedTuple):
    """A request that was counted."""

    id: str
    accounts: tuple[str, ...]
    uses: Sequence[Use]
    """How far the limits are used up now."""


NOT_COUNTED: Final = Admission("", (), ())
"""Of a request that has no limits, or was counted before."""


class Rates(Protocol):
    """Counts requests and images of accounts."""

    async def admit(self, accounts: Sequence[Account], images: int) -> Admission:
        """Count a request against all accounts, or against none. Raises `RateLimited`."""
        ...

    async def leave(self, admission: Admission) -> None:
        """Count a request as ended."""
        ...

    async def maintain(self) -> None:
        """Tell that the requests of this process still run."""
        ...

    async def aclose(self) -> None:
        """Let go of it."""
        ...


def rate_headers(uses: Sequence[Use]) -> list[tuple[bytes, bytes]]:
    """Return ``x-ratelimit-*`` header fields: of requests and of images, for the limit that is nearest to its end."""
    headers: list[tuple[bytes, bytes]] = []
    for kind in ("requests", "images"):
        mine = [use for use in uses if use.limit.startswith(kind)]
        if not mine:
            continue
        use = mine[0] if len(mine) == 1 else min(mine, key=lambda use: (use.left / max(use.most, 1), -use.reset))
        limit, remaining, reset = _FIELDS[kind]
        headers.append((limit, b"%d" % use.most))
        headers.append((remaining, b"%d" % use.left))
        headers.append((reset, _duration(use.reset).encode()))
    return headers


def _duration(seconds: float) -> str:
    """Return seconds as OpenAI writes them: ``1s``, ``6m0s``, ``23h5m0s``."""
    whole = max(1, ceil(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
