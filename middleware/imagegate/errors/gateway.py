"""Errors of the gateway itself: it has no room, does not take or deliver images, or is shutting down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imagegate.errors.base import ImagegateError


class Overloaded(ImagegateError):
    """The limit of concurrent requests, or of their memory, is reached."""

    status = 503
    type = "server_error"
    code = "overloaded"


class ModerationUnavailable(Overloaded):
    """The application's moderation could not be asked, so nothing was sent."""

    code = "moderation_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The request cannot be checked at the moment, so nothing was sent. Retry later.",
            headers=[(b"retry-after", b"5")],
        )

    @property
    def nothing_sent(self) -> bool:
        return True


class ShuttingDown(Overloaded):
    """The gateway is shutting down and accepts no new requests; another process will answer.

    Args:
        more: headers of the answer beside Retry-After.
    """

    code = "shutting_down"

    def __init__(self, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__("The gateway is shutting down. Retry in a moment.", headers=[(b"retry-after", b"1"), *more])


class NoRoom(Overloaded):
    """There is no room for the images that would be made, so nothing was sent."""

    code = "no_room"

    def __init__(self) -> None:
        super().__init__(
            "The gateway has no room for the images, so nothing was sent. Retry later.",
            headers=[(b"retry-after", b"10")],
        )

    @property
    def nothing_sent(self) -> bool:
        return True


class ImageStoreUnavailable(NoRoom):
    """The store does not take images at the moment, so nothing was sent."""

    code = "store_unavailable"

    def __init__(self) -> None:
        super().__init__()
        self.message = "The gateway's image store cannot be used, so nothing was sent. Retry later."


class StorageError(ImagegateError):
    """The pictures were made, but the store did not take them; base64 is never sent in a link's place."""

    status = 502
    code = "storage_failed"


class FetchError(ImagegateError):
    """The provider answered with a link that could not be read."""

    status = 502
    code = "image_fetch_failed"


class ContentWithheld(ImagegateError):
    """The application's moderation withholds images that were made, and are paid for."""

    status = 400
    type = "invalid_request_error"
    code = "content_policy_violation"

    def __init__(self, message: str, **kwargs: Any) -> None:
        # The official SDKs repeat 5xx by themselves, which would pay a second time.
        super().__init__(message, headers=[(b"x-should-retry", b"false")], **kwargs)
