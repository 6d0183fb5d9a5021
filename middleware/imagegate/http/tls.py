"""Trust stores and client certificates of outgoing connections."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
from pathlib import Path

import certifi

from imagegate.http.messages import NotSent


@functools.cache
def default_context() -> ssl.SSLContext:
    """Return a context with the authorities of certifi or ``SSL_CERT_FILE``, and those of the machine.

    Loaded once, because it takes long.

    Raises:
        NotSent: they cannot be loaded; an `OSError` would pass for one of the connection's.
    """
    try:
        context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
        context.load_default_certs()
    except OSError as exc:
        raise NotSent("the certificates of trusted authorities cannot be loaded; see SSL_CERT_FILE") from exc
    context.set_alpn_protocols(["http/1.1"])
    return context


async def loaded_context() -> ssl.SSLContext:
    """Return `default_context`; the first time, reading it does not keep the event loop. Raises `NotSent`."""
    is_loaded = default_context.cache_info().currsize > 0
    return default_context() if is_loaded else await asyncio.to_thread(default_context)


def context_of(ca_file: str, client_cert: str) -> ssl.SSLContext:
    """Return a context for one upstream.

    Args:
        ca_file: PEM file of authorities that are trusted in place of the default ones; empty: the default ones.
        client_cert: PEM file with a certificate chain and its unencrypted private key; empty: none is shown.

    Raises:
        OSError: a file cannot be read, or is no such PEM (`ssl.SSLError`).
    """
    context = ssl.create_default_context(cafile=ca_file or os.environ.get("SSL_CERT_FILE") or certifi.where())
    if not ca_file:
        context.load_default_certs()
    if client_cert:
        context.load_cert_chain(Path(client_cert), password=_no_password)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    """Give no password: OpenSSL would ask for that of an encrypted key on the terminal, and wait for ever."""
    raise ssl.SSLError("the private key is encrypted")
