"""One structured log line for each exchange."""

from __future__ import annotations

import time
from collections import deque
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, BinaryIO, Final

import msgspec
import structlog

from imagegate.config.schema import LogConfig
from imagegate.contracts.changes import header_value
from imagegate.logger import NAME, log_plainly
from imagegate.protocol.trace_context import span_id, trace_id
from imagegate.telemetry.batching import Soon, taken
from imagegate.telemetry.exchange import ExchangeFacts
from imagegate.telemetry.record import ExchangeRecord

_LONGEST_NAME: Final = 128
"""Characters of what a client wrote."""
_SOON: Final = 0.02
"""Seconds that a line may wait for others: one by one they cost twice as much."""
_MOST_WAITING: Final = 100
_DIGITS: Final = 4
"""Of seconds, after the point."""


_OTHERWISE: Final = frozenset(
    ("traceparent", "principal_id", "sizes_made", "usage", "outcome", "changes_header", "capture")
)
"""Facts of a record that a line leaves out, or says under another name."""
_FIRST: Final = frozenset(("request_id", "endpoint"))
_ROUNDED: Final = ("upstream_seconds", "delivery_seconds", "queue_seconds", "first_byte_seconds")
_AS_IT_IS: Final = tuple(
    name for name in ExchangeFacts.__struct_fields__ if name not in _OTHERWISE | _FIRST | frozenset(_ROUNDED)
)
_NOTHING: Final = ExchangeFacts("")

_FAILED: Final = frozenset(("overloaded", "rejected", "not_sent", "uncertain", "storage_failed", "internal"))
"""Outcomes that are no fault of the client: their lines are warnings, which are seen where no logging is set up."""

ExchangeLine: Final[Any] = msgspec.defstruct(
    "ExchangeLine",
    [
        ("timestamp", datetime),
        ("level", str),
        ("event", str),
        ("request_id", str),
        ("endpoint", str),
        ("status", int),
        ("outcome", str),  # the record's `outcome_class`
        ("seconds", float),
        *((name, Any, getattr(_NOTHING, name)) for name in _AS_IT_IS),
        *((name, float, 0.0) for name in _ROUNDED),
        ("sizes", str, ""),
        ("changes", str, ""),
        ("cost", str, ""),
        ("principal", str, ""),  # where it is called otherwise than its key or user
        ("trace_id", str, ""),
        ("span_id", str, ""),
        ("prompt", str, ""),  # only where the configuration asks for it
        ("links", list[str], []),  # likewise
    ],
    omit_defaults=True,
    module=__name__,
)
"""What a line says of an exchange, as the record does; absent values are left out."""

_facts: Final[Any] = attrgetter(*_AS_IT_IS)
_durations: Final[Any] = attrgetter(*_ROUNDED)


def line_of(record: ExchangeRecord, config: LogConfig, ended: float | None = None) -> Any:
    """Make the `ExchangeLine` of an exchange: facts, and words only where `config` asks for them.

    Args:
        ended: Unix time in seconds; None: now.
    """
    line = ExchangeLine(
        datetime.now(UTC) if ended is None else datetime.fromtimestamp(ended, UTC),
        "warning" if record.status >= 500 or record.outcome_class in _FAILED else "info",
        "exchange",
        record.request_id,
        record.endpoint,
        record.status,
        record.outcome_class,
        round(record.seconds, _DIGITS),
        *_facts(record),
        *[round(seconds or 0.0, _DIGITS) for seconds in _durations(record)],
    )
    if len(line.model) > _LONGEST_NAME or len(line.upstream_model) > _LONGEST_NAME:
        line.model, line.upstream_model = line.model[:_LONGEST_NAME], line.upstream_model[:_LONGEST_NAME]
    if record.sizes_made:
        line.sizes = ",".join(record.sizes_made)
    if record.changes:
        line.changes = record.changes_header or header_value(record.changes)
    if record.cost is not None:
        line.cost = f"{record.cost:.6g} {record.currency}"
    if record.principal_id not in (record.key_name, record.user):
        line.principal = record.principal_id[:_LONGEST_NAME]
    if record.traceparent:
        line.trace_id, line.span_id = trace_id(record.traceparent), span_id(record.traceparent)
    if record.capture is not None:
        line.prompt = record.capture.prompt if config.prompts else ""
        line.links = record.capture.links() if config.links else []
    return line


class LogHook:
    """Writes exchanges to the log: structlog's where the process has configured it, else the standard library's.

    Prompts, pictures, links and keys are never written, but for what `config` asks for.

    Args:
        config: whether prompts and delivered links are to be written.
        output: takes lines of JSON, past both: for a process of our own, at a third of the cost. Lines that belong to
            the same moment are written together.
    """

    def __init__(self, config: LogConfig | None = None, *, output: BinaryIO | None = None) -> None:
        self._config = config or LogConfig()
        self._structlog = structlog.get_logger(NAME)
        self._output = output
        self._waiting: deque[tuple[ExchangeRecord, float]] = deque()
        self._soon = Soon(_SOON)

    def exchange_ended(self, record: ExchangeRecord) -> None:
        if self._output is not None:
            self._waiting.append((record, time.time()))
            if record.capture is not None and self._config.links:
                self.write()  # the words of an answer are not kept for longer
            elif len(self._waiting) >= _MOST_WAITING:
                self.write()
            else:
                self._soon.run(self.write)
            return
        facts: dict[str, Any] = msgspec.to_builtins(line_of(record, self._config))
        del facts["timestamp"]  # and level: the host's own affair
        level, event = facts.pop("level"), facts.pop("event")
        if structlog.is_configured():
            getattr(self._structlog, level)(event, **facts)
        else:
            log_plainly(level, event, facts)

    def write(self) -> None:
        """Write the lines that wait for others."""
        waiting = taken(self._waiting)
        lines = [msgspec.json.encode(line_of(record, self._config, ended)) for record, ended in waiting]
        if lines and self._output is not None:
            self._output.write(b"\n".join([*lines, b""]))
            self._output.flush()
