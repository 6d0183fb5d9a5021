"""The error of a store of tasks or answers that cannot be reached."""

from __future__ import annotations

from imagegate.errors import ImagegateError


class StoreUnavailable(ImagegateError):
    """The task store, or the one of replies, cannot be reached. Nothing was sent."""

    status = 503
    code = "task_store_unavailable"

    def __init__(self, message: str = "The gateway's task store cannot be reached. Retry in a moment.") -> None:
        super().__init__(message, headers=[(b"retry-after", b"1")])
