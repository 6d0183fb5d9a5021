"""Operations of an exchange that may be recorded as spans: where they begin and end. Pure.

Without a tracer an operation costs one look at a context variable. A tracer is a hook with the methods of `TracingHook`
(`imagegate.telemetry.hooks`); `imagegate.opentelemetry` has one.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self

from imagegate.protocol.trace_context import trace_headers

OperationName = Literal["attempt", "part", "upload", "poll", "fetch", "store", "webhook"]
"""A POST to a provider with the wait for its task; a part of a split request; the upload of a reference; the questions
about one task; the fetch of a foreign link; the writing of one image; a webhook."""


class Operation(Protocol):
    """An operation at work."""

    @property
    def traceparent(self) -> str:
        """W3C Trace Context of it, which goes upstream in its requests; empty: it has none."""
        ...

    @property
    def tracestate(self) -> str:
        """What goes upstream beside it; empty: nothing does."""
        ...

    def ended(self, error: BaseException | None, facts: dict[str, Any]) -> None:
        """Record the end.

        Args:
            error: that it ended with, whose text may quote anything.
            facts: that became known in the meantime.
        """
        ...


class Tracer(Protocol):
    """Records the operations of one exchange."""

    def operation(self, name: OperationName, facts: dict[str, Any], *, nests: bool) -> Operation:
        """Begin one.

        Args:
            facts: names and numbers, never content.
            nests: operations that begin before it ends, in its context, are its children.
        """
        ...


class ExchangeTrace(Protocol):
    """The trace of one exchange."""

    def ended(self, record: Any) -> None:
        """Record the end, in the context in which the trace began.

        Args:
            record: the `ExchangeRecord`; None: another process goes on with the work.
        """
        ...


TRACER: Final[ContextVar[Tracer | None]] = ContextVar("imagegate.tracer", default=None)
"""Records what begins in this context; None: nothing does."""


def use(tracer: Tracer) -> Token[Tracer | None]:
    """Have `tracer` record what begins in this context."""
    return TRACER.set(tracer)


def restore(token: Token[Tracer | None]) -> None:
    """Undo `use`, in the same context."""
    TRACER.reset(token)


class operation:  # noqa: N801 - used like a function, in a `with` statement
    """Record a block as an operation.

    Args:
        name: what it is.
        nests: whether operations within the block are its children. The block must end in the context in which it
            began then, which that of a generator may not.
        facts: known at its beginning.
    """

    __slots__ = ("_facts", "_name", "_nests", "_running")

    def __init__(self, name: OperationName, *, nests: bool = True, **facts: Any) -> None:
        self._name: Final = name
        self._nests = nests
        self._facts = facts
        self._running: Operation | None = None

    def begin(self) -> Self:
        """Begin it, once; for operations that are no block."""
        if (tracer := TRACER.get()) is not None:
            self._running = tracer.operation(self._name, self._facts, nests=self._nests)
            self._facts = {}
        return self

    __enter__ = begin

    def note(self, **facts: Any) -> None:
        """Add facts that have become known."""
        if self._running is not None:
            self._facts.update(facts)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Fields of W3C Trace Context for the requests of the operation; none where it is not recorded."""
        if self._running is None:
            return []
        return trace_headers(self._running.traceparent, self._running.tracestate)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)

    def end(self, error: BaseException | None = None) -> None:
        """End it, once; for operations that are no block."""
        running, self._running = self._running, None
        if running is not None:
            running.ended(error, self._facts)
