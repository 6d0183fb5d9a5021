"""Hooks: are notified of exchanges, circuit breakers and tasks."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from imagegate.logger import get_logger
from imagegate.stores.health import StoreState
from imagegate.telemetry.progress import Progress, finish
from imagegate.telemetry.record import ExchangeRecord
from imagegate.tracing import ExchangeTrace, Operation

if TYPE_CHECKING:
    from imagegate.telemetry.metric_labels import Names

BreakerState = Literal["closed", "open", "half_open"]


class Hook(Protocol):
    """Is notified of finished exchanges; must not block. It may also implement the protocols below."""

    def exchange_ended(self, record: ExchangeRecord) -> None:
        """Take the record of an exchange: called once for each, after the answer was sent."""
        ...


@runtime_checkable
class ConfiguredHook(Protocol):
    """A hook that wants to know the names that the gateway knows."""

    def configured(self, names: Names) -> None:
        """Take the names in the configuration: called once by each gateway that the hook is given to."""
        ...


@runtime_checkable
class StartHook(Protocol):
    """A hook that hears of exchanges when they begin."""

    def exchange_started(self, progress: Progress) -> None:
        """Note a request before its body is read; `progress` is filled in later, and is not to be written to."""
        ...


@runtime_checkable
class BreakerHook(Protocol):
    """A hook that hears of circuit breakers."""

    def breaker_changed(self, upstream: str, state: BreakerState) -> None:
        """Note that an upstream's breaker enters `state`."""
        ...


@runtime_checkable
class SurplusHook(Protocol):
    """A hook that hears of upstreams that send more than they were asked for."""

    def surplus_received(self, upstream: str) -> None:
        """Note that a reply was there before its request; no connection to `upstream` is reused from now on."""
        ...


@runtime_checkable
class StoreHook(Protocol):
    """A hook that hears whether the store takes images."""

    def store_changed(self, state: StoreState) -> None:
        """Note that the store enters `state`."""
        ...


@runtime_checkable
class TaskHook(Protocol):
    """A hook that hears of the gateway's own tasks."""

    def task_changed(self, state: str, seconds: float) -> None:
        """Note that a task enters `state`, `seconds` after it was made."""
        ...


@runtime_checkable
class RecordHook(Protocol):
    """A hook that hears of records in Redis that cannot be read."""

    def record_unreadable(self, kind: str) -> None:
        """Note that a record of `kind`, ``task`` or ``reply``, was left where it is, unread."""
        ...


@runtime_checkable
class TracingHook(Protocol):
    """A hook that records spans. A gateway takes one of them."""

    def exchange_traced(self, progress: Progress) -> ExchangeTrace:
        """Begin the trace of an exchange, or of a task's work (`in_background`), and use it in the current context.

        `progress.traceparent` and `progress.tracestate` become those of the exchange's own span.
        """
        ...

    def webhook_traced(self, traceparent: str) -> Operation:
        """Begin the delivery of a task's webhook.

        Args:
            traceparent: of the exchange that made the task; empty: unknown.
        """
        ...


@runtime_checkable
class LimitHook(Protocol):
    """A hook that hears of limits of principals, groups and the gateway."""

    def limit_near(self, account: str, limit: str) -> None:
        """Note a request that was admitted with 80 % of `limit` used up; `account` is ``key:NAME``, for example."""
        ...

    def limit_reached(self, account: str, limit: str) -> None:
        """Note a request that was refused."""
        ...


@runtime_checkable
class MemoryHook(Protocol):
    """A hook that wants to know how much memory requests hold."""

    def memory_watched(self, held: Callable[[], int]) -> None:
        """Take a function that returns how many bytes are held: called once by each gateway with this hook."""
        ...


class Hooks:
    """All hooks, each called for the events that it has a method for. An exception in one is logged, not raised.

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
        self._record = [hook.record_unreadable for hook in hooks if isinstance(hook, RecordHook)]
        self._surplus = [hook.surplus_received for hook in hooks if isinstance(hook, SurplusHook)]
        self._store = [hook.store_changed for hook in hooks if isinstance(hook, StoreHook)]
        self._memory = [hook.memory_watched for hook in hooks if isinstance(hook, MemoryHook)]
        self._tracing = next((hook for hook in hooks if isinstance(hook, TracingHook)), None)
        self._near = [hook.limit_near for hook in hooks if isinstance(hook, LimitHook)]
        self._reached = [hook.limit_reached for hook in hooks if isinstance(hook, LimitHook)]
        self._task = [hook.task_changed for hook in hooks if isinstance(hook, TaskHook)]

    def configured(self, names: Names) -> None:
        _notify(self._configured, names)

    def exchange_started(self, progress: Progress) -> None:
        if self._tracing is not None:
            self._trace(self._tracing, progress)
        _notify(self._started, progress)

    def work_started(self, progress: Progress) -> None:
        """Note that a task's work begins, behind the answer to its client; `work_left` or `exchange_ended` follows."""
        if self._tracing is not None:
            self._trace(self._tracing, progress)

    def work_left(self, progress: Progress) -> None:
        """Note that a task's work ends here; it has no record unless `exchange_ended` was called before."""
        _end_trace(progress, None)

    def _trace(self, tracing: TracingHook, progress: Progress) -> None:
        try:
            progress.trace = tracing.exchange_traced(progress)
        except Exception as error:
            _log_failure(tracing.exchange_traced, error)

    def webhook_started(self, traceparent: str) -> Operation | None:
        """Begin to trace a webhook; None: nothing is traced."""
        if self._tracing is not None:
            try:
                return self._tracing.webhook_traced(traceparent)
            except Exception as error:
                _log_failure(self._tracing.webhook_traced, error)
        return None

    def exchange_ended(self, progress: Progress, *, status: int, seconds: float) -> None:
        """Make the record of the exchange and pass it to the hooks."""
        if progress.model in self._routes:
            progress.route = progress.model
        progress.recorded_calls = len(progress.calls)
        cost = self._cost(progress) if self._cost is not None else None
        record = finish(progress, status=status, seconds=seconds, cost=cost, currency=self._currency)
        _notify(self._ended, record)
        if progress.trace is not None:
            _end_trace(progress, record)

    def breaker_changed(self, upstream: str, state: BreakerState) -> None:
        _notify(self._breaker, upstream, state)

    def surplus_received(self, upstream: str) -> None:
        _notify(self._surplus, upstream)

    def store_changed(self, state: StoreState) -> None:
        _notify(self._store, state)

    def limit_near(self, account: str, limit: str) -> None:
        _notify(self._near, account, limit)

    def limit_reached(self, account: str, limit: str) -> None:
        _notify(self._reached, account, limit)

    def memory_watched(self, held: Callable[[], int]) -> None:
        _notify(self._memory, held)

    def task_changed(self, state: str, seconds: float) -> None:
        _notify(self._task, state, seconds)

    def record_unreadable(self, kind: str, name: str) -> None:
        """Log and count a record that cannot be read."""
        get_logger().error("a record cannot be read and is left where it is", kind=kind, key=name)
        _notify(self._record, kind)


def _end_trace(progress: Progress, record: ExchangeRecord | None) -> None:
    trace, progress.trace = progress.trace, None
    if trace is not None:
        _notify((trace.ended,), record)


def _notify(listeners: Sequence[Callable[..., None]], *facts: object) -> None:
    for listener in listeners:
        try:
            listener(*facts)
        except Exception as error:
            _log_failure(listener, error)


def _log_failure(listener: Callable[..., object], error: Exception) -> None:
    # Its text is not logged: it may quote the event.
    get_logger().error("a hook failed", hook=getattr(listener, "__qualname__", ""), error=type(error).__name__)
