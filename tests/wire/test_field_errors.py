"""Providers' errors of `tests/field`: what the client is told, and whether another provider is asked."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from tests.wire.field_support import KEY, Answer, Bench, check_error, check_fallback, lines

from imagegate.config.loader import default_config
from imagegate.demo.servers import serving
from imagegate.standalone import Standalone


@pytest.mark.parametrize("entry", lines("provider_errors.jsonl"), ids=lambda entry: entry["id"])
def test_errors(bench: Bench, entry: dict[str, Any]) -> None:
    body = base64.b64decode(entry["body_base64"]) if "body_base64" in entry else entry["body"].encode()
    answer = Answer(entry["status"], (("Content-Type", entry["content_type"]),), body)
    bench.first.post = answer
    check_error(bench.ask(), entry["right"])
    check_fallback(bench, answer, entry["right"])


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/edits/", "/v1/images/variations"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_methods_that_endpoints_do_not_have(method: str, path: str) -> None:
    with serving(Standalone(default_config({"OPENAI_API_KEY": KEY}))) as port:
        reply = httpx.request(method, f"http://127.0.0.1:{port}{path}")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert reply.json()["error"]["code"] == "method_not_allowed"
