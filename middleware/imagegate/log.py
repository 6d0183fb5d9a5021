"""One structured log line for each exchange."""

from __future__ import annotations

from typing import Any

import structlog

from imagegate.changes import header_value
from imagegate.events import ExchangeRecord


class LogHook:
    """Writes exchanges to structlog's logger ``imagegate``, as the host application has configured it.

    Prompts, pictures, links and keys are never written.
    """

    def __init__(self) -> None:
        self._logger: Any = structlog.get_logger("imagegate")

    def exchange_ended(self, record: ExchangeRecord) -> None:
        write = self._logger.info if record.status < 500 else self._logger.warning
        facts: dict[str, Any] = {
            "request_id": record.request_id,
            "endpoint": record.endpoint,
            "status": record.status,
            "seconds": round(record.seconds, 4),
        }
        if record.model:
            facts["model"] = record.model[:128]
        if record.upstream:
            facts |= {
                "upstream": record.upstream,
                "upstream_model": record.upstream_model[:128],
                "upstream_seconds": round(record.upstream_seconds, 4),
                "attempts": record.attempts,
                "contract": record.contract,
            }
        optional = {
            "upstream_request_id": record.upstream_request_id,
            "polls": record.polls,
            "form": record.form,
            "images": record.images_delivered,
            "changes": header_value(record.changes),
            "explained": record.explained,
            "error_code": record.error_code,
            "outcome": record.outcome,
        }
        write("exchange", **facts, **{name: value for name, value in optional.items() if value})
