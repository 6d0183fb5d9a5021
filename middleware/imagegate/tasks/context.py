"""What the creation of tasks and questions about them have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Scope

from imagegate.tasks.base import TaskStore
from imagegate.tasks.ids import TaskIds
from imagegate.tasks.providers import ProviderTasks
from imagegate.tasks.runner import TaskRunner


@dataclass(frozen=True, kw_only=True)
class TaskContext:
    """The tasks of one gateway, and how clients ask for them."""

    runner: TaskRunner
    """Runs tasks, and knows those at work in this process."""
    store: TaskStore
    """Keeps their records."""
    ids: TaskIds
    providers: ProviderTasks
    """Asks providers for tasks of theirs, and makes the ids of those."""
    retry_after: float
    """Seconds between two questions of a client, and between two to a provider, for one task."""
    public_url: Callable[[Scope], str]
    """Returns the URL of the image store, from the scope of a request."""
    prefix: str
    """Path of the API."""
