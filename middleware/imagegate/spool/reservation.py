"""Room that has been promised."""

from __future__ import annotations

from collections.abc import Callable


class Reservation:
    """Room reserved until it is released.

    Args:
        release: gives the room back; called once.
    """

    def __init__(self, release: Callable[[], None] | None = None) -> None:
        self._release = release

    def release(self) -> None:
        """Give the room back, once however often this is called."""
        release, self._release = self._release, None
        if release is not None:
            release()
