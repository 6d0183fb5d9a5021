"""Request ids: the client's own where it is valid, else a new one."""

from __future__ import annotations

import re
from random import getrandbits

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def request_id(sent: bytes | None) -> str:
    """Return the id of a request.

    Args:
        sent: the client's ``x-request-id``.
    """
    if sent and _REQUEST_ID.fullmatch(sent):
        return sent.decode()
    return f"req_{getrandbits(128):032x}"  # an identifier, not a secret
