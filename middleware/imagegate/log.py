"""One structured log line for each exchange."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final

import structlog

from imagegate.changes import header_value
from imagegate.config import LogConfig
from imagegate.events import ExchangeRecord
from imagegate.logger import NAME, get_plain_logger
from imagegate.trace import span_id, trace_id

_LONGEST_NAME: Final = 128
"""Characters of what a client wrote."""


class LogHook:
    """Writes exchanges to the log.

    Prompts, pictures, links and keys are never written, but for what `config` asks for.

    Args:
        config: whether prompts and delivered links are to be written.
    """

    def __init__(self, config: LogConfig | None = None) -> None:
        self._config = config or LogConfig()
        self._structlog, self._plain = structlog.get_logger(NAME), get_plain_logger()

    def exchange_ended(self, record: ExchangeRecord) -> None:
        logger = self._structlog if structlog.is_configured() else self._plain
        write = logger.info if record.status < 500 else logger.warning
        write("exchange", **self._facts(record))

    def _facts(self, record: ExchangeRecord) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "request_id": record.request_id,
            "endpoint": record.endpoint,
            "status": record.status,
            "outcome": record.outcome_class,
            "seconds": round(record.seconds, 4),
        }
        if record.upstream:
            facts["upstream"] = record.upstream
            facts["upstream_seconds"] = round(record.upstream_seconds, 4)
            facts["attempts"] = record.attempts
            facts["contract"] = record.contract
        for name, value in zip(_WHERE_THERE_IS_ONE, _values(record), strict=True):
            if value:
                facts[name] = value[:_LONGEST_NAME] if isinstance(value, str) else value
        for name in ("first_byte_seconds", "queue_seconds", "delivery_seconds"):
            if value := getattr(record, name):
                facts[name] = round(value, 4)
        if record.traceparent:
            facts["trace_id"], facts["span_id"] = trace_id(record.traceparent), span_id(record.traceparent)
        if record.images_asked:
            facts["images_asked"], facts["images"] = record.images_asked, record.images_delivered
        if record.sizes_made:
            facts["sizes"] = ",".join(record.sizes_made)
        if record.changes:
            facts["changes"] = record.changes_header or header_value(record.changes)
        if record.cost is not None:
            facts["cost"] = f"{record.cost:.6g} {record.currency}"
        if capture := record.capture:
            facts |= self._asked_for(capture.prompt, capture.links())
        return facts

    def _asked_for(self, prompt: str, links: list[str]) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        if self._config.prompts and prompt:
            found["prompt"] = prompt
        if self._config.links and links:
            found["links"] = links
        return found


_WHERE_THERE_IS_ONE: Final = (
    "key_name",
    "model",
    "route",
    "upstream_model",
    "upstream_request_id",
    "form",
    "size_asked",
    "images_made",
    "stored_images",
    "polls",
    "retries",
    "fallbacks",
    "idempotent",
    "task_state",
    "streamed",
    "explained",
    "upload_count",
    "upload_bytes",
    "link_fetches",
    "fetch_refusals",
    "bytes_in",
    "bytes_out",
    "error_code",
)
_values: Final = attrgetter(*_WHERE_THERE_IS_ONE)
