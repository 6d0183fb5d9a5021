"""What a task store is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from imagegate.errors import ImagegateError, RequestError
from imagegate.tasks.records import TaskRecord


class TaskStore(Protocol):
    """Keeps tasks for a time, bounded, and knows which process holds each of those that are at work.

    A process holds a task from `add` or `abandoned` until it is over or another process has taken it. Only the holder
    may change a task, so one that was thought dead cannot send what another one has taken over.

    Every method raises `StoreUnavailable` where the store cannot be reached; what it was to do may be done or not, and
    may be asked for again.
    """

    is_shared: bool
    """Whether other processes see the same tasks."""

    async def add(self, record: TaskRecord) -> None:
        """Keep a new task, which is held by this process."""
        ...

    async def mark_sent(self, record: TaskRecord) -> bool:
        """To be called before a POST goes out; False: the task is not this process's any more, so nothing may go."""
        ...

    async def note(self, record: TaskRecord) -> None:
        """Keep what has become known of a task at work: the provider's task."""
        ...

    async def finish(self, record: TaskRecord) -> bool:
        """End a task; False: it had ended already, or is another process's.

        A task that another process has ended as `TaskRecord.is_unknown` is ended once more by who knows its end.

        It stays held while its webhook is due (`TaskRecord.callback_url` without ``told``). A task that
        the store does not know, because it lost its memory or the task is a provider's, is kept from now on.
        """
        ...

    async def discard(self, record: TaskRecord) -> None:
        """Delete a task whose id no client has received."""
        ...

    async def cancel(self, record: TaskRecord) -> bool:
        """End a task as `record`, whichever process holds it, if nothing was sent. Return whether it was ended."""
        ...

    async def get(self, number: str) -> TaskRecord | None:
        """Return a task; None: there is none. Raises `TaskUnreadable`."""
        ...

    async def renew(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        """Renew the leases of these tasks with all that this process knows of them.

        Return the numbers of those that belong to another process. A task that was sent from here, and whose outcome no
        other process can learn, does not.
        """
        ...

    async def has_forgotten(self) -> bool:
        """Return whether the store may have forgotten tasks since they were renewed last."""
        ...

    async def release(self, record: TaskRecord) -> None:
        """Give a task up, so that another process takes it at once."""
        ...

    async def abandoned(self) -> Sequence[TaskRecord]:
        """Take over tasks of processes that are dead."""
        ...

    async def aclose(self) -> None: ...


class TaskNotFound(ImagegateError):
    """The task does not exist, or the id is forged, expired or another client's: all get the same answer."""

    status = 404
    type = "invalid_request_error"
    code = "task_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such task, or it is no longer available.", param="task_id")


class TaskUnreadable(ImagegateError):
    """Its record cannot be read here: it is of a newer gateway, as while a new version is rolled out, or damaged."""

    status = 503
    code = "task_unreadable"

    def __init__(self) -> None:
        super().__init__(
            "The record of the task cannot be read by this version of the gateway.", headers=[(b"retry-after", b"5")]
        )


class TaskNotCancellable(RequestError):
    """It is at the provider, or over."""

    status = 409
    code = "task_not_cancellable"
