"""Tasks that take time: a clock decides where each one is, nothing runs in the background."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

Phase = Literal["waiting", "running", "finished"]

KEPT_TASKS: Final = 5000
"""Tasks that one stand-in remembers; the oldest are lost first, as with the real ones."""

WAITING_SHARE: Final = 1 / 3
"""The part of a task's time in which it is queued."""


@dataclass(slots=True)
class Task:
    """One task: whose it is, what it will have made, and when (`started` by its clock)."""

    id: str
    owner: str
    model: str
    created: int
    """Unix time in seconds, as replies carry it."""

    clock: Callable[[], float]
    started: float
    seconds: float
    links: tuple[str, ...]
    """Paths of the finished images; they work from the start, as no client knows them before."""

    failure: str | None = None
    """Why the task will have failed, once it is finished; None for one that succeeds."""

    cancelled: bool = False

    def done(self) -> float:
        """Return how much of the task is done by now, 0..1."""
        if self.cancelled or self.seconds <= 0:
            return 1.0
        return min(1.0, max(0.0, (self.clock() - self.started) / self.seconds))

    def phase(self) -> Phase:
        """Return where the task is now."""
        done = self.done()
        if done >= 1.0:
            return "finished"
        return "running" if done >= WAITING_SHARE else "waiting"


class TaskBoard:
    """The tasks of one stand-in. A task belongs to the key that made it; others do not find it.

    `seconds` is the time that a task takes by `clock`, and `kept` how many tasks are remembered.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic, kept: int = KEPT_TASKS) -> None:
        self._seconds = seconds
        self._clock = clock
        self._kept = kept
        self._tasks: OrderedDict[str, Task] = OrderedDict()

    def add(self, task_id: str, *, owner: str, model: str, links: tuple[str, ...], failure: str | None) -> Task:
        """Return a new task that starts now."""
        task = Task(task_id, owner, model, int(time.time()), self._clock, self._clock(), self._seconds, links, failure)
        self._tasks[task_id] = task
        while len(self._tasks) > self._kept:
            self._tasks.popitem(last=False)
        return task

    def find(self, task_id: str, *, owner: str) -> Task | None:
        """Return the owner's task of that id."""
        task = self._tasks.get(task_id)
        return task if task is not None and task.owner == owner else None
