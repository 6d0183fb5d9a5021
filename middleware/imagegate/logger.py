"""The logger ``imagegate``: structlog's where the process has configured it, else the standard library's.

A host application has set up one of the two its own way, and lines go there. Nothing here configures either; a gateway
that runs standalone does so in `imagegate.standalone`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal

import structlog

NAME: Final = "imagegate"
_PLAIN: Final = re.compile(r'[^ "=]+').fullmatch
"""Matches values that stand without quotes, where they are printable."""


def get_logger() -> Any:
    """Return the logger of everything in this package, with structlog's methods."""
    return structlog.get_logger(NAME) if structlog.is_configured() else get_plain_logger()


def get_plain_logger() -> Any:
    """Return structlog's methods in front of the standard library's logger, whatever is configured."""
    return structlog.wrap_logger(
        logging.getLogger(NAME),
        processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, _as_plain_line],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def log_plainly(level: Literal["info", "warning"], event: str, facts: Mapping[str, Any]) -> None:
    """Write a line as `get_plain_logger` does, for lines that are written often: at a third of the cost."""
    logger, number = logging.getLogger(NAME), logging.INFO if level == "info" else logging.WARNING
    if logger.isEnabledFor(number):
        texts, options = _as_plain_line(
            None, level, {**structlog.contextvars.get_contextvars(), **facts, "event": event}
        )
        logger.log(number, *texts, extra=options["extra"])


def _as_plain_line(_: Any, __: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    """Write ``exchange status=200 ...`` for plain formatters, the facts as ``record.imagegate`` for structured ones."""
    exc_info = event.pop("exc_info", None)
    facts = {name: value for name, value in event.items() if name != "event"}
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in facts.values()]
    words = [
        f"{name}={text if _PLAIN(text) and text.isprintable() else repr(text)}"
        for name, text in zip(facts, texts, strict=True)
    ]
    # The message is no template, so that a per cent sign in it stays one.
    return (" ".join([str(event["event"]), *words]),), {"extra": {NAME: facts}, "exc_info": exc_info}
