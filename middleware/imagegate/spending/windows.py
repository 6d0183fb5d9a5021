"""How many requests and images an account has had this minute and today. Pure: time is passed in.

Windows are those of the clock, in UTC: they begin with each minute and each day.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from imagegate.access.principal import Limits

MINUTE: Final = 60
DAY: Final = 86400
NEAR: Final = 0.8
"""The share of a limit from which on it counts as near."""

LimitName = Literal["requests_per_minute", "images_per_minute", "requests_per_day", "images_per_day", "in_flight"]
ORDER: Final[tuple[LimitName, ...]] = (
    "in_flight",
    "requests_per_minute",
    "images_per_minute",
    "requests_per_day",
    "images_per_day",
)
"""In which limits are checked, here as in Redis."""


class Use(NamedTuple):
    """How far one limit of an account is used up, with the request that was just admitted or refused."""

    account: str
    limit: LimitName
    most: int
    used: int
    reset: float
    """Seconds until it begins anew; for `in_flight` a guess."""

    @property
    def left(self) -> int:
        return max(0, self.most - self.used)

    @property
    def is_near(self) -> bool:
        return self.used >= self.most * NEAR


def has_rates(limits: Limits) -> bool:
    """Return whether requests or images are limited."""
    return not (
        limits.in_flight is None
        and limits.requests_per_minute is None
        and limits.images_per_minute is None
        and limits.requests_per_day is None
        and limits.images_per_day is None
    )


class Counts:
    """The counts of one account."""

    __slots__ = (
        "day",
        "images_per_day",
        "images_per_minute",
        "in_flight",
        "minute",
        "requests_per_day",
        "requests_per_minute",
    )

    def __init__(self) -> None:
        self.minute = self.day = 0
        self.in_flight = 0
        self.requests_per_minute = self.images_per_minute = 0
        self.requests_per_day = self.images_per_day = 0

    def move_to(self, now: float) -> None:
        """Begin the windows anew that have passed.

        A clock that is set back a little begins none anew, so that nothing of a window is forgotten; the current one
        then lasts as much longer. One that is set back by more than a window was wrong before.
        """
        if has_passed(minute := int(now // MINUTE), self.minute):
            self.minute, self.requests_per_minute, self.images_per_minute = minute, 0, 0
        if has_passed(day := int(now // DAY), self.day):
            self.day, self.requests_per_day, self.images_per_day = day, 0, 0

    def binds(self, limits: Limits, now: float) -> bool:
        """Return whether a limit is used up in part, so that forgetting the counts would give that back."""
        if self.in_flight:
            return True
        has_day = limits.requests_per_day is not None or limits.images_per_day is not None
        has_minute = limits.requests_per_minute is not None or limits.images_per_minute is not None
        in_day, in_minute = (
            not has_passed(int(now // size), at) for size, at in ((DAY, self.day), (MINUTE, self.minute))
        )
        return (has_day and in_day) or (has_minute and in_minute)

    def refusal(self, account: str, limits: Limits, images: int, now: float) -> Use | None:
        """Return the limit that one more request for `images` images would exceed."""
        for name in ORDER:
            most = getattr(limits, name)
            if most is not None and getattr(self, name) + step_of(name, images) > most:
                return Use(account, name, most, getattr(self, name), reset_of(name, now))
        return None

    def add(self, images: int) -> None:
        """Count a request."""
        self.in_flight += 1
        self.requests_per_minute += 1
        self.requests_per_day += 1
        self.images_per_minute += images
        self.images_per_day += images

    def uses(self, account: str, limits: Limits, now: float) -> list[Use]:
        """Return how far each limit is used up."""
        return [
            Use(account, name, most, getattr(self, name), reset_of(name, now))
            for name in ORDER
            if (most := getattr(limits, name)) is not None
        ]


def has_passed(now: int, window: int) -> bool:
    """Return whether a window is over, by the numbers of the present one and of the one that counts are of."""
    return now > window or now < window - 1


def step_of(name: LimitName, images: int) -> int:
    """Return by how much a request for `images` images counts against a limit."""
    return images if name.startswith("images") else 1


def reset_of(name: LimitName, now: float) -> float:
    """Return the seconds until a limit begins anew."""
    if name == "in_flight":
        return 1.0
    window = MINUTE if name.endswith("minute") else DAY
    return window - now % window
