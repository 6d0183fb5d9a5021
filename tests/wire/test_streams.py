"""Streams of events over real sockets: from a provider that sends them at the test's word, and from those that do not.

Every test that lets a provider stream also holds it to one POST and to no more GETs than there are links.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.types import Receive, Scope, Send
from tests.conftest import Running
from tests.waiting import until
from tests.wire.edit_support import (
    gateway_process,
    large_picture,
    mask_for,
    node_packages,
    picture,
    posted_to,
    sha,
)
from tests.wire.stream_support import (
    EDITS,
    FINAL,
    GENERATIONS,
    KEY,
    MIB,
    PARTIAL,
    USAGE,
    Event,
    Events,
    Form,
    Gateway,
    Provider,
    all_of,
    asking,
    b64,
    completed,
    content_of,
    error_frame,
    frame,
    gateway,
    kinds,
    partial,
    record_of,
    refused,
)

from imagegate.demo.servers import serving
from imagegate.layers import Deliver

both_forms = pytest.mark.parametrize("form", ["url", "b64_json"])


@pytest.fixture(scope="module")
def providers_and_ports() -> Iterator[tuple[tuple[Provider, Provider], tuple[int, int]]]:
    first, second = Provider(), Provider()
    with serving(first) as port, serving(second) as other:
        yield (first, second), (port, other)


@pytest.fixture
def providers(
    providers_and_ports: tuple[tuple[Provider, Provider], tuple[int, int]],
) -> Iterator[tuple[Provider, Provider]]:
    """Fresh ones; whatever a test does, each is asked once at most, and each link is loaded once."""
    both, _ = providers_and_ports
    for one in both:
        one.__init__()  # type: ignore[misc]
    yield both
    for one in both:
        one.left.set()  # whoever still streams
        assert len(one.posts) <= 1
        assert len(set(one.gets)) == len(one.gets)


@pytest.fixture
def provider(providers: tuple[Provider, Provider]) -> Provider:
    return providers[0]


Ports = tuple[tuple[Provider, Provider], tuple[int, int]]


@pytest.fixture(scope="module")
def module_gate(providers_and_ports: Ports, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(providers_and_ports[1], tmp_path_factory.mktemp("streams") / "images") as gate:
        yield gate


@pytest.fixture
def gate(module_gate: Gateway) -> Gateway:
    """A gateway without records of former tests."""
    module_gate.records.all.clear()
    return module_gate


@pytest.fixture(scope="module")
def beating(providers_and_ports: Ports, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with quick signs of life, which asks again where that costs nothing."""
    store = tmp_path_factory.mktemp("beating") / "images"
    beats = 'heartbeat = "50ms"\nstream_heartbeat = "50ms"'
    with gateway(providers_and_ports[1], store, beats, retries=1) as gate:
        yield gate


# Providers that stream


@both_forms
def test_event_by_event(gate: Gateway, provider: Provider, form: Form) -> None:
    """Each event is with the client before the provider has sent the next one."""
    provider.say(partial(0))  # before it nothing is answered: the status could still become another one
    with asking(gate, form, partial_images=2) as events:
        for index in range(2):
            event = events.next()
            assert event is not None
            assert (event.name, event.data["partial_image_index"]) == ("image_generation.partial_image", index)
            assert content_of(event, form) == PARTIAL
            provider.say(partial(1) if index == 0 else completed())
        last = events.next()
        assert last is not None
        assert (last.name, last.data["usage"]) == ("image_generation.completed", USAGE)
        assert content_of(last, form) == FINAL
        provider.end()
        assert events.next() is None
        assert events.reply.headers["cache-control"] == "no-cache"
        assert events.reply.headers["imagegate-upstream"] == "openai"
    assert (provider.document["stream"], provider.document["partial_images"]) == (True, 2)
    record = record_of(gate)
    assert (record.images_made, record.images_delivered, record.form) == (1, 1, form)
    assert (record.status, record.outcome_class) == (200, "ok")
    assert record.upstream_request_id == "req-of-the-provider"
    assert (record.usage, record.streamed, record.sizes_made) == (USAGE, True, ("256x256",))


def test_base64_is_the_providers_to_the_last_byte(gate: Gateway, provider: Provider) -> None:
    """What need not change does not, unknown members, ids and order among them; what OpenAI's clients do not know is
    left out."""
    sent = [
        partial(0, unknown={"deep": [1, 2.50, "é\u2028"]}, background="opaque"),
        frame("image_generation.thought", {"text": "A kite, imagegate-picture, \\u0041"}),
        b"retry: 50\nid: 7\n" + completed(moderation=None),
        b"data: [DONE]\n\n",
    ]
    foreign = [frame("", {"type": "ping"}), frame("note", 'plain } text, "not JSON'), frame("keepalive", {})]
    provider.says(foreign[0], *sent[:2], *foreign[1:], *sent[2:])
    raws = [event.raw for event in all_of(gate, "b64_json")]
    assert [raw.replace(b"id: 7\nretry: 50", b"retry: 50\nid: 7") for raw in raws] == sent


def test_links_in_place_of_base64(gate: Gateway, provider: Provider) -> None:
    """Only the picture changes; all other members are what they were."""
    provider.says(partial(0, unknown={"deep": [1]}), completed(quality="low", b64="x"))
    first, last = all_of(gate, "url")
    assert set(first.data) == {"type", "created_at", "partial_image_index", "size", "unknown", "url"}
    assert (first.data["unknown"], last.data["quality"], last.data["b64"]) == ({"deep": [1]}, "low", "x")
    assert (content_of(first, "url"), content_of(last, "url")) == (PARTIAL, FINAL)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_spelling_of_a_stream(gate: Gateway, provider: Provider, end: str) -> None:
    """All line ends, comments anywhere, a byte order mark, data over several lines, cut into single bytes."""
    document = json.dumps({"type": "image_generation.completed", "b64_json": b64(FINAL)}, indent=1)
    data = "".join(f"data:{line}{end}" for line in document.split("\n"))
    text = f"\ufeff: hello{end}{end}:{end}event:image_generation.completed{end}: x{end}{data}nonsense: 1{end}{end}"
    provider.says(*(bytes([byte]) for byte in text.encode()[:120]), text.encode()[120:])
    (event,) = all_of(gate, "b64_json")
    assert event.name == "image_generation.completed"
    assert content_of(event, "b64_json") == FINAL


@both_forms
@pytest.mark.parametrize(
    "members",
    [
        {"url": "<own>/files/final.png"},
        {"url": "/files/final.png"},
        {"url": "/files/final.png", "b64_json": None},
        {"url": f"data:image/png;base64,{b64(FINAL)}"},
        {"url": f"data:image/png;base64,{b64(FINAL)}", "b64_json": None},
    ],
    ids=["link", "relative", "link and null", "data", "data and null"],
)
def test_links_of_the_provider(gate: Gateway, provider: Provider, form: Form, members: dict[str, Any]) -> None:
    """A provider's link is a link in full, or the base64 of what is there; one that holds its picture is no link."""
    document = {"type": "image_generation.completed", "prompt": "imagegate-picture", **members, "seed": 3}
    provider.says(frame("image_generation.completed", document))
    (event,) = all_of(gate, form)
    assert event.data.pop("b64_json", None) is None or form == "b64_json" or pytest.fail("both forms")
    assert (event.data["prompt"], event.data["seed"]) == ("imagegate-picture", 3)
    if form == "url":
        assert event.data["url"].startswith("http://")
        provider.gets.clear()
        assert httpx.get(event.data["url"]).content == FINAL
    else:
        assert base64.b64decode(json.loads(event.raw.partition(b"data: ")[2])["b64_json"]) == FINAL
        assert "url" not in event.data
        assert len(provider.gets) == (0 if members["url"].startswith("data:") else 1)


@both_forms
@pytest.mark.parametrize("other", [None, "https://images.example.com/a.png"])
def test_both_members_in_one_event(gate: Gateway, provider: Provider, form: Form, other: str | None) -> None:
    """Where base64 is there, a link beside it is neither loaded nor taken for the one that was asked for."""
    provider.says(completed(url=other))
    (event,) = all_of(gate, form)
    if form == "url":
        assert content_of(event, "url") == FINAL
        assert event.data["url"].startswith(gate.url)
    else:
        assert base64.b64decode(event.data["b64_json"]) == FINAL
        assert event.data["url"] == other
    assert provider.gets == []


@both_forms
def test_a_whole_reply_in_one_event(gate: Gateway, provider: Provider, form: Form) -> None:
    """Relays that stream a single event with a ``data`` list: each picture becomes OpenAI's event."""
    provider.says(frame("", {"created": 1, "data": [{"b64_json": b64(PARTIAL)}, {"url": "/files/final.png"}]}))
    events = all_of(gate, form, n=2)
    assert [event.name for event in events] == ["image_generation.completed"] * 2
    provider.gets.clear()
    for event, content in zip(events, (PARTIAL, FINAL), strict=True):
        loaded = (
            base64.b64decode(event.data["b64_json"]) if form == "b64_json" else httpx.get(event.data["url"]).content
        )
        assert loaded == content


def test_several_pictures(gate: Gateway, provider: Provider) -> None:
    """One completed event for each."""
    provider.says(completed(), partial(), completed(usage=None), b"data: [DONE]\n\n")
    events = all_of(gate, "url", n=2)
    assert kinds(events) == ["completed", "partial_image", "completed", ""]
    assert len({event.data["url"] for event in events[:3]}) == 3


# Errors


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ({"type": "invalid_request_error", "code": "invalid_value", "param": "size"}, 400, "invalid_value"),
        ({"type": "rate_limit_error", "code": "rate_limit_exceeded"}, 429, "rate_limit_exceeded"),
        ({"type": "image_generation_user_error", "code": "moderation_blocked"}, 400, "moderation_blocked"),
        ({"type": "server_error", "code": None}, 502, "upstream_error"),
        ({"code": 401}, 401, "401"),
    ],
    ids=lambda value: str(value)[:24],
)
@pytest.mark.parametrize("comments", [b"", b": waiting\n\n"])
def test_error_in_the_first_event(
    gate: Gateway, provider: Provider, error: dict[str, Any], status: int, code: str, comments: bytes
) -> None:
    """An error before anything else is the answer itself, with the status that it means, and without our secrets."""
    provider.says(comments + error_frame(f"No, says 127.0.0.1 to {KEY}.", **error))
    reply, found = refused(gate)
    assert (reply.status_code, found["code"], found["param"]) == (status, code, error.get("param"))
    assert found["message"].startswith("No, says")
    assert KEY not in reply.text


def test_refusals_before_the_stream(gate: Gateway, provider: Provider) -> None:
    """JSON with a status of its own, as OpenAI and Ark answer what is wrong with the request."""
    provider.status, provider.content_type = 400, "application/json"
    provider.says(json.dumps({"error": {"message": "Bad size", "type": "x", "param": "size", "code": "y"}}).encode())
    reply, found = refused(gate)
    assert (reply.status_code, found["param"], found["message"]) == (400, "size", "Bad size")


@both_forms
def test_error_in_a_later_event(gate: Gateway, provider: Provider, form: Form) -> None:
    """An error after the first event is an event, and the last one."""
    provider.says(partial(), error_frame(f"Overloaded {KEY}", type="rate_limit_error"), completed())
    events = all_of(gate, form)
    assert kinds(events) == ["partial_image", "error"]
    error = events[1].data["error"]
    assert (error["message"], error["type"], error["imagegate"]) == (
        "Overloaded [...]",
        "rate_limit_error",
        {"upstream": "openai"},
    )
    record = record_of(gate)
    assert (record.status, record.outcome_class, record.images_delivered) == (200, "uncertain", 0)


def later_error(gate: Gateway, form: Form | None = None, **members: Any) -> dict[str, Any]:
    """The error after one event."""
    before = gate.stored
    events = all_of(gate, form, **members)
    assert kinds(events) == ["partial_image", "error"]
    if form == "url":
        assert content_of(events[0], form) == PARTIAL
    until(lambda: len(gate.stored) == len(before) + (form == "url"))  # what nobody has a link to is taken back
    error: dict[str, Any] = events[1].data["error"]
    assert set(error) - {"imagegate"} == {"message", "type", "param", "code"}
    return error


@both_forms
@pytest.mark.parametrize("rest", [b"", completed()[:60], completed()[:-40], b"event: image_generation.completed\n"])
@pytest.mark.parametrize("clean", [True, False], ids=["ended", "cut"])
def test_streams_that_break_off(gate: Gateway, provider: Provider, form: Form, rest: bytes, clean: bool) -> None:
    """Between events and within one, with the connection or without: an error event, and nothing half."""
    provider.say(partial(), rest)
    if clean:
        provider.end()
    else:
        provider.cut()
    error = later_error(gate, form)
    assert error["code"] == ("fewer_images" if clean and not rest else "upstream_uncertain")


@pytest.mark.parametrize("clean", [True, False], ids=["ended", "cut"])
def test_a_stream_that_breaks_off_before_its_first_event(gate: Gateway, provider: Provider, clean: bool) -> None:
    """Nothing has been said yet, so the answer is an error that forbids another try."""
    provider.say(b": hello\n\n", completed()[:-40])
    if clean:
        provider.end()
    else:
        provider.cut()
    reply, error = refused(gate, "url")
    assert (reply.status_code, error["code"], reply.headers["x-should-retry"]) == (502, "upstream_uncertain", "false")


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_last_event_without_its_empty_line(gate: Gateway, provider: Provider, cut: int) -> None:
    """A picture that is whole is delivered; so is an end mark."""
    provider.says(partial(), completed()[:-cut] if cut < 3 else completed() + b"data: [DONE]")
    assert kinds(all_of(gate, "url"))[:2] == ["partial_image", "completed"]


@pytest.mark.parametrize("mark", [b"data: [DONE]\n\n", b""])
def test_fewer_pictures_than_asked_for(gate: Gateway, provider: Provider, mark: bytes) -> None:
    """The error is there before the mark at which SDKs stop reading."""
    provider.says(completed(), mark)
    with (
        openai.OpenAI(base_url=f"{gate.url}/v1", api_key="any", max_retries=2) as client,
        pytest.raises(openai.APIError, match="made 1 of 2 images"),
    ):
        list(client.images.generate(model="openai/gpt-image-1", prompt="x", n=2, stream=True))


def test_nothing_is_read_after_the_end_mark(gate: Gateway, provider: Provider) -> None:
    """A provider that leaves the connection open, or breaks it, after its mark has ended all the same."""
    provider.say(completed(), b"data: [DONE]\n\n", b"data: never")
    assert kinds(all_of(gate, "url")) == ["completed", ""]
    until(provider.left.is_set)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html", b"<html><body>Bad gateway</body></html>"),
        ("text/event-stream", b"<html>\n<body>" + b"x" * 10_000 + b"</body>\n</html>"),
        ("text/event-stream", b""),
        ("text/event-stream", b": waiting\n\n"),
        ("text/event-stream", b"data: [DONE]\n\n"),
        ("text/event-stream", b"event: " + b"x" * 10_000 + b"\n\n"),
        ("text/event-stream", frame("image_generation.completed", {"usage": USAGE})),
        ("text/event-stream", frame("note", {"text": "x" * 5 * MIB})),
        ("text/event-stream", frame("note", "x" * 5 * MIB)),
        ("text/event-stream", b"data: {]}\n\n"),
        ("application/json", b'{"created": 1, "data": []}'),
        ("application/json", b"[]"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_no_stream_at_all(gate: Gateway, provider: Provider, content_type: str, body: bytes) -> None:
    """Whatever else a provider answers with 200: an error that forbids another try, or events without a picture."""
    provider.content_type = content_type
    provider.says(body)
    with asking(gate, "url") as events:
        status, text = events.reply.status_code, events.reply.read()
    if status == 200:
        assert b"event: error" in text
        assert b"fewer_images" in text
    else:
        assert (status, events.reply.headers["x-should-retry"]) == (502, "false")
        assert json.loads(text)["error"]["type"] == "upstream_error"


def test_a_provider_that_falls_silent(providers_and_ports: Ports, provider: Provider, tmp_path: Path) -> None:
    """In mid-stream it is an error event that says so; what came before stays."""
    provider.say(partial(), completed()[:50])
    quick = '[[upstreams]]\nread_timeout = "1s"\n'
    with gateway(providers_and_ports[1][:1], tmp_path / "images", upstream=quick) as gate:
        assert later_error(gate, "b64_json")["code"] == "upstream_timeout"
    until(provider.left.is_set)


@both_forms
@pytest.mark.parametrize("event", [frame("note", {"text": "x" * 5 * MIB}), frame("note", "x" * 5 * MIB)])
def test_too_large_without_a_picture(gate: Gateway, provider: Provider, form: Form, event: bytes) -> None:
    """An event that would have to be held is refused; those before it stay."""
    provider.says(partial(), event, completed())
    assert "too large" in later_error(gate, form)["message"]


@both_forms
@pytest.mark.parametrize("encoded", ["!!!!", b64(FINAL)[:-6] + "=A==", b64(FINAL) + "\\n\\u0000"])
def test_broken_base64(gate: Gateway, provider: Provider, form: Form, encoded: str) -> None:
    """A picture that cannot be read is never sent on."""
    data = '{"type":"image_generation.completed","b64_json":"' + encoded + '"}'
    provider.says(partial(), frame("image_generation.completed", data))
    assert "base64" in later_error(gate, form)["message"]


def test_what_is_no_image_gets_no_link(gate: Gateway, provider: Provider) -> None:
    """Base64 of something else cannot be stored as a picture."""
    provider.says(partial(), completed(b64_json=b64(b"<html>" + bytes(100))))
    assert "not an image" in later_error(gate, "url")["message"]


def test_unknown_formats_pass_as_base64(gate: Gateway, provider: Provider) -> None:
    """Formats that nobody knows yet are the client's business, where nothing has to be stored."""
    provider.says(completed(b64_json=b64(b"a new format" + bytes(100))))
    (event,) = all_of(gate, "b64_json")
    assert content_of(event, "b64_json").startswith(b"a new format")


def test_invalid_json_around_a_picture(gate: Gateway, provider: Provider) -> None:
    """Where the picture must be replaced, its document must be readable; where not, it goes on as it is."""
    event = frame("image_generation.completed", '{"b64_json":"' + b64(FINAL) + '","x":}')
    provider.says(partial(), event)
    assert "JSON" in later_error(gate, "url")["message"]


def test_a_link_that_cannot_be_read(gate: Gateway, provider: Provider) -> None:
    """The picture is paid for, so what the provider wrote is in the error; without the key that loaded it."""
    provider.says(partial(), completed(b64_json=None, url="/files/nowhere.png"))
    error = later_error(gate, "b64_json")
    assert error["code"] == "image_fetch_failed"
    assert "'/files/nowhere.png'" in error["message"]
    assert provider.gets == ["/files/nowhere.png"]


@pytest.mark.parametrize("link", ["ftp://example.com/a.png", "javascript:alert(1)", "http://[bad/x.png", "https://"])
def test_a_link_that_is_none(gate: Gateway, provider: Provider, link: str) -> None:
    provider.says(partial(), completed(b64_json=None, url=link))
    assert "invalid link" in later_error(gate, "url")["message"]


def test_the_store_fails_in_mid_stream(providers_and_ports: Ports, provider: Provider, tmp_path: Path) -> None:
    """The first picture is there; the second one is an error without its base64, and without another try."""
    provider.say(partial())
    with gateway(providers_and_ports[1], tmp_path / "images") as gate, asking(gate, "url") as events:
        first = events.next()
        assert first is not None
        assert content_of(first, "url") == PARTIAL
        shutil.rmtree(gate.store)
        gate.store.write_text("in its place")
        provider.says(completed())
        last = events.next()
        assert last is not None
        assert events.next() is None
    assert (last.name, last.data["error"]["code"]) == ("error", "storage_failed")
    assert b"b64_json" not in last.raw
    assert str(tmp_path).encode() not in last.raw


def test_the_store_fails_before_the_stream(providers_and_ports: Ports, provider: Provider, tmp_path: Path) -> None:
    """Nothing is sent upstream, so nothing is paid."""
    (tmp_path / "images").write_text("in its place")
    with gateway(providers_and_ports[1], tmp_path / "images") as gate:
        reply, error = refused(gate, "url")
    assert (reply.status_code, error["code"]) == (503, "store_unavailable")
    assert provider.posts == []


# Candidates


@both_forms
def test_the_second_candidate_before_the_first_event(
    gate: Gateway, providers: tuple[Provider, Provider], form: Form
) -> None:
    """A provider's own refusal in its first event lets the next one stream."""
    first, second = providers
    first.says(error_frame("Slow down", type="rate_limit_error"))
    second.says(partial(), completed())
    with asking(gate, form, model="both") as events:
        assert kinds(list(events)) == ["partial_image", "completed"]
        assert events.reply.headers["imagegate-upstream"] == "second"
    assert (len(first.posts), len(second.posts)) == (1, 1)


@pytest.mark.parametrize("error", [error_frame("Slow down", type="rate_limit_error"), error_frame("x", code=503)])
def test_no_other_candidate_after_the_first_event(
    beating: Gateway, providers: tuple[Provider, Provider], error: bytes
) -> None:
    """What has begun to come was paid for."""
    first, second = providers
    first.says(partial(), error)
    later_error(beating, "b64_json", model="both")
    assert (len(first.posts), len(second.posts)) == (1, 0)


# Seedream


def test_seedream(gate: Gateway, provider: Provider) -> None:
    """Each of its pictures is an event as OpenAI's clients know it. Its last event has the name of one, and no picture:
    what it says of tokens counts."""
    last = frame("image_generation.completed", {"type": "image_generation.completed", "usage": USAGE})
    pictures = [
        {"type": "image_generation.partial_succeeded", "image_index": place, "b64_json": b64(FINAL), "size": "64x64"}
        for place in range(2)
    ]
    frames = [frame("image_generation.partial_succeeded", document) for document in pictures]
    provider.says(*frames, last, b"data: [DONE]\n\n")
    first, second, end = all_of(gate, "b64_json", model="openai/seedream-4-5", n=2)
    assert [first.name, second.name] == ["image_generation.completed"] * 2
    assert (first.data["b64_json"], first.data["size"], first.data["image_index"]) == (b64(FINAL), "64x64", 0)
    assert end.raw == b"data: [DONE]\n\n"
    record = record_of(gate)
    assert (record.images_made, record.usage) == (2, USAGE)


def test_seedream_tells_of_an_image_that_failed(gate: Gateway, provider: Provider) -> None:
    """Those that were made are delivered, and the error at the end says why there are no more."""
    failed = {"type": "image_generation.partial_failed", "error": {"code": "OutputImageSensitiveContentDetected"}}
    made = {"type": "image_generation.partial_succeeded", "image_index": 0, "b64_json": b64(FINAL)}
    last = {"type": "image_generation.completed", "usage": USAGE}
    provider.says(*(frame(document["type"], document) for document in (made, failed, last)))
    first, error = all_of(gate, "b64_json", model="openai/seedream-4-5")
    assert (first.name, error.name) == ("image_generation.completed", "error")
    assert error.data["error"]["code"] == "moderation_blocked"
    assert error.data["error"]["message"].startswith("1 of 2 images were made, then: ")


NOT_MADE = frame(
    "image_generation.partial_failed",
    {"type": "image_generation.partial_failed", "image_index": 0, "error": {"code": "InternalServiceError"}},
)
NO_MORE = frame("image_generation.completed", {"type": "image_generation.completed", "usage": {"generated_images": 0}})


def test_a_stream_without_any_image_is_refused(gate: Gateway, providers: tuple[Provider, Provider]) -> None:
    """As where the same is said in JSON: nothing was made, so the next candidate is asked, and nothing is counted."""
    first, second = providers
    first.says(NOT_MADE, NO_MORE, b"data: [DONE]\n\n")
    second.says(completed())
    with asking(gate, "b64_json", model="both") as events:
        assert kinds(list(events)) == ["completed"]
        assert events.reply.headers["imagegate-upstream"] == "second"
    assert (len(first.posts), len(second.posts)) == (1, 1)
    assert [call.outcome for call in record_of(gate).calls] == ["rejected", "ok"]


UNSAFE = frame(
    "image_generation.partial_failed",
    {"type": "image_generation.partial_failed", "image_index": 1, "error": {"code": "OutputImageSensitiveContent"}},
)


@pytest.mark.parametrize(
    ("frames", "members", "outcome"),
    [
        ([NOT_MADE], {"n": 4}, "uncertain"),
        ([NOT_MADE], {"n": 4, "stream": False}, "uncertain"),
        ([NOT_MADE, UNSAFE, NO_MORE], {"n": 2}, "rejected"),
        ([NOT_MADE, UNSAFE, NO_MORE], {"n": 2, "stream": False}, "rejected"),
    ],
    ids=["cut", "cut, not asked for", "unsafe", "unsafe, not asked for"],
)
def test_no_other_candidate_where_an_image_may_have_been_made_or_none_may_be(
    gate: Gateway,
    providers: tuple[Provider, Provider],
    frames: list[bytes],
    members: dict[str, Any],
    outcome: str,
) -> None:
    """A stream that is cut says nothing of the other images, and one refusal for the content is one for all."""
    first, second = providers
    first.says(*frames)
    with asking(gate, "b64_json", model="both", **members) as events:
        text = events.reply.read().decode()
    assert '"error"' in text
    assert (len(first.posts), len(second.posts)) == (1, 0)
    assert [call.outcome for call in record_of(gate).calls] == [outcome]


def test_a_failed_image_before_one_that_was_made(gate: Gateway, provider: Provider) -> None:
    """What was said of the first one is not lost."""
    made = {"type": "image_generation.partial_succeeded", "image_index": 1, "b64_json": b64(FINAL)}
    provider.says(NOT_MADE, frame("image_generation.partial_succeeded", made), NO_MORE)
    first, error = all_of(gate, "b64_json", model="openai/seedream-4-5")
    assert (first.name, error.name) == ("image_generation.completed", "error")
    assert error.data["error"]["message"].startswith("1 of 2 images were made, then: ")


# Streams that were not asked for


def asked_whole(gate: Gateway, model: str, **members: Any) -> httpx.Response:
    document = {"model": model, "prompt": "A kite", "response_format": "b64_json", **members}
    return httpx.post(gate.url + GENERATIONS, json=document, timeout=30)


@pytest.mark.parametrize("size", [0, 2 * MIB], ids=["small", "large"])
@pytest.mark.parametrize(
    "error", [error_frame("Broken", code="InternalServiceError"), error_frame("Unsafe", code="content_policy")]
)
def test_a_picture_before_an_error_is_not_bought_again(
    gate: Gateway, providers: tuple[Provider, Provider], error: bytes, size: int
) -> None:
    """It was paid for, and is delivered."""
    first, second = providers
    content = b64(FINAL + bytes(size))
    made = {"type": "image_generation.completed", "b64_json": content}
    first.says(frame("image_generation.completed", made), error)
    reply = asked_whole(gate, "both")
    assert (reply.status_code, [item["b64_json"] for item in reply.json()["data"]]) == (200, [content])
    assert (len(first.posts), len(second.posts)) == (1, 0)


@pytest.mark.parametrize("is_first", [True, False])
def test_an_image_that_failed_is_told(gate: Gateway, provider: Provider, is_first: bool) -> None:
    """Beside the one that was made."""
    made = {"type": "image_generation.partial_succeeded", "image_index": 1, "b64_json": b64(FINAL)}
    frames = [NOT_MADE, frame("image_generation.partial_succeeded", made)]
    provider.says(*(frames if is_first else reversed(frames)), NO_MORE)
    reply = asked_whole(gate, "openai/seedream-4-5")
    error = reply.json()["error"]
    assert error["message"].startswith("1 of 2 images were made, then: ")
    assert reply.headers["x-should-retry"] == "false"
    assert len(error["imagegate"]["data"]) == 1


def test_a_stream_that_breaks_off_after_a_picture(gate: Gateway, provider: Provider) -> None:
    """It lists the picture."""
    made = {"type": "image_generation.partial_succeeded", "image_index": 0, "b64_json": b64(FINAL)}
    provider.say(frame("image_generation.partial_succeeded", made))
    provider.cut()
    reply = asked_whole(gate, "openai/seedream-4-5", n=2)
    assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")
    assert len(reply.json()["error"]["imagegate"]["data"]) == 1


# Streams that the gateway makes itself


def synthetic(url: str, form: Form | None, n: int = 1, kind: str = "image_generation", **members: Any) -> list[Event]:
    """A stream that the gateway makes: nothing but completed events with whole pictures."""
    events = all_of(url, form, n=n, **members)
    assert [event.name for event in events] == [f"{kind}.completed"] * n
    for event in events:
        assert event.data["type"] == event.name
        assert isinstance(event.data["created_at"], int)
        if form is not None:
            assert content_of(event, form).startswith(b"\x89PNG")
    return events


NO_STREAM = ["onetoken/gpt-image-2", "tokenlab/gpt-image-2", "tokenlab/flux-pro", "toapis/gpt-image-1.5-official"]


@both_forms
@pytest.mark.parametrize("model", NO_STREAM)
def test_models_that_do_not_stream(running: Running, model: str, form: Form) -> None:
    """Synchronous ones and tasks, with links or base64 of their own: the provider is not asked for a stream."""
    with posted_to(running) as posts, asking(running.url, form, model=model, partial_images=2) as events:
        changes = events.reply.headers["imagegate-changes"]
        (event,) = list(events)
    assert "stream;dropped" in changes
    assert "partial_images;dropped" in changes
    assert event.name == "image_generation.completed"
    assert content_of(event, form).startswith(b"\x89PNG")
    provider = model.partition("/")[0]
    assert {"stream", "partial_images"} & set(posts[provider][-1].json) == set()
    assert set(posts) == {provider}


@pytest.mark.parametrize("model", ["tokenlab/flux-pro", "toapis/gpt-image-1.5-official", "tokmodel/openai/dall-e-3"])
def test_streams_have_base64_where_no_form_is_named(running: Running, model: str) -> None:
    """As OpenAI's do, whatever the model is called: the SDKs' events have no other member for a picture."""
    (event,) = synthetic(running.url, None, model=model)
    assert content_of(event, "b64_json").startswith(b"\x89PNG")
    assert "url" not in event.data


@both_forms
@pytest.mark.parametrize("model", ["onetoken/gpt-image-2", "tokenlab/gpt-image-2", "toapis/gpt-image-1.5-official"])
def test_three_pictures(running: Running, model: str, form: Form) -> None:
    """One event for each."""
    synthetic(running.url, form, 3, model=model)


def test_more_pictures_than_a_model_makes(running: Running) -> None:
    """A request that is split answers with one stream."""
    synthetic(running.url, "url", 3, model="tokmodel/openai/dall-e-3")


def test_a_split_request_to_a_model_that_streams(providers_and_ports: Ports, tmp_path: Path) -> None:
    """The parts answer whole, which is disclosed, and the stream is made of them."""
    parts: list[Any] = []

    async def whole(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        parts.append(json.loads((await receive())["body"]))
        body = {"created": 5, "data": [{"b64_json": b64(FINAL)}], "usage": USAGE, "quality": "low", "mood": "good"}
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    with (
        serving(whole) as port,
        gateway([port], tmp_path / "images") as gate,
        asking(gate, "b64_json", model="openai/one-at-a-time", n=3, partial_images=1) as events,
    ):
        changes = events.reply.headers["imagegate-changes"]
        found = list(events)
    assert [part.get("stream") for part in parts] == [None] * 3
    assert 'n;from=3;to="1+1+1"' in changes
    assert "stream;dropped" in changes
    assert "partial_images;dropped" in changes
    assert [content_of(event, "b64_json") for event in found] == [FINAL] * 3
    assert [event.data["quality"] for event in found] == ["low"] * 3
    assert [event.data.get("usage") for event in found[:2]] == [None] * 2
    assert found[2].data["usage"]["total_tokens"] == 3 * USAGE["total_tokens"]
    assert found[2].data["mood"] == "good"


@both_forms
def test_json_in_place_of_a_stream(gate: Gateway, provider: Provider, form: Form) -> None:
    """A provider that was asked for a stream and answers whole."""
    provider.content_type = "application/json"
    provider.says(json.dumps({"created": 5, "data": [{"b64_json": b64(FINAL), "seed": 1}], "usage": USAGE}).encode())
    (event,) = synthetic(gate.url, form, model="openai/gpt-image-1")
    assert (event.data["created_at"], event.data["seed"], event.data["usage"]) == (5, 1, USAGE)
    assert (event.data["size"], event.data["output_format"]) == ("256x256", "png")
    assert provider.document["stream"] is True


@both_forms
def test_a_large_reply_in_place_of_a_stream(gate: Gateway, provider: Provider, form: Form) -> None:
    """Its pictures come out of the spool, or have gone into the store already."""
    pictures = [large_picture(1_500_000, seed)[:1_500_000] for seed in range(2)]
    provider.content_type = "application/json"
    provider.says(json.dumps({"created": 5, "data": [{"b64_json": b64(one)} for one in pictures]}).encode())
    events = all_of(gate, form, n=2)
    assert [sha(content_of(event, form)) for event in events] == [sha(one) for one in pictures]


def test_errors_of_models_that_do_not_stream(running: Running) -> None:
    """Before anything is sent they are what they are without a stream."""
    with asking(running.url, model="onetoken/gpt-image-2", size="1000x10") as events:
        events.reply.read()
    assert (events.reply.status_code, events.reply.json()["error"]["param"]) == (400, "size")


@both_forms
@pytest.mark.parametrize("model", ["onetoken/gpt-image-2", "tokenlab/gpt-image-2", "toapis/gpt-image-1.5-official"])
def test_edits_that_do_not_stream(running: Running, model: str, form: Form) -> None:
    """A form with ``stream`` in a text part; its events are those of edits."""
    files = {"image": ("a.png", picture(3), "image/png")}
    data = {"model": model, "prompt": "Blue", "stream": "true", "response_format": form}
    with httpx.stream("POST", running.url + EDITS, data=data, files=files, timeout=30) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        (event,) = list(Events(reply))
    assert event.name == "image_edit.completed"
    assert content_of(event, form).startswith(b"\x89PNG")


@pytest.mark.parametrize("late", [False, True], ids=["stream first", "image first"])
@pytest.mark.parametrize("size", [100, 9_000_000])
def test_edits_that_stream(gate: Gateway, provider: Provider, size: int, late: bool) -> None:
    """A form goes upstream with its ``stream``, wherever it stands in one that may be sent on while it comes in."""
    provider.says(partial(kind="image_edit"), completed(kind="image_edit"))
    image = ("image", ("a.png", large_picture(size)[: max(size, len(picture()))], "image/png"))
    stream: list[Any] = [("stream", (None, "true")), ("partial_images", (None, "1"))]
    known: list[Any] = [("model", (None, "openai/gpt-image-1")), ("prompt", (None, "Blue"))]
    parts = [*known, image, *stream] if late else [*known, *stream, image]
    with httpx.stream("POST", gate.url + EDITS, files=parts, timeout=30) as reply:
        events = list(Events(reply))
    assert [event.name for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    ((path, _, body),) = provider.posts
    assert path == EDITS
    assert b'name="stream"\r\n\r\ntrue\r\n' in body


def test_streams_that_were_not_asked_for(gate: Gateway, provider: Provider) -> None:
    """``stream: false`` is JSON, whatever else."""
    provider.content_type = "application/json"
    provider.says(json.dumps({"created": 5, "data": [{"b64_json": b64(FINAL)}]}).encode())
    with asking(gate, "b64_json", stream=False) as events:
        assert json.loads(events.reply.read()) == {"created": 5, "data": [{"b64_json": b64(FINAL)}]}


@pytest.mark.parametrize("stream", ["true", 1, "yes", []])
def test_what_is_no_boolean(gate: Gateway, provider: Provider, stream: Any) -> None:
    reply, error = refused(gate, stream=stream)
    assert (reply.status_code, error["param"], error["code"]) == (400, "stream", "invalid_type")
    assert provider.posts == []


# Signs of life


def test_signs_of_life(beating: Gateway, provider: Provider) -> None:
    """Comments before the first event and between events, never inside one."""
    with asking(beating, "b64_json") as events:
        assert events.block() == b": waiting\n\n"
        provider.say(partial()[:100])
        assert events.block() == b": waiting\n\n"
        provider.say(partial()[100:])
        first = events.next()
        assert first is not None
        assert first.raw == partial()
        assert events.block() == b": waiting\n\n"
        provider.says(completed())
        last = events.next()
        assert last is not None
        assert last.raw == completed()
        assert events.next() is None


def test_an_error_after_a_sign_of_life(beating: Gateway, provider: Provider) -> None:
    """The status is gone, so the error is an event, and the next candidate may still answer."""
    with asking(beating) as events:
        assert events.block() == b": waiting\n\n"
        provider.says(error_frame("Bad size", type="invalid_request_error", param="size"))
        event = events.next()
        assert event is not None
        assert events.next() is None
    assert (event.name, event.data["error"]["param"], event.data["type"]) == ("error", "size", "error")


def test_another_candidate_after_a_sign_of_life(beating: Gateway, providers: tuple[Provider, Provider]) -> None:
    first, second = providers
    with asking(beating, model="both") as events:
        assert events.block() == b": waiting\n\n"
        first.says(error_frame("Slow down", type="rate_limit_error"))
        second.says(completed())
        assert kinds(list(events)) == ["completed"]


@pytest.mark.parametrize("size", [1000, 3_000_000])
@both_forms
def test_white_space_before_json(beating: Gateway, provider: Provider, form: Form, size: int) -> None:
    """A reply that takes its time begins with white space and is valid JSON, also where it is passed on."""
    content = large_picture(size)[: max(size, len(picture()))]
    provider.content_type = "application/json"
    with asking(beating, form, stream=False) as events:
        pieces = events.reply.iter_raw()
        assert next(pieces) == b" "
        body = json.dumps({"created": 5, "data": [{"b64_json": b64(content)}]}).encode()
        provider.say(body[:50])
        assert next(pieces) == b" "
        provider.says(body[50:])
        document = json.loads(b"".join(pieces))
    assert (events.reply.status_code, document["created"]) == (200, 5)
    (image,) = document["data"]
    assert sha(httpx.get(image["url"]).content if form == "url" else base64.b64decode(image["b64_json"])) == sha(
        content
    )


def test_an_error_after_white_space(beating: Gateway, provider: Provider) -> None:
    """Its status is 200: that is the price."""
    provider.content_type = "application/json"
    with asking(beating, "url", stream=False) as events:
        pieces = events.reply.iter_raw()
        assert next(pieces) == b" "
        provider.says(json.dumps({"error": {"message": "No", "code": "moderation_blocked"}}).encode())
        document = json.loads(b"".join(pieces))
    assert events.reply.status_code == 200
    assert document["error"]["code"] == "moderation_blocked"


# Readers that do not read, and those that leave


@contextlib.contextmanager
def raw_request(gate: Gateway, **members: Any) -> Iterator[socket.socket]:
    """A request on a socket that reads little."""
    body = json.dumps({"model": "openai/gpt-image-1", "prompt": "A kite", **members}).encode()
    host, port = gate.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.settimeout(30)
        client.connect((host, int(port)))
        head = f"POST {GENERATIONS} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        client.sendall(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        yield client


def settled(provider: Provider) -> int:
    """Bytes that the provider could send until nobody took more."""
    last, same = -1, 0
    while same < 25:
        same = same + 1 if provider.sent == last else 0
        last = provider.sent
        time.sleep(0.02)
    return last


@pytest.mark.parametrize("kind", ["events", "relayed", "to the store"])
def test_who_does_not_read_stops_the_provider(gate: Gateway, provider: Provider, kind: str) -> None:
    """Of a hundred megabytes only what fits into sockets and one event leaves the provider; reading brings the rest."""
    content = b64(large_picture(1_000_000)[:999_999]).encode()
    events = 75
    if kind == "events":
        frames = [frame("x.partial_image", '{"b64_json":"' + content.decode() + '"}')] * events
        provider.says(*frames, completed())
    else:
        provider.content_type = "application/json"
        middle = b'"},{"b64_json":"'.join([content] * events)
        text = b'{"created":1,"data":[{"b64_json":"' + middle + b'"}]}'
        provider.says(*(text[start : start + MIB] for start in range(0, len(text), MIB)))
    form = "url" if kind == "to the store" else "b64_json"
    with raw_request(gate, stream=kind == "events", response_format=form) as client:
        if kind != "to the store":
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            assert settled(provider) < 40 * MIB
        received = 0
        tail = b""
        while data := client.recv(MIB):
            received += len(data)
            tail = (tail + data)[-1000:]
    assert tail.endswith(b"0\r\n\r\n") or kind == "to the store"
    assert received > (1000 if kind == "to the store" else events * len(content))
    assert provider.sent > events * len(content)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_who_leaves_ends_the_provider(gate: Gateway, provider: Provider, stream: bool, form: Form) -> None:
    """In the midst of an event, or of a reply: the provider sees the connection end, and nothing half stays."""
    before = len(gate.stored)
    provider.content_type = "text/event-stream" if stream else "application/json"
    content = b64(large_picture(3_000_000)).encode()
    provider.say(partial() if stream else b'{"data":[{"b64_json":"', *([b'data: {"b64_json":"'] if stream else []))
    provider.say(content)
    with raw_request(gate, stream=stream, response_format=form) as client:
        until(lambda: provider.sent > len(content), what="the picture's first half")
        if stream:
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
    until(provider.left.is_set, what="the end of the connection")
    until(lambda: gate.records.all and gate.records.all[-1].status == 499, what="the record")
    gate.records.all.clear()
    assert len(gate.stored) == before + (stream and form == "url")


def test_who_leaves_before_the_first_event(gate: Gateway, provider: Provider) -> None:
    with raw_request(gate, stream=True):
        until(lambda: provider.posts)
    until(provider.left.is_set)


# The official SDKs


@pytest.fixture
def client(gate: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gate.url}/v1", api_key="any", max_retries=2) as client:
        yield client


def test_openai_python(client: openai.OpenAI, provider: Provider) -> None:
    """Events one by one, as the types that they are."""
    provider.says(partial(0), partial(1), completed(), b"data: [DONE]\n\n")
    kept = list(client.images.generate(model="openai/gpt-image-1", prompt="x", stream=True, partial_images=2))
    assert [type(event).__name__ for event in kept] == ["ImageGenPartialImageEvent"] * 2 + ["ImageGenCompletedEvent"]
    assert [event.b64_json for event in kept] == [b64(PARTIAL), b64(PARTIAL), b64(FINAL)]
    assert kept[2].type == "image_generation.completed"
    assert kept[2].usage.total_tokens == 8


def test_openai_python_edits(client: openai.OpenAI, provider: Provider) -> None:
    provider.says(partial(0, "image_edit"), completed("image_edit"))
    stream = client.images.edit(
        model="openai/gpt-image-1", image=("a.png", picture(3)), mask=("m.png", mask_for()), prompt="x", stream=True
    )
    assert [event.type for event in stream] == ["image_edit.partial_image", "image_edit.completed"]


def test_openai_python_raises(client: openai.OpenAI, provider: Provider) -> None:
    """A later error is an APIError with its words; an earlier one has the class of its status."""
    provider.says(partial(0), error_frame("Bad luck", type="server_error", code="oops"))
    stream = client.images.generate(model="openai/gpt-image-1", prompt="x", stream=True)
    assert next(iter(stream)).type == "image_generation.partial_image"
    with pytest.raises(openai.APIError, match="Bad luck") as caught:
        list(stream)
    assert caught.value.code == "oops"


def test_openai_python_raises_at_once(client: openai.OpenAI, provider: Provider) -> None:
    provider.says(error_frame("Bad size", type="invalid_request_error", param="size"))
    with pytest.raises(openai.BadRequestError, match="Bad size") as caught:
        client.images.generate(model="openai/gpt-image-1", prompt="x", stream=True)
    assert caught.value.param == "size"


def test_openai_python_asynchronous(running: Running) -> None:
    """Streams that the gateway makes, of a generation and of an edit."""

    async def run() -> list[tuple[str, str]]:
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0) as client:
            model = "onetoken/gpt-image-2"
            made = await client.images.generate(model=model, prompt="x", n=2, stream=True)
            found = [(event.type, event.b64_json) async for event in made]
            edited = await client.images.edit(model=model, prompt="x", image=("a.png", picture(3)), stream=True)
            return found + [(event.type, event.b64_json) async for event in edited]

    found = asyncio.run(run())
    assert [kind for kind, _ in found] == ["image_generation.completed"] * 2 + ["image_edit.completed"]
    assert {base64.b64decode(encoded)[:4] for _, encoded in found} == {b"\x89PNG"}


@pytest.fixture(scope="module")
def packages(pytestconfig: pytest.Config) -> Path:
    """Where the script finds the SDK."""
    folder = node_packages(pytestconfig)
    shutil.copy(Path(__file__).parent / "node" / "stream.mjs", folder)
    return folder


def node(packages: Path, operation: str, url: str, model: str, image: Path) -> Any:
    command = ["node", str(packages / "stream.mjs"), operation, f"{url}/v1", model, str(image)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.node
@pytest.mark.parametrize(("operation", "kind"), [("generate", "image_generation"), ("edit", "image_edit")])
def test_openai_node(
    packages: Path, gate: Gateway, provider: Provider, running: Running, tmp_path: Path, operation: str, kind: str
) -> None:
    """A provider's stream, one that ends in an error, and one that the gateway makes."""
    image = tmp_path / "a.png"
    image.write_bytes(picture(3))
    provider.says(partial(0, kind), completed(kind), b"data: [DONE]\n\n")
    passed = node(packages, operation, gate.url, "openai/gpt-image-1", image)
    assert passed == {"events": [[f"{kind}.partial_image", sha(PARTIAL)], [f"{kind}.completed", sha(FINAL)]]}
    made = node(packages, operation, running.url, "onetoken/gpt-image-2", image)
    assert [name for name, _ in made["events"]] == [f"{kind}.completed"]


@pytest.mark.node
def test_openai_node_raises(packages: Path, gate: Gateway, provider: Provider, tmp_path: Path) -> None:
    provider.says(partial(0), error_frame("Bad luck", type="server_error", code="oops"))
    answer = node(packages, "generate", gate.url, "openai/gpt-image-1", tmp_path / "none.png")
    assert answer["events"] == [["image_generation.partial_image", sha(PARTIAL)]]
    assert (answer["error"]["name"], answer["error"]["code"]) == ("APIError", "oops")
    assert "Bad luck" in answer["error"]["text"]


# Somebody else's handler


def test_a_handler_that_streams(tmp_path: Path) -> None:
    """Deliver alone turns the events of an application into links, and its error into ours."""
    script: list[bytes] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await receive()
        head = [(b"content-type", kind), (b"x-handler", b"mine"), (b"cache-control", b"no-store"), (b"etag", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for piece in script:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    kind = b"text/event-stream"
    with serving(Deliver(handler, store=f"file://{tmp_path}/images")) as port:
        url = f"http://127.0.0.1:{port}"
        replies = {
            b"text/event-stream": completed(),
            b"application/json": b'{"data":[{"b64_json":"%b"}]}' % base64.b64encode(FINAL),
        }
        for kind, reply in replies.items():  # noqa: B007 - the handler reads it
            script[:] = [reply]
            with asking(url, "url") as stream:
                assert kinds(list(stream)) == ["completed"]
            headers = stream.reply.headers
            assert headers["content-type"] == "text/event-stream; charset=utf-8"
            assert (headers["x-handler"], headers.get_list("cache-control")) == ("mine", ["no-store"])
            assert "etag" not in headers
        kind = b"text/event-stream"
        script[:] = [partial(), completed()[:100], completed()[100:], b"data: [DONE]"]
        events = all_of(url, "url")
        assert kinds(events) == ["partial_image", "completed", ""]
        assert content_of(events[1], "url") == FINAL
        script[:] = [completed(b64_json=None, url="/static/a.png")]
        assert [event.raw for event in all_of(url, "url")] == script
        script[:] = [partial(), error_frame("Bad luck"), completed()]
        assert kinds(all_of(url, "b64_json")) == ["partial_image", "error"]
        script[:] = [partial(), completed()[:-40]]
        assert kinds(all_of(url, "b64_json")) == ["partial_image", "error"]


def test_a_handler_that_fails_amid_its_answer(tmp_path: Path) -> None:
    """Its server would hang up, and the official SDKs would have a large reply made once more."""
    calls: list[bytes] = []
    kind, script = b"", [b""]

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        calls.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for piece in script:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        raise RuntimeError("what only the log may know")

    with serving(Deliver(handler, store=f"file://{tmp_path}/images")) as port:
        kind, script = b"text/event-stream", [partial(), completed()[:50]]
        for form in ("url", "b64_json"):
            events = all_of(f"http://127.0.0.1:{port}", form)
            assert kinds(events) == ["partial_image", "error"]
            assert b"only the log" not in events[1].raw
        calls.clear()
        kind, script = b"application/json", [b'{"data":[{"b64_json":"', *[b"A" * 400_000] * 5]
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY)
        with pytest.raises(json.JSONDecodeError):
            client.images.generate(model="dall-e-2", prompt="A kite", response_format="b64_json")
        assert len(calls) == 1


# Memory


@pytest.mark.memory
@both_forms
def test_events_of_twenty_megabytes(providers_and_ports: Ports, provider: Provider, tmp_path: Path, form: Form) -> None:
    """A hundred megabytes of base64 pass through a process that hardly grows, and leave no room taken."""
    config = tmp_path / "imagegate.toml"
    _, (port, _) = providers_and_ports
    config.write_text(
        f'[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "{KEY}"\n'
        f'[delivery]\nstore = "file://{tmp_path}/images"\n[limits]\nspool = 41_000_000\nspool_memory = 1_000_000\n'
    )
    encoded = b64(large_picture(15_000_000)[:15_000_000]).encode()
    head = b'event: image_generation.partial_image\ndata: {"type":"image_generation.partial_image","b64_json":"'
    step = 256 * 1024
    with gateway_process(config) as process:
        provider.says(completed())
        all_of(process.url, form)
        provider.posts.clear()
        before = process.memory("VmHWM")
        for _ in range(5):
            provider.say(head, *(encoded[start : start + step] for start in range(0, len(encoded), step)), b'"}\n\n')
        provider.says(completed())
        with asking(process.url, form) as events:
            received = sum(map(len, events.reply.iter_raw()))
        grown = process.memory("VmHWM") - before
        until(lambda: not process.spooled())  # kept for a moment, to be written over
    print(f"{form}: five events of 20 MB grew VmHWM by {grown / MIB:.1f} MiB over {before / MIB:.1f} MiB")
    if form == "b64_json":
        assert received > 5 * len(encoded)
    else:
        sizes = sorted(path.stat().st_size for path in (tmp_path / "images").glob("*.png"))
        assert sizes == [len(FINAL)] * 2 + [15_000_000] * 5
    assert grown < 8 * MIB
