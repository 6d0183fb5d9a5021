"""Header fields that decide who pays for requests with a key that belongs to several organizations or projects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from imagegate.adapter import UpstreamRequest
from imagegate.contracts.changes import Change
from imagegate.errors import RequestError
from imagegate.telemetry.progress import Progress
from imagegate.upstream.account import Account

PAYERS: Final = (b"openai-organization", b"openai-project")
_LONGEST: Final = 256
"""Characters."""


def with_payers(
    request: UpstreamRequest, named: Sequence[tuple[bytes, bytes]], account: Account, progress: Progress
) -> UpstreamRequest:
    """Add the client's organization and project where its own key goes upstream; else disclose that they do not.

    Raises:
        RequestError: a value that no header field may have.
    """
    fields = [(name.decode(), value.decode("latin-1").strip()) for name, value in named]
    for name, value in fields:
        if not (value.isascii() and value.isprintable() and len(value) <= _LONGEST):
            raise RequestError(f"Invalid header '{name}': expected at most {_LONGEST} ASCII characters.", param=name)
    if account.has_key:
        progress.reference_changes += tuple(Change(name, "dropped") for name, _ in fields)
        return request
    return msgspec.structs.replace(request, headers=(*request.headers, *fields))
