"""Classifies aiohttp's exceptions as not sent or ambiguous, with messages that name no host.

Without a connection nothing can have been sent; with one, anything may have been (`attempt.Attempt` knows which).
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

import aiohttp

from imagegate.http.messages import Interrupted, NotSent, Timeouts


def as_not_sent(exc: BaseException, timeouts: Timeouts) -> NotSent:
    """Return the failure of a request that has had no connection."""
    if isinstance(exc, TimeoutError):
        return NotSent(f"no connection within {timeouts.connect:g} s", timed_out=True)
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        return NotSent(f"the proxy refused the connection with status {exc.status}")
    if isinstance(exc, aiohttp.ClientProxyConnectionError):
        return NotSent("cannot connect to the proxy")
    return NotSent(why_not_connected(exc))


def as_interrupted(
    exc: BaseException, timeouts: Timeouts, *, in_body: bool = False, is_reused: bool = False
) -> Interrupted:
    """Return the failure of a request that may have been sent.

    Args:
        in_body: whether the head of the reply has come.
        is_reused: whether the connection has carried another request.
    """
    if isinstance(exc, TimeoutError):
        text = f"the reply stopped for {timeouts.read:g} s" if in_body else f"no reply within {timeouts.read:g} s"
        return Interrupted(text, timed_out=True)
    if in_body:
        return Interrupted("connection closed before the reply was complete")
    if isinstance(exc, aiohttp.ClientResponseError):
        return Interrupted("the reply is not valid HTTP")
    return Interrupted("connection closed without a reply", was_kept=is_reused)


def why_not_connected(exc: BaseException) -> str:
    """Say why connecting failed, from an exception or one that it was raised from."""
    causes = list(_causes(exc))
    if any(isinstance(cause, socket.gaierror | aiohttp.ClientConnectorDNSError) for cause in causes):
        return "name not resolved"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return "TLS certificate not accepted"
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "TLS handshake failed"
    if any(isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED for cause in causes):
        return "connection refused"
    return "cannot connect"


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception, what it was raised from, and the members of groups among them."""
    yield exc
    if isinstance(exc, BaseExceptionGroup):
        for member in exc.exceptions:
            yield from _causes(member)
    if (cause := exc.__cause__ or exc.__context__) is not None:
        yield from _causes(cause)
