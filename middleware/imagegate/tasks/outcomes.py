"""Ends of tasks that are the gateway's own doing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegate.asgi.captured_response import CapturedResponse
from imagegate.errors import ImagegateError, UpstreamUnreachable
from imagegate.protocol.provider_errors import uncertain
from imagegate.tasks.records import INTERRUPTED


def interrupted() -> ImagegateError:
    """Return the error for a process that died, or ended, after the request was sent."""
    error = uncertain(
        "The gateway ended before the provider had answered, so the image may have been made and billed. "
        "It is not sent again."
    )
    error.code = INTERRUPTED
    return error


def not_begun() -> ImagegateError:
    """Return the error for a process that died before the request was sent, where no other one can send it."""
    return UpstreamUnreachable(
        "The gateway ended before anything was sent. Nothing was billed; the request may be made again.",
        status=503,
        code="task_not_begun",
    )


def files_gone() -> ImagegateError:
    """Return the error for a request that cannot be read any more."""
    return UpstreamUnreachable(
        "The files of the request are no longer there. Nothing was sent; the request may be made again.",
        status=503,
        code="task_files_gone",
    )


def internal(*, sent: bool) -> ImagegateError:
    """Return the error for a mistake of the gateway's."""
    if sent:
        return uncertain("The gateway failed after it had asked the provider.")
    return ImagegateError("The gateway failed. Nothing was sent.", code="internal_error")


def cancelled() -> ImagegateError:
    """Return the error for a task that its client has cancelled."""
    return UpstreamUnreachable("The task was cancelled before anything was sent.", status=409, code="task_cancelled")


def task_document(response: CapturedResponse) -> Mapping[str, Any]:
    """Return the document of a response that a task can keep: links or an error.

    Raises:
        UpstreamUncertain: any other reply.
    """
    document = response.document()
    if document is None:
        raise uncertain("The answer is no JSON document.")
    if "error" not in document and not _are_links(document.get("data")):
        raise uncertain("The answer carries no links to images.")
    return document


def _are_links(data: Any) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(item, dict) and isinstance(item.get("url"), str) and "b64_json" not in item for item in data)
    )
