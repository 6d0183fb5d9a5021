"""What went wrong with a request, in words that name no host."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

import aiohttp
from aiohttp.http import HttpProcessingError

from imagegate.http.messages import Interrupted, Timeouts


def as_failure(exc: Exception, timeouts: Timeouts, *, in_body: bool = False) -> Interrupted:
    """Maps what aiohttp raises once there is a connection."""
    match exc:
        case TimeoutError() if in_body:
            return Interrupted(f"the reply stopped for {timeouts.read:g} s", timed_out=True)
        case TimeoutError():
            return Interrupted(f"no reply within {timeouts.read:g} s", timed_out=True)
        case HttpProcessingError():
            return Interrupted("the reply is not valid HTTP")
        case _ if in_body:
            return Interrupted("connection closed before the reply was complete")
        case _:
            return Interrupted("connection closed without a reply")


def why_not_connected(exc: BaseException) -> str:
    """What an exception, or one that it was raised from, says about a failed attempt to connect."""
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
