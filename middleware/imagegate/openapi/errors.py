"""Which errors endpoints answer with, from the classes that are raised. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from imagegate import errors
from imagegate.access.host import AccessUnavailable
from imagegate.asgi.browser_guard import AccessDenied
from imagegate.idempotency.base import ReplaysUnavailable
from imagegate.idempotency.keys import KeyReused
from imagegate.idempotency.outcomes import ReplyGone
from imagegate.openapi.headers import headers
from imagegate.openapi.schemas import ref
from imagegate.spending.ledger import InsufficientQuota, LedgerUnavailable
from imagegate.spending.rates import RateLimited, TooManyAccounts
from imagegate.spool.budget import SpoolFull
from imagegate.stores.serving import LinkRefused, NotStored
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks.base import TaskNotCancellable, TaskNotFound, TaskUnreadable

Kind = type[errors.ImagegateError]

ACCESS: Final[tuple[Kind, ...]] = (errors.AuthenticationError, errors.NotPermitted, AccessDenied, AccessUnavailable)
"""Of every endpoint that asks who a request is from."""
FAILURE: Final[tuple[Kind, ...]] = (errors.ImagegateError,)
"""The gateway's own, whose details are not disclosed."""
IMAGES: Final[tuple[Kind, ...]] = (
    *ACCESS,
    *FAILURE,
    errors.RequestError,
    errors.ContentRefused,
    errors.ContentWithheld,
    errors.ModerationBlocked,
    errors.ModelNotFound,
    errors.RequestTimeout,
    errors.PayloadTooLarge,
    errors.UnsupportedMedia,
    errors.Overloaded,
    errors.ShuttingDown,
    errors.ModerationUnavailable,
    errors.NoRoom,
    errors.ImageStoreUnavailable,
    errors.StorageError,
    errors.FetchError,
    errors.UpstreamError,
    errors.UpstreamUnreachable,
    errors.UpstreamUnavailable,
    errors.UpstreamUncertain,
    InsufficientQuota,
    KeyReused,
    LedgerUnavailable,
    RateLimited,
    ReplaysUnavailable,
    ReplyGone,
    SpoolFull,
    StoreUnavailable,
    TooManyAccounts,
)
MODELS: Final[tuple[Kind, ...]] = (*ACCESS, *FAILURE, errors.ModelNotFound)
TASKS: Final[tuple[Kind, ...]] = (
    *ACCESS,
    *FAILURE,
    TaskNotFound,
    TaskUnreadable,
    StoreUnavailable,
    errors.StorageError,
)
CANCELLING: Final[tuple[Kind, ...]] = (*TASKS, TaskNotCancellable, errors.Overloaded, errors.ShuttingDown)
USAGE: Final[tuple[Kind, ...]] = (*ACCESS, *FAILURE, LedgerUnavailable)
LINKS: Final[tuple[Kind, ...]] = (LinkRefused, NotStored, errors.StorageError)
METRICS: Final[tuple[Kind, ...]] = (errors.AuthenticationError, AccessDenied)

_SENT_WITH: Final = ("Retry-After", "x-should-retry")


def error_responses(kinds: Iterable[Kind], names: Iterable[str] = ()) -> dict[str, Any]:
    """Return a response for each status: what it means, and which codes say so.

    Args:
        kinds: classes of errors.
        names: of header fields that the endpoint's answers have.
    """
    by_status: dict[int, dict[str, str]] = defaultdict(dict)
    for kind in kinds:
        by_status[kind.status].setdefault(kind.code or kind.type, _meaning(kind))
    return {
        str(status): error_response(HTTPStatus(status).phrase, codes, names)
        for status, codes in sorted(by_status.items())
    }


def error_response(title: str, codes: Mapping[str, str], names: Iterable[str] = ()) -> dict[str, Any]:
    """Return one response with the error envelope.

    Args:
        codes: code -> when it is sent.
    """
    listed = "\n".join(f"- `{code}`: {meaning}" for code, meaning in codes.items())
    return {
        "description": f"{title}\n\n{listed}" if listed else title,
        "headers": headers(dict.fromkeys((*names, *_SENT_WITH))),
        "content": {"application/json": {"schema": ref("Error")}},
    }


def _meaning(kind: Kind) -> str:
    if kind is errors.ImagegateError:
        return "The gateway failed; its log says how."
    return (kind.__doc__ or "").partition("\n")[0].strip()
