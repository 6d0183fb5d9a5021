"""A limit of what is at work at the same time, of which a part may outlive the request that it began with."""

from __future__ import annotations

from typing import Final

PERMIT: Final = "imagegate.permit"
"""Scope key of the `Permit` of a request, for work that goes on without its client."""


class Permits:
    """As many permits as `count`."""

    def __init__(self, count: int, *, is_draining: bool = False) -> None:
        self.is_draining = is_draining
        """Whether no new requests are to be admitted."""
        self.left = count

    def take(self) -> Permit | None:
        """Return a permit that is held once; None: all are taken."""
        if self.left <= 0:
            return None
        self.left -= 1
        return Permit(self)


class Permit:
    """A place under the limit, counted until its last holder releases it."""

    __slots__ = ("_holders", "_permits")

    def __init__(self, permits: Permits) -> None:
        self._permits = permits
        self._holders = 1

    def hold(self) -> None:
        """Hold it once more."""
        self._holders += 1

    def release(self) -> None:
        """Hold it once less."""
        self._holders -= 1
        if not self._holders:
            self._permits.left += 1
