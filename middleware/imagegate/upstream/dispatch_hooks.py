"""Who must know about a paid POST: before it goes out, and when the provider has made a task of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from imagegate.protocol.reply_tasks import PendingTask

SENDING: Final = "imagegate.sending"
"""Scope key of a tuple of `SendingWatcher`; one that raises keeps the POST back."""
TASK: Final = "imagegate.task"
"""Scope key of a `TaskListener`."""


class Sending(msgspec.Struct, frozen=True):
    """A POST that is about to go out."""

    upstream: str = ""
    expects_task: bool = False
    """Whether the provider is known to answer this request with a task."""
    model: str = ""
    """As the provider calls it."""


SendingWatcher = Callable[[Sending], Awaitable[None]]
TaskListener = Callable[[str, int, PendingTask], Awaitable[bool]]
"""Called with upstream, number of images and task once the provider has accepted it; true: the listener polls it
itself, so there will be no reply."""
