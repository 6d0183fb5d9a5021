"""What happened to a request: gathered on the way, told once at the end, as one frozen record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import msgspec

from imagegate.changes import Change

PROGRESS_KEY: Final = "imagegate.progress"
"""Scope key of the `Progress`; the outermost layer puts it there and answers the errors of all others."""

Form = Literal["url", "b64_json", "unchanged"]


@dataclass(slots=True)
class Progress:
    """One exchange while it runs. Layers write down what they did; nothing reads it but the outermost one."""

    endpoint: str
    request_id: str = ""
    model: str = ""
    upstream: str = ""
    upstream_model: str = ""
    upstream_request_id: str = ""
    contract: bool = True
    """Whether the model's contract was known."""
    images_asked: int = 0
    images_delivered: int = 0
    form: Form | None = None
    explained: bool = False
    attempts: int = 0
    """POSTs that were sent upstream."""
    polls: int = 0
    upstream_seconds: float = 0.0
    delivery_seconds: float = 0.0
    route_changes: tuple[Change, ...] = ()
    fit_changes: tuple[Change, ...] = ()
    reference_changes: tuple[Change, ...] = ()
    reply_changes: tuple[Change, ...] = ()
    error_code: str = field(default="")
    outcome: str = ""
    """Of a failed upstream call: ``not_sent``, ``rejected`` or ``uncertain``."""

    @property
    def changes(self) -> tuple[Change, ...]:
        all_changes = (*self.route_changes, *self.fit_changes, *self.reference_changes, *self.reply_changes)
        # The parts of a split request all change in the same way.
        return tuple(change for place, change in enumerate(all_changes) if change not in all_changes[:place])


class ExchangeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange that has ended."""

    request_id: str
    endpoint: str
    """``generations``, ``edits``, ``variations`` or ``models``."""
    status: int
    """HTTP status of the answer; 499 where the client left first."""
    seconds: float
    upstream_seconds: float
    delivery_seconds: float
    model: str
    """As the client asked for it."""
    upstream: str
    upstream_model: str
    upstream_request_id: str
    contract: bool
    images_asked: int
    images_delivered: int
    form: Form | None
    explained: bool
    attempts: int
    polls: int
    changes: tuple[Change, ...]
    error_code: str
    outcome: str


class Hook(Protocol):
    """Somebody who wants to know; must not block or raise."""

    def exchange_ended(self, record: ExchangeRecord) -> None:
        """Called once for each exchange, after the answer was sent."""
        ...


def finish(progress: Progress, *, status: int, seconds: float) -> ExchangeRecord:
    """The record of an exchange that has ended."""
    names = set(ExchangeRecord.__struct_fields__) - {"status", "seconds"}
    return ExchangeRecord(status=status, seconds=seconds, **{name: getattr(progress, name) for name in names})
