"""Which requests of web pages a gateway without keys answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware

from imagegate.asgi.browser_guard import AccessDenied, BrowserGuard, is_loopback, is_loopback_name, is_same_origin

EVIL = "https://evil.example"


def scope_of(headers: dict[str, str], *, server: str = "127.0.0.1", method: str = "POST", **more: Any) -> Any:
    fields = [(name.encode(), value.encode("latin-1")) for name, value in {"host": "127.0.0.1:8000", **headers}.items()]
    return {"type": "http", "method": method, "headers": fields, "server": (server, 8000), **more}


def code(guard: BrowserGuard, headers: dict[str, str], **more: Any) -> str:
    """The code of the refusal; empty: there is none."""
    refusal = AccessDenied("", code="")
    try:
        guard.check(scope_of(headers, **more))
    except AccessDenied as error:
        refusal = error
    assert (refusal.status, refusal.nothing_sent) == (403, True)
    return refusal.code or ""


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, ""),
        ({"origin": "http://127.0.0.1:8000"}, ""),
        ({"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, ""),
        ({"sec-fetch-site": "none"}, ""),
        ({"sec-fetch-site": "same-site"}, ""),
        ({"origin": "https://pictures.example", "sec-fetch-site": "same-origin"}, ""),  # a proxy wrote another Host
        ({"host": "localhost", "origin": "https://localhost:443"}, ""),
        ({"host": "localhost:80", "origin": "http://localhost"}, ""),
        ({"host": "LOCALHOST:8000", "origin": "http://localhost:8000"}, ""),
        ({"origin": EVIL}, "origin_not_allowed"),
        ({"origin": "null"}, "origin_not_allowed"),
        ({"origin": ""}, "origin_not_allowed"),
        ({"origin": "http://127.0.0.1:8001"}, "origin_not_allowed"),
        ({"origin": "http://127.0.0.1"}, "origin_not_allowed"),
        ({"origin": "http://localhost:8000"}, "origin_not_allowed"),
        ({"origin": "moz-extension://127.0.0.1:8000"}, "origin_not_allowed"),
        ({"origin": "http://127.0.0.1:8000.evil.example"}, "origin_not_allowed"),
        ({"sec-fetch-site": "cross-site"}, "origin_not_allowed"),
        ({"sec-fetch-site": "Cross-Site"}, "origin_not_allowed"),
        ({"origin": EVIL, "sec-fetch-site": "cross-site"}, "origin_not_allowed"),
        ({"origin": "http://app.localhost:3000", "sec-fetch-site": "same-site"}, "origin_not_allowed"),
        ({"origin": EVIL, "authorization": "Bearer x", "content-type": "application/json"}, "origin_not_allowed"),
        ({"host": "evil.example:8000"}, "host_not_allowed"),
        ({"host": "evil.example:8000", "origin": "http://evil.example:8000"}, "host_not_allowed"),
        ({"host": "localhost.evil.example"}, "host_not_allowed"),
        ({"host": "127.0.0.1.evil.example"}, "host_not_allowed"),
        ({"host": "192.0.2.1"}, "host_not_allowed"),
        ({"host": ""}, "host_not_allowed"),
        ({"host": "[::1]:8000"}, ""),
        ({"host": "[::ffff:127.0.0.1]"}, ""),
        ({"host": "app.localhost:8000"}, ""),
        ({"host": "127.8.8.8"}, ""),
    ],
)
def test_alone_on_loopback(headers: dict[str, str], refused: str) -> None:
    """Without keys and without a host application: only its own pages, and by a name of loopback."""
    assert code(BrowserGuard(), headers) == refused
    assert code(BrowserGuard(), headers, method="GET") == refused


def test_the_host_counts_on_loopback_only() -> None:
    """A server that others reach has whatever name its operator gave it; nothing is known of a socket's file."""
    for server in ("192.0.2.7", "::ffff:192.0.2.7", "testserver", "/run/imagegate.sock"):
        assert code(BrowserGuard(), {"host": "pictures.example"}, server=server) == ""
        assert code(BrowserGuard(), {"host": "pictures.example", "origin": EVIL}, server=server) == "origin_not_allowed"
    for server in ("127.0.0.1", "127.0.1.1", "::1", "::ffff:127.0.0.1"):
        assert code(BrowserGuard(), {"host": "pictures.example"}, server=server) == "host_not_allowed"
    BrowserGuard().check({"type": "http", "method": "POST", "headers": [(b"host", b"x")]})
    two = [(b"host", b"127.0.0.1"), (b"host", b"evil.example")]
    with pytest.raises(AccessDenied, match="evil"):
        BrowserGuard().check({**scope_of({}), "headers": two})


def test_what_an_operator_allows() -> None:
    """Configured origins and hosts are let in, and nothing that only looks like them."""
    guard = BrowserGuard(origins=("https://App.example.com",), hosts=("*.example.com", "gate"), own_host="cdn.example")
    assert code(guard, {"origin": "https://app.example.com", "sec-fetch-site": "cross-site"}) == ""
    assert code(guard, {"origin": "http://app.example.com"}) == "origin_not_allowed"
    for host in ("a.example.com", "a.b.example.com:8000", "gate:80", "GATE", "cdn.example", "localhost"):
        assert code(guard, {"host": host}) == ""
    for host in ("example.com", "badexample.com", "gate.example", "a.gate"):
        for server in ("127.0.0.1", "192.0.2.7"):  # names that are configured count everywhere
            assert code(guard, {"host": host}, server=server) == "host_not_allowed"
    everything = BrowserGuard(origins=("*",), hosts=("*",))
    assert code(everything, {"host": "x", "origin": EVIL, "sec-fetch-site": "cross-site"}) == ""


def test_with_keys_nothing_is_refused_but_by_configured_hosts() -> None:
    """No page of another origin has a key."""
    assert code(BrowserGuard(keyed=True), {"host": "x", "origin": EVIL, "sec-fetch-site": "cross-site"}) == ""
    guard = BrowserGuard(keyed=True, hosts=("gate.example",))
    assert code(guard, {"host": "gate.example", "origin": EVIL}) == ""
    assert code(guard, {"host": "x"}) == "host_not_allowed"


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"host": "pictures.example"}, ""),
        ({"origin": EVIL, "content-type": "application/json"}, ""),  # its preflight was answered by the application
        ({"origin": EVIL, "content-type": "multipart/form-data; boundary=b", "authorization": "Bearer x"}, ""),
        ({"origin": EVIL, "content-type": "multipart/form-data; boundary=b", "idempotency-key": "k"}, ""),
        ({"origin": EVIL, "content-type": "Multipart/Form-Data; boundary=b"}, "origin_not_allowed"),
        ({"origin": EVIL, "content-type": "text/plain; application/json"}, "origin_not_allowed"),
        ({"origin": EVIL, "authorization": "Basic eDp5"}, "origin_not_allowed"),  # browsers add it by themselves
        ({"origin": EVIL}, "origin_not_allowed"),
        ({"origin": EVIL, "sec-fetch-site": "same-site"}, ""),
        ({"sec-fetch-site": "cross-site"}, "origin_not_allowed"),
    ],
)
def test_in_front_of_an_application(headers: dict[str, str], refused: str) -> None:
    """What browsers ask for before they send it, the application has allowed; its Host is its own matter."""
    assert code(BrowserGuard(mounted=True), headers) == refused
    assert code(BrowserGuard(), headers, app=Starlette()) == refused
    assert code(BrowserGuard(mounted=True), headers, method="GET") == ""


def test_rules_of_the_application() -> None:
    """Origins that its CORS middleware allows may send what needs no preflight as well."""
    app = Starlette()
    app.add_middleware(
        CORSMiddleware, allow_origins=["https://app.example.com"], allow_origin_regex=r"https://.*\.test"
    )
    form = {"content-type": "multipart/form-data; boundary=b", "sec-fetch-site": "cross-site"}
    guard = BrowserGuard(mounted=True)
    assert code(guard, {**form, "origin": "https://app.example.com"}, app=app) == ""
    assert code(guard, {**form, "origin": "https://a.test"}, app=app) == ""
    assert code(guard, {**form, "origin": EVIL}, app=app) == "origin_not_allowed"


@given(st.text(st.characters(codec="latin-1"), max_size=40), st.text(st.characters(codec="latin-1"), max_size=40))
def test_any_text(host: str, origin: str) -> None:
    """Whatever stands in the fields, the answer is a refusal or none."""
    assert code(BrowserGuard(), {"host": host, "origin": origin}) in ("", "origin_not_allowed", "host_not_allowed")
    assert code(BrowserGuard(), {"origin": origin}) == "" or not is_same_origin(
        origin.strip().lower(), "127.0.0.1:8000"
    )


@given(st.ip_addresses())
def test_loopback(address: Any) -> None:
    """The addresses of loopback are those that the standard library calls so."""
    assert is_loopback(str(address)) == is_loopback_name(str(address)) == address.is_loopback
