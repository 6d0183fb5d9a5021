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
from imagegate.telemetry.batching import Soon, taken
from imagegate.telemetry.events import ExchangeRecord
from imagegate.telemetry.logger import NAME, get_plain_logger
from imagegate.telemetry.trace_context import span_id, trace_id

_LONGEST_NAME: Final = 128
"""Characters of what a client wrote."""
_SOON: Final = 0.02
"""Seconds that a line may wait for others: one by one they cost twice as much."""
_MOST_WAITING: Final = 100
_DIGITS: Final = 4
"""Of seconds, after the point."""


class ExchangeLine(msgspec.Struct, omit_defaults=True):
    """What a line says of an exchange, as the record does; what there is none of is left out."""

    timestamp: datetime
    level: str
    event: str
    request_id: str
    endpoint: str
    status: int
    outcome: str
    seconds: float
    upstream: str = ""
    upstream_model: str = ""
    upstream_request_id: str = ""
    key_name: str = ""
    model: str = ""
    route: str = ""
    form: str | None = None
    size_asked: str = ""
    attempts: int = 0
    images_asked: int = 0
    images_made: int = 0
    images_delivered: int = 0
    stored_images: int = 0
    polls: int = 0
    retries: int = 0
    fallbacks: int = 0
    idempotent: str = ""
    task_state: str = ""
    in_background: bool = False
    streamed: bool = False
    explained: bool = False
    contract: bool = True
    upload_count: int = 0
    upload_bytes: int = 0
    link_fetches: int = 0
    fetch_refusals: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    error_code: str = ""
    upstream_seconds: float = 0.0
    delivery_seconds: float = 0.0
    queue_seconds: float = 0.0
    first_byte_seconds: float = 0.0
    sizes: str = ""
    changes: str = ""
    cost: str = ""
    trace_id: str = ""
    span_id: str = ""
    prompt: str = ""
    """Only where the configuration asks for it."""
    links: list[str] = []
    """Likewise."""


_MEMBERS: Final = ExchangeLine.__struct_fields__
_taken_over: Final[Any] = attrgetter(*_MEMBERS[_MEMBERS.index("upstream") : _MEMBERS.index("upstream_seconds")])


def line_of(record: ExchangeRecord, config: LogConfig, ended: float | None = None) -> ExchangeLine:
    """What is said of an exchange: facts, and words only where `config` asks for them.

    Args:
        ended: Unix time in seconds; None: now.
    """
    facts: tuple[Any, ...] = (
        datetime.now(UTC) if ended is None else datetime.fromtimestamp(ended, UTC),
        "info" if record.status < 500 else "warning",
        "exchange",
        record.request_id,
        record.endpoint,
        record.status,
        record.outcome_class,
        round(record.seconds, _DIGITS),
        *_taken_over(record),
        round(record.upstream_seconds, _DIGITS),
        round(record.delivery_seconds, _DIGITS),
        round(record.queue_seconds, _DIGITS),
        round(record.first_byte_seconds or 0.0, _DIGITS),
    )
    line = ExchangeLine(*facts)
    if len(line.model) > _LONGEST_NAME or len(line.upstream_model) > _LONGEST_NAME:
        line.model, line.upstream_model = line.model[:_LONGEST_NAME], line.upstream_model[:_LONGEST_NAME]
    if record.sizes_made:
        line.sizes = ",".join(record.sizes_made)
    if record.changes:
        line.changes = record.changes_header or header_value(record.changes)
    if record.cost is not None:
        line.cost = f"{record.cost:.6g} {record.currency}"
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
        self._structlog, self._plain = structlog.get_logger(NAME), get_plain_logger()
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
        logger = self._structlog if structlog.is_configured() else self._plain
        getattr(logger, facts.pop("level"))(facts.pop("event"), **facts)

    def write(self) -> None:
        """Writes the lines that wait for others."""
        waiting = taken(self._waiting)
        lines = [msgspec.json.encode(line_of(record, self._config, ended)) for record, ended in waiting]
        if lines and self._output is not None:
            self._output.write(b"\n".join([*lines, b""]))
            self._output.flush()
