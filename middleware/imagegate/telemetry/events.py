"""What happened to a request: gathered on the way, told once at the end, as one frozen record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

from imagegate.contracts.changes import Change
from imagegate.errors import ImagegateError, UpstreamError
from imagegate.protocol.usage import sum_usage
from imagegate.telemetry.logger import get_logger

if TYPE_CHECKING:
    from imagegate.telemetry.capture import Capture
    from imagegate.telemetry.metric_labels import Names

_Result = TypeVar("_Result")
PROGRESS_KEY: Final = "imagegate.progress"
"""Scope key of the `Progress`; the outermost layer puts it there and answers the errors of all others."""

ResponseFormat = Literal["url", "b64_json", "unchanged"]
Idempotent = Literal["", "joined", "replayed"]
BreakerState = Literal["closed", "open", "half_open"]
CallOutcome = Literal["ok", "not_sent", "rejected", "uncertain", "cancelled"]
"""Of one POST; the three in the middle as in `imagegate.errors.Outcome`."""
OutcomeClass = Literal[
    "ok",
    "explained",
    "invalid",
    "denied",
    "overloaded",
    "moderated",
    "rejected",
    "not_sent",
    "uncertain",
    "storage_failed",
    "client_left",
    "internal",
]
"""What became of an exchange, in the one word that metrics, logs and the console share."""


class UpstreamCall(msgspec.Struct, frozen=True):
    """One paid POST to a provider, with the wait for its task."""

    upstream: str
    model: str
    outcome: CallOutcome
    seconds: float


@dataclass(slots=True)
class Progress:
    """One exchange while it runs. Layers write down what they did; nothing reads it but the outermost one."""

    endpoint: str
    request_id: str = ""
    traceparent: str = ""
    """W3C Trace Context of the exchange, to be sent upstream; empty: the client sent none."""
    key_name: str = ""
    """Name of the client's key; never the key."""
    model: str = ""
    """As the client asked for it."""
    route: str = ""
    """The same where a route of the configuration has that name."""
    upstream: str = ""
    upstream_model: str = ""
    upstream_request_id: str = ""
    contract: bool = True
    """Whether the model's contract was known."""
    images_asked: int = 0
    images_made: int = 0
    """Pictures that the provider answered with, delivered or not."""
    images_delivered: int = 0
    stored_images: int = 0
    """Pictures that were written to the store, references that a provider is to load among them."""
    form: ResponseFormat | None = None
    size_asked: str = ""
    """``size`` as the client wrote it."""
    sizes_made: tuple[str, ...] = ()
    """Of the pictures, as far as they were seen: ``1536x1024``."""
    usage: Mapping[str, Any] | None = None
    """Token counts as the provider's reply has them."""
    explained: bool = False
    """Whether the client only wanted to look (`Imagegate-Explain`)."""
    streamed: bool = False
    attempts: int = 0
    """POSTs that were sent upstream."""
    calls: list[UpstreamCall] = field(default_factory=list[UpstreamCall])
    """The same, one by one, once they have ended."""
    retries: int = 0
    fallbacks: int = 0
    """How often another candidate was asked."""
    polls: int = 0
    upstream_task_id: str = ""
    """Of the provider's task that was waited for last."""
    task_state: str = ""
    """Of the task that a client made or asked for: ``pending``, ``processing``, ``completed`` or ``failed``."""
    in_background: bool = False
    """Whether it is the work of a task, whose client has been answered already."""
    idempotent: Idempotent = ""
    """Whether an ``Idempotency-Key`` saved a call: joined one in flight, or its result was replayed."""
    upload_count: int = 0
    """Files of the client's form, or in data URLs."""
    upload_bytes: int = 0
    link_fetches: int = 0
    """Foreign links that were read: references, and pictures that a provider answered with."""
    fetch_refusals: int = 0
    """Links that the guard refused."""
    bytes_in: int = 0
    """Of the client's body, as far as it was read."""
    bytes_out: int = 0
    """Of the body that the client was sent."""
    first_byte_seconds: float | None = None
    """From the request to the first byte of the answer's body; None: there was none."""
    queue_seconds: float = 0.0
    """That the exchange waited for a place: behind a limit of an upstream, or for the exchange that it joined."""
    upstream_seconds: float = 0.0
    delivery_seconds: float = 0.0
    route_changes: tuple[Change, ...] = ()
    fit_changes: tuple[Change, ...] = ()
    reference_changes: tuple[Change, ...] = ()
    reply_changes: tuple[Change, ...] = ()
    changes_header: str = ""
    """All of them, as the client was told."""
    error_code: str = ""
    outcome: str = ""
    """Of a failed upstream call: ``not_sent``, ``rejected`` or ``uncertain``."""
    capture: Capture | None = None
    """Takes down the exchange word for word; None: nobody asked for that."""

    @property
    def changes(self) -> tuple[Change, ...]:
        all_changes = self.route_changes + self.fit_changes + self.reference_changes + self.reply_changes
        if len(all_changes) < 2 or len({change.field for change in all_changes}) == len(all_changes):
            return all_changes
        # The parts of a split request all change in the same way.
        return tuple(change for place, change in enumerate(all_changes) if change not in all_changes[:place])

    async def call(self, upstream: str, model: str, work: Awaitable[_Result]) -> _Result:
        """Times one POST, and classifies it by the error that it raises."""
        started = perf_counter()
        outcome: CallOutcome = "ok"
        try:
            return await work
        except UpstreamError as error:
            outcome = error.outcome
            raise
        except BaseException:
            outcome = "cancelled"
            raise
        finally:
            self.calls.append(UpstreamCall(upstream, model, outcome, perf_counter() - started))

    def failed(self, error: ImagegateError) -> None:
        """Notes the error that the exchange ends with."""
        self.error_code = error.code or error.type
        if isinstance(error, UpstreamError):
            self.outcome = error.outcome

    def replied(self, images: int, usage: Any) -> None:
        """Counts what a provider's reply carries; the parts of a split request add up."""
        self.images_made += images
        if isinstance(usage, Mapping):
            self.usage = usage if self.usage is None else sum_usage([self.usage, usage])


class ExchangeRecord(msgspec.Struct, frozen=True):
    """One exchange that has ended. Members without a word here are those of `Progress`."""

    status: int
    """HTTP status of the answer; 499 where the client left first."""
    seconds: float
    outcome_class: OutcomeClass
    calls: tuple[UpstreamCall, ...]
    changes: tuple[Change, ...]
    cost: float | None
    """Of what was made, in `currency`; None: the configuration has no price for it."""
    currency: str
    request_id: str
    traceparent: str
    endpoint: str
    """``generations``, ``edits``, ``variations``, ``models`` or ``tasks``."""
    first_byte_seconds: float | None
    queue_seconds: float
    upstream_seconds: float
    delivery_seconds: float
    key_name: str
    model: str
    route: str
    upstream: str
    upstream_model: str
    upstream_request_id: str
    contract: bool
    images_asked: int
    images_made: int
    images_delivered: int
    stored_images: int
    form: ResponseFormat | None
    size_asked: str
    sizes_made: tuple[str, ...]
    usage: Mapping[str, Any] | None
    explained: bool
    streamed: bool
    attempts: int
    retries: int
    fallbacks: int
    polls: int
    task_state: str
    in_background: bool
    idempotent: Idempotent
    upload_count: int
    upload_bytes: int
    link_fetches: int
    fetch_refusals: int
    bytes_in: int
    bytes_out: int
    changes_header: str
    error_code: str
    outcome: str
    capture: Any
    """A `imagegate.telemetry.capture.Capture`, where the configuration asks for words."""


class Hook(Protocol):
    """Somebody who wants to know; must not block. It may have the methods of the protocols below as well."""

    def exchange_ended(self, record: ExchangeRecord) -> None:
        """Called once for each exchange, after the answer was sent."""
        ...


@runtime_checkable
class ConfiguredHook(Protocol):
    """A hook that wants to know the names that the gateway knows."""

    def configured(self, names: Names) -> None:
        """Called once by each gateway that the hook is given to."""
        ...


@runtime_checkable
class StartHook(Protocol):
    """A hook that hears of exchanges when they begin."""

    def exchange_started(self, progress: Progress) -> None:
        """Called before the body is read; `progress` is filled in later, and is not to be written to."""
        ...


@runtime_checkable
class BreakerHook(Protocol):
    """A hook that hears of circuit breakers."""

    def breaker_changed(self, upstream: str, state: BreakerState) -> None:
        """Called when an upstream's breaker enters `state`."""
        ...


@runtime_checkable
class TaskHook(Protocol):
    """A hook that hears of the gateway's own tasks."""

    def task_changed(self, state: str, seconds: float) -> None:
        """Called when a task enters `state`, `seconds` after it was made."""
        ...


class Hooks:
    """All hooks as one, each told what it has a method for. One that raises is logged and does no other harm.

    Args:
        routes: models that records may name as routes.
        cost: what an exchange cost; None where that is not known.
        currency: of costs.
    """

    def __init__(
        self,
        hooks: Sequence[Hook] = (),
        *,
        routes: Container[str] = (),
        cost: Callable[[Progress], float | None] | None = None,
        currency: str = "",
    ) -> None:
        self._routes = routes
        self._cost = cost
        self._currency = currency
        self._configured = [hook.configured for hook in hooks if isinstance(hook, ConfiguredHook)]
        self._ended = [hook.exchange_ended for hook in hooks]
        self._started = [hook.exchange_started for hook in hooks if isinstance(hook, StartHook)]
        self._breaker = [hook.breaker_changed for hook in hooks if isinstance(hook, BreakerHook)]
        self._task = [hook.task_changed for hook in hooks if isinstance(hook, TaskHook)]

    def configured(self, names: Names) -> None:
        _tell(self._configured, names)

    def exchange_started(self, progress: Progress) -> None:
        _tell(self._started, progress)

    def exchange_ended(self, progress: Progress, *, status: int, seconds: float) -> None:
        """Makes the record, here and nowhere else, and tells it."""
        if progress.model in self._routes:
            progress.route = progress.model
        cost = self._cost(progress) if self._cost is not None else None
        _tell(self._ended, finish(progress, status=status, seconds=seconds, cost=cost, currency=self._currency))

    def breaker_changed(self, upstream: str, state: BreakerState) -> None:
        _tell(self._breaker, upstream, state)

    def task_changed(self, state: str, seconds: float) -> None:
        _tell(self._task, state, seconds)


def _tell(listeners: Sequence[Callable[..., None]], *facts: object) -> None:
    for listener in listeners:
        try:
            listener(*facts)
        except Exception as error:
            # Its text is not logged: it may quote what the hook was told.
            get_logger().error("a hook failed", hook=getattr(listener, "__qualname__", ""), error=type(error).__name__)


_OUTCOMES_BY_CODE: Final[Mapping[str, OutcomeClass]] = {
    "overloaded": "overloaded",
    "shutting_down": "overloaded",
    "internal_error": "internal",
    "moderation_blocked": "moderated",
    "content_policy_violation": "moderated",
    "storage_failed": "storage_failed",
    "storage_full": "storage_failed",
    "image_fetch_failed": "storage_failed",
}

_OUTCOMES_BY_CALL: Final[Mapping[str, OutcomeClass]] = {
    "not_sent": "not_sent",
    "rejected": "rejected",
    "uncertain": "uncertain",
}


def classify(progress: Progress, status: int) -> OutcomeClass:
    """What became of an exchange: the only place that decides it."""
    if status == 499:
        return "client_left"
    if status < 400 and not progress.error_code:  # a stream may fail after its head
        return "explained" if progress.explained else "ok"
    if by_code := _OUTCOMES_BY_CODE.get(progress.error_code):
        return by_code
    if by_call := _OUTCOMES_BY_CALL.get(progress.outcome):
        return by_call
    if status in (401, 403):
        return "denied"
    return "invalid" if 400 <= status < 500 else "internal"


_TAKEN_OVER: Final = attrgetter(*ExchangeRecord.__struct_fields__[7:])
"""Every member of a record that a `Progress` has, at the cost of one call."""


def finish(
    progress: Progress, *, status: int, seconds: float, cost: float | None = None, currency: str = ""
) -> ExchangeRecord:
    """The record of an exchange that has ended."""
    return ExchangeRecord(
        status,
        seconds,
        classify(progress, status),
        tuple(progress.calls),
        progress.changes,
        cost,
        currency if cost is not None else "",
        *_TAKEN_OVER(progress),
    )
