"""Providers' replies of `tests/field`: the pictures that are in them reach the client."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from tests.wire.field_support import Bench, Reply, check_error, check_fallback, class_of, replies


@pytest.mark.parametrize("form", ["url", "b64_json"])
@pytest.mark.parametrize("reply", replies(), ids=lambda reply: reply.name)
def test_replies(bench: Bench, reply: Reply, form: str) -> None:
    origin, other = bench.first.origin, bench.other.origin
    bench.first.post, bench.first.answers = reply.answer(origin, other), reply.served(origin, other)
    asked = {"response_format": form}
    if "stream" in reply.entry:
        asked["stream"] = reply.entry["stream"]
    answered = bench.ask(**asked)
    right = reply.entry["right"]
    if "one_of" in right:
        right = next(one for one in right["one_of"] if ("pictures" in one) == (answered.status_code == 200))
    if "error" in right:
        check_error(answered, right["error"])
    else:
        check_pictures(bench, reply, answered, form, right)
    if "posts" in right:
        assert len(bench.first.posts) == right["posts"]
    if "error" in right:
        check_fallback(bench, bench.first.post, right["error"])
    assert bench.other.requests == []
    assert [provider.faults for provider in bench.providers] == [[], [], []]


def check_pictures(bench: Bench, reply: Reply, answered: httpx.Response, form: str, right: dict[str, Any]) -> None:
    assert answered.status_code == 200, answered.text[:1000]
    if "events" in right:
        events = events_of(answered.text)
        assert [name for name, _ in events] == right["events"]
        images = [document for name, document in events if name.endswith("completed")]
    else:
        document = strict(answered.content)
        assert document["data"]
        images = document["data"]
    assert [picture_of(image, form) for image in images] == [reply.picture] * right["pictures"]
    if form == "url" and "link" in right:
        assert [image["url"] for image in images] == [right["link"].replace("<origin>", bench.first.origin)]


def strict(body: bytes) -> Any:
    """JSON as RFC 8259 has it."""
    assert not body.startswith(b"\xef\xbb\xbf")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    document = json.loads(body.decode("utf-8"), parse_constant=refuse)
    json.dumps(document, ensure_ascii=False).encode("utf-8")  # fails for lone surrogates
    return document


def picture_of(image: dict[str, Any], form: str) -> bytes:
    assert {"url", "b64_json"} & set(image) == {form}
    return base64.b64decode(image["b64_json"], validate=True) if form == "b64_json" else httpx.get(image["url"]).content


def events_of(text: str) -> list[tuple[str, Any]]:
    """The events of a stream, each with the type that its name says."""
    events: list[tuple[str, Any]] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields and fields["data"] != "[DONE]":
            document = strict(fields["data"].encode())
            assert document["type"] == fields["event"]
            events.append((fields["event"], document))
    return events


def test_the_id_of_a_task_that_cannot_be_asked_for(bench: Bench) -> None:
    found = [reply for reply in replies() if "task_id" in reply.entry["right"]]
    assert found
    for reply in found:
        bench.first.post = reply.answer(bench.first.origin, bench.other.origin)
        answered = bench.ask()
        assert class_of(answered) == "uncertain"
        error = answered.json()["error"]
        assert (reply.name, error["imagegate"].get("upstream_task_id")) == (reply.name, "t1"), error
