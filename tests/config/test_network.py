"""How upstreams are reached: what a transport of the application's own takes over."""

from __future__ import annotations

import httpx
import pytest
import structlog

from imagegate import ImageGateway


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, None),
        ({"headers": {"x-team": "art"}}, None),
        ({"proxy": "http://proxy.example:3128", "reuse_connections": False}, ["proxy", "reuse_connections"]),
        ({"trust_env": True}, ["trust_env"]),
    ],
)
def test_settings_that_a_transport_replaces(settings: dict[str, object], named: list[str] | None) -> None:
    """They are named in the log; what is added to each request is sent through any transport."""
    upstream = {"name": "openai", "api_key": "k", **settings}
    for transport in (httpx.MockTransport(lambda _: httpx.Response(200)), None):
        with structlog.testing.capture_logs() as lines:
            ImageGateway(config={"upstreams": [upstream]}, transport=transport)
        found = [line["settings"] for line in lines if line["event"] == "settings have no effect beside transport="]
        assert found == ([named] if named and transport is not None else [])
