"""A mounted service under test, without a network."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import httpx

from imagegate.http.client import use_instead_of_network


@contextmanager
def offline(transport: httpx.AsyncBaseTransport | None = None) -> Generator[httpx.AsyncBaseTransport]:
    """Send what gateways send within the block through a transport, and look up no host name.

    This holds for every gateway of the process, for requests to providers, for links that they or clients name, and for
    webhooks.

    Args:
        transport: such as `httpx.MockTransport`; default: httpx's own, which respx and pytest-httpx patch, so that they
            answer and what they do not know is an error.
    """
    used = httpx.AsyncHTTPTransport() if transport is None else transport
    undo = use_instead_of_network(used)
    try:
        yield used
    finally:
        undo()
