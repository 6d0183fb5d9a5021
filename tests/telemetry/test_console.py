"""The console without a browser: who may see what, and how much is kept."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Scope
from tests.telemetry.support import BASE64, PICTURE

from imagegate.access.authenticator import Authenticator
from imagegate.adapter import FilePart, TextPart, UpstreamRequest
from imagegate.asgi.browser_guard import BrowserGuard
from imagegate.asgi.captured_response import CapturedResponse
from imagegate.asgi.in_process import ask
from imagegate.config.loader import parse_config
from imagegate.config.schema import ConsoleConfig
from imagegate.demo.pictures import draw_picture
from imagegate.gateway import ImageGateway
from imagegate.protocol.messages import FileID, ImageRequest, Link
from imagegate.spool.budget import Budget
from imagegate.spool.memory import Memory, Share
from imagegate.spool.upload import Upload
from imagegate.telemetry.capture import SMALL_ANSWER, Capture, documents_of, pictures_in, shown
from imagegate.telemetry.console import Console, page, policy
from imagegate.telemetry.console.ring import Ring
from imagegate.telemetry.console.thumbnails import EDGE, LARGEST_ORIGINAL, thumbnail
from imagegate.telemetry.progress import Progress, finish
from imagegate.telemetry.record import ExchangeRecord
from imagegate.testing import Lint

KEYS = {"alice": "alices-key", "bob": "bobs-key", "root": "roots-key"}


async def load(link: str, upstream: str, scope: Scope) -> bytes | None:
    return PICTURE if link.endswith("good.png") else None


def console(**options: Any) -> Console:
    return Console(load=load, **{"access": Authenticator(KEYS), "operators": ("root",), **options})


def get(app: Any, path: str, key: str = "", query: bytes = b"", **scope: Any) -> CapturedResponse:
    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    headers.append((b"host", scope.pop("host", "localhost:8000").encode()))
    headers += [(name.encode(), value.encode()) for name, value in scope.pop("more", {}).items()]

    async def with_client(inner: Scope, receive: Any, send: Any) -> None:
        await Lint(app)({**inner, "client": ("127.0.0.1", 1), **scope}, receive, send)

    return asyncio.run(ask(with_client, "GET", path, query=query, headers=headers))


def listed(app: Any, key: str, query: bytes = b"") -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(get(app, "/console/exchanges", key, query).body)
    return answer


def run(app: Console, key_name: str, body: bytes, **facts: Any) -> ExchangeRecord:
    """One exchange, as Observe tells of it."""
    progress = Progress(
        "generations",
        request_id=f"of-{key_name}",
        key_name=key_name,
        principal_id=key_name,
        capture=app.capture(),
        **facts,
    )
    assert progress.capture is not None
    progress.capture.ask(ImageRequest(operation="generations", fields={"model": "m", "prompt": f"by {key_name}"}))
    app.exchange_started(progress)
    progress.capture.answer(body)
    record = finish(progress, status=200, seconds=1)
    app.exchange_ended(record)
    return record


def test_answers_in_flight_share_a_bound():
    """What finds no room is not kept; what ends, or is too long to be kept, gives its room back."""
    memory = Memory(4_000_000)
    app = console(room=Share(memory, 100_000))
    first, second = app.capture(), app.capture()
    first.answer(b"a" * 60_000)
    second.answer(b"b" * 40_000)
    second.answer(b"b")
    assert (len(first.answered()), second.answered(), memory.held) == (60_000, b"", 60_000)
    second.answer(b"b")
    assert second.answered() == b"", "the rest of an answer is none"
    first.answer(b"a" * SMALL_ANSWER)
    assert (first.answered(), memory.held) == (b"", 0)
    third = app.capture()
    third.answer(b"c" * 50_000)
    third.forget_answer()
    assert memory.held == 0


def answer_of(**picture: str) -> bytes:
    return msgspec.json.encode({"created": 1, "data": [picture]})


def test_each_key_sees_its_own() -> None:
    """Exchanges of other keys are not told, unless to an operator."""
    app = console()
    run(app, "alice", answer_of(url="https://x/good.png"))
    run(app, "bob", answer_of(url="https://x/good.png"))
    assert [entry["prompt"] for entry in listed(app, "alices-key")["exchanges"]] == ["by alice"]
    assert [entry["prompt"] for entry in listed(app, "bobs-key")["exchanges"]] == ["by bob"]
    assert [entry["prompt"] for entry in listed(app, "roots-key")["exchanges"]] == ["by alice", "by bob"]
    assert get(app, "/console/pictures/2/0", "bobs-key").status == 200
    assert get(app, "/console/pictures/2/0", "alices-key").status == 404
    assert get(app, "/console/pictures/2/0").status == 401
    assert get(app, "/console/exchanges", "wrong").status == 401


def test_only_what_is_new() -> None:
    """A page that knows some exchanges is told the later ones; one that knows another process's is told all."""
    app = console()
    for _ in range(3):
        run(app, "alice", b"{}")
    everything = listed(app, "alices-key")
    of = everything["instance"].encode()
    assert [entry["number"] for entry in everything["exchanges"]] == [1, 2, 3]
    assert [e["number"] for e in listed(app, "alices-key", b"of=" + of + b"&after=2")["exchanges"]] == [3]
    other = b"of=" + b"0" * 16 + b"&after=2"
    assert len(listed(app, "alices-key", other)["exchanges"]) == 3


def test_running_exchanges() -> None:
    """What takes longer is told while it runs, to its own key."""
    app = console(running_after=-1.0)
    app.exchange_started(Progress("edits", request_id="r", key_name="alice", principal_id="alice", model="m"))
    app.exchange_started(Progress("models", request_id="s", key_name="alice", principal_id="alice"))
    assert [(item["request_id"], item["model"]) for item in listed(app, "alices-key")["running"]] == [("r", "m")]
    assert listed(app, "bobs-key")["running"] == []


def test_explanations_are_not_exchanges() -> None:
    """What the playground asks while somebody types is not kept, nor are lists of models."""
    app = console()
    run(app, "alice", b"{}", explained=True)
    progress = Progress("models", key_name="alice", principal_id="alice", capture=Capture())
    app.exchange_ended(finish(progress, status=200, seconds=0))
    assert listed(app, "alices-key")["exchanges"] == []


def test_pictures_are_small() -> None:
    """A picture is shown small, whether it came as base64 or as a link."""
    app = console()
    listed(app, "alices-key")  # a page is open, so base64 is kept
    run(app, "alice", answer_of(b64_json=BASE64))
    run(app, "alice", answer_of(url="https://x/good.png"))
    for number in (1, 2):
        for _ in range(2):
            answered = get(app, f"/console/pictures/{number}/0", "alices-key")
            assert (answered.status, answered.headers["content-type"]) == (200, "image/webp")
            assert answered.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("picture", [{"url": "https://x/gone.png"}, {"b64_json": "!"}, {"b64_json": "aGVsbG8="}])
def test_pictures_that_cannot_be_shown(picture: dict[str, str]) -> None:
    """No content, which is no error that a browser's log would have."""
    app = console()
    run(app, "alice", answer_of(**picture))
    assert get(app, "/console/pictures/1/0", "alices-key").status == 204
    assert get(app, "/console/pictures/1/1", "alices-key").status == 404


def test_whole_pictures_are_kept_only_for_a_page_that_is_open() -> None:
    """A gateway that nobody looks at holds no pictures."""
    large = answer_of(b64_json=base64.b64encode(bytes(100_000)).decode())
    app = console()
    assert run(app, "alice", large).capture.size == 0
    assert listed(app, "alices-key")["exchanges"][0]["pictures"] == []
    assert run(app, "alice", large).capture.size == len(large)
    assert listed(app, "alices-key")["exchanges"][1]["pictures"] == [{"link": "", "base64": True}]


def record_with(body: bytes) -> ExchangeRecord:
    capture = Capture(most=10**6)
    capture.answer(body)
    return finish(Progress("generations", capture=capture), status=200, seconds=1)


@given(st.lists(st.integers(0, 4000), max_size=30))
def test_the_ring_is_bounded(sizes: list[int]) -> None:
    """However many pictures of whatever size come in, only so many exchanges and so many bytes are held."""
    ring = Ring(8, most_bytes=10_000)
    for size in sizes:
        ring.add(record_with(answer_of(b64_json="A" * size)))
        entries = list(ring.after(0))
        assert len(entries) <= 8
        assert sum(picture.size for entry in entries for picture in entry.pictures) <= 10_000
    assert len(list(ring.after(0))) == min(8, len(sizes))


def test_pages_from_elsewhere_read_nothing() -> None:
    """Without keys no page of another origin reads the console; a link to its page may be followed."""
    app = console(access=None, guard=BrowserGuard())
    loopback: dict[str, Any] = {"server": ("127.0.0.1", 8000)}
    assert get(app, "/console", **loopback).status == 200
    assert get(app, "/console/exchanges", host="[::1]:8000", **loopback).status == 200
    for path in ("/console", "/console/exchanges", "/console/pictures/1/0"):
        rebound = get(app, path, host="rebound.example:8000", **loopback)
        assert (rebound.status, json.loads(rebound.body)["error"]["code"]) == (403, "host_not_allowed")
        foreign = get(app, path, more={"sec-fetch-site": "cross-site"}, **loopback)
        assert (foreign.status, json.loads(foreign.body)["error"]["code"]) == (403, "origin_not_allowed")
    visit = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert get(app, "/console", more=visit, **loopback).status == 200
    assert get(app, "/console/exchanges", more=visit, **loopback).status == 403


def test_the_page_allows_nothing_from_elsewhere() -> None:
    """Its policy names its own script and style only, and it has no style or handler inside of tags."""
    answered = get(console(), "/console")
    rules = dict(rule.strip().split(" ", 1) for rule in answered.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == "'none'"
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rules["script-src"])
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rules["style-src"])
    assert "unsafe" not in answered.headers["content-security-policy"]
    source = answered.body.decode()
    assert source.count("<script>") == source.count("<style>") == 1
    assert re.search(r"<[^>]* (style|on[a-z]+)=", source.split("<script>")[0]) is None
    assert re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", source) is None
    links = set(re.findall(r"https?://[^\s'\"]+", source))
    assert links == {"http://www.w3.org/2000/svg"}


def test_the_page_knows_the_prefix() -> None:
    """The playground asks below the configured prefix, and the policy still fits."""
    assert b'data-prefix="/images-api"' in page("/images-api")
    assert policy() == policy()


CONFIG = """
[[upstreams]]
name = "openai"
api_key = "sk-test-key"
[delivery]
store = "memory://"
"""


@pytest.mark.parametrize(
    ("section", "alone", "status"),
    [
        ('[access]\nkeys = ["k"]', True, 200),
        ('[access]\nkeys = ["k"]', False, 404),
        ("", True, 403),
        ("", False, 404),
        ("[console]\nenabled = true", True, 200),
        ("[console]\nenabled = true", False, 200),
        ("[console]\nenabled = false", True, 404),
    ],
)
def test_where_there_is_a_console(section: str, alone: bool, status: int) -> None:
    """On where a gateway with keys stands alone, off in a host application, unless the configuration says otherwise."""
    gateway = ImageGateway(config=parse_config(CONFIG + section), alone=alone)
    answered = get(gateway, "/console")
    assert answered.status == status
    assert status != 403 or json.loads(answered.body)["error"]["code"] == "console_disabled"
    assert get(gateway, "/console/elsewhere").status == 404


def test_thumbnails() -> None:
    """Small, never larger than the edge; no document, no bomb, and nothing broken becomes a picture."""
    large = draw_picture(width=2000, height=1000, prompt="x", provider="x", model="x")
    small = thumbnail(large)
    assert small is not None and small.media_type == "image/webp" and len(small.content) < len(large)
    assert thumbnail(b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>") is None
    assert thumbnail(b"no picture") is None
    bomb = PICTURE[:16] + (60_000).to_bytes(4, "big") * 2 + PICTURE[24:]
    assert thumbnail(bomb) is None
    broken = PICTURE[:60]
    assert thumbnail(broken) == (broken, "image/png")
    assert thumbnail(broken + bytes(LARGEST_ORIGINAL)) is None
    assert EDGE == 512


def test_without_pillow_small_originals_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The console works without Pillow."""
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    assert thumbnail(PICTURE) == (PICTURE, "image/png")
    assert thumbnail(PICTURE + bytes(LARGEST_ORIGINAL)) is None


def test_what_is_taken_down_of_a_request() -> None:
    """Members as they were written, references by name, and what is sent as a form or as JSON."""

    async def uploads() -> list[Upload]:
        budget = Budget(total=10**6, memory=10**6)
        made = [Upload("image", f"{name}.png", "image/png", budget=budget) for name in "ab"]
        for upload in made:
            await upload.write(bytes(2048))
            await upload.complete()
        return made

    one, two = asyncio.run(uploads())
    capture = Capture()
    fields = {"model": "m", "prompt": "p", "size": "1:1"}
    capture.ask(
        ImageRequest(operation="edits", fields=fields, images=(one, Link("https://x/1.png")), mask=FileID("f1"))
    )
    assert capture.prompt == "p"
    images = ["a.png (2,048 bytes)", "https://x/1.png"]
    assert capture.asked == {"model": "m", "size": "1:1", "image": images, "mask": "f1"}
    quoted = FilePart("mask", one, "a %22b%22.png")  # as forms write a quotation mark
    files = [FilePart("image[]", file) for file in (one, two, one)]
    parts = (quoted, TextPart("model", "m"), *files)
    capture.send("u", UpstreamRequest(method="POST", path="/v1/images/edits", parts=parts))
    capture.send("u", UpstreamRequest(method="POST", path="/v1/x", body=b'{"n":1}'))
    capture.send("u", UpstreamRequest(method="GET", path="/v1/x"))
    assert capture.sent[0]["body"]["image[]"] == ["a.png (2,048 bytes)", "b.png (2,048 bytes)", "a.png (2,048 bytes)"]
    assert capture.sent[0]["body"]["mask"] == 'a "b".png (2,048 bytes)'
    assert [sent["body"] for sent in capture.sent[1:]] == [{"n": 1}, {}]


def test_what_is_taken_down_of_a_stream() -> None:
    """Pictures of events are pictures; partial ones, signs of life and what is no JSON are none."""
    capture = Capture()
    capture.answer(b": alive\n\n")
    capture.answer(b'event: a\ndata: {"b64_json": "AAAA", "partial_image_index": 0}\n\n')
    capture.answer(b'data: {"url": "https://x/1.png", "usage": {}}\n\ndata: [DONE]\n\ndata: 5\n\n')
    assert pictures_in(documents_of(capture.answered())) == [{"url": "https://x/1.png", "usage": {}}]
    assert capture.links() == ["https://x/1.png"]


@settings(max_examples=60)
@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_is_shown_is_short(value: Any) -> None:
    """Any JSON value can be shown."""
    msgspec.json.encode(shown(value))


def test_long_values_are_cut() -> None:
    """Pictures in a request are told by their length, long texts are cut, long lists too."""
    assert shown("data:image/png;base64," + "A" * 9000) == "data:image/png;base64,AAAAAAAAAA... (9,022 characters)"
    assert shown("A" * 300) == "A" * 32 + "... (300 characters)"
    assert shown("word " * 2000).endswith("... (10,000 characters)")
    assert len(shown([1] * 1000)) == 64
    assert ConsoleConfig().exchanges == 50
