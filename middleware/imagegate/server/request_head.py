"""The head of a request, before it is parsed: whether it is within its bounds, and how much body it announces.

Only as much is read here as the bounds need. What a head means is the parser's to say.
"""

from __future__ import annotations

import re
from typing import Final

from imagegate.errors import ImagegateError, RequestError

END: Final = b"\r\n\r\n"
"""Ends every head, and every chunked body."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n")
_IS_CODED: Final = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*,[ \t]*chunked[ \t]*\r\n")
"""By something else before it is chunked; a body that is not chunked in the end is the parser's to refuse."""
_UPGRADE: Final = re.compile(rb"\r\nupgrade(?=[ \t]*:)", re.IGNORECASE)
_IGNORED: Final = b"\r\nignored"
"""In the place of ``Upgrade``, and as long: no byte of the head moves."""
_METHOD: Final = re.compile(rb"[A-Za-z]")


def read_head(raw: bytes) -> tuple[bytes, int | None]:
    """Read a complete head that `check_head` has accepted: return it for the parser, and the bytes of its body.

    Their number is None where the parser sees the end of the body, or there is none.

    A client may ask for another protocol, which a server may ignore (RFC 9110, section 7.8): the field is renamed, so
    that a parser that would stop for it goes on, and the body stays a body.

    Raises:
        ImagegateError: the method asks for a tunnel, or the body has a coding that is not undone here.
        RequestError: it does not name one host (RFC 9112, section 3.2).
    """
    if raw.startswith(b"CONNECT "):
        raise ImagegateError(
            "CONNECT is not supported.", type="invalid_request_error", code="method_not_supported", status=501
        )
    lower = raw.lower()
    if b"\r\nupgrade" in lower:
        raw = _UPGRADE.sub(_IGNORED, raw)
    hosts = lower.count(b"\r\nhost:")
    if hosts > 1 or (not hosts and b" http/1.1\r\n" in lower):
        raise RequestError("The request must have one Host header field.", code="invalid_http")
    is_coded = b"\r\ntransfer-encoding" in lower
    if is_coded and lower.count(b"\r\ntransfer-encoding:") > 1:
        raise RequestError("The request must have one Transfer-Encoding header field.", code="invalid_http")
    if is_coded and _IS_CODED.search(lower):
        raise ImagegateError(
            "The only transfer coding that is supported is chunked.",
            type="invalid_request_error",
            code="transfer_coding_not_supported",
            status=501,
        )
    length = None if is_coded else _LENGTH.search(lower)
    return raw, None if length is None else int(length[1])


def check_head(head: bytes | bytearray, *, limit: int, fields: int) -> None:
    """Check a head, or the part of it that has arrived.

    Args:
        head: not empty, and without leading line breaks.
        limit: maximum bytes, with the empty line.
        fields: maximum number of header fields.

    Raises:
        ImagegateError: beyond a limit (431).
        RequestError: no HTTP/1.1.
    """
    lines = head.count(b"\r\n")
    if len(head) > limit:
        raise _too_large(f"The request line and its header fields are larger than {limit:,} bytes.")
    # The request line ends with one line break, and the head with another.
    if lines - (2 if head.endswith(END) else 1) > fields:
        raise _too_large(f"The request has more than {fields:,} header fields.")
    if head.count(b"\n") != lines or not _METHOD.match(head):
        raise RequestError("The request is not valid HTTP/1.1.", code="invalid_http")


def _too_large(message: str) -> ImagegateError:
    return ImagegateError(message, type="invalid_request_error", code="headers_too_large", status=431)
