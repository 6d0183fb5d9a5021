"""Moderation on real sockets: nothing refused is sent, nothing withheld is delivered, in whichever way it would be."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.waiting import until
from tests.wire.field_support import LARGE, SMALL, picture

from imagegate import ImageGateway, Principal
from imagegate.demo.providers import tokenlab
from imagegate.demo.servers import serving
from imagegate.moderation import ModeratedImages, ModerationRequest, Refuse, Replace, Withhold
from imagegate.telemetry.record import ExchangeRecord

GENERATIONS: Final = "/v1/images/generations"
EDITS: Final = "/v1/images/edits"
BAD: Final = picture(70)
HUGE: Final = picture(12_000_000)


class Hooks:
    """Withholds by the images' bytes; knows what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool, int]] = []
        self.requests: list[tuple[ModerationRequest, list[str]]] = []
        self.withholds: set[str] = {hashlib.sha256(BAD).hexdigest()}
        self.fails = False

    async def before(self, request: ModerationRequest, principal: Principal | None) -> Refuse | Replace | None:
        digests = [hashlib.sha256(await image.read(10**8)).hexdigest() for image in request.images]
        self.requests.append((request, digests))
        if "bad" in request.prompt or hashlib.sha256(BAD).hexdigest() in digests:
            return Refuse("Not here.", "image" if digests else "prompt")
        return Replace("A tame cat") if request.prompt == "A wild cat" else None

    async def after(self, images: ModeratedImages) -> Withhold | None:
        if self.fails:
            raise RuntimeError
        bad = False
        for image in images:
            digest, size = hashlib.sha256(), 0
            async for piece in image.open():
                assert len(piece) <= 1 << 20
                digest.update(piece)
                size += len(piece)
            self.seen.append((digest.hexdigest(), image.is_partial, size))
            bad = bad or not {digest.hexdigest(), "all"}.isdisjoint(self.withholds)
        return Withhold("Not this image.") if bad else None


class Rig:
    def __init__(self, web: httpx.Client, hooks: Hooks, store: Path) -> None:
        self.web, self.hooks, self.store = web, hooks, store
        self.records: list[ExchangeRecord] = []
        self.sent: list[dict[str, Any]] = []
        self.answer: Any = None

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self.records.append(record)

    def post(self, path: str = GENERATIONS, **more: Any) -> httpx.Response:
        headers = more.pop("headers", {})
        return self.web.post(path, json={"model": "openai/gpt-image-2", "prompt": "A cat", **more}, headers=headers)

    def record(self) -> ExchangeRecord:
        """The last one, which may be made a little after the end of a stream."""
        return until(lambda: self.records, what="a record")[-1]

    def stored(self) -> list[Path]:
        return [file for file in self.store.rglob("*.png") if not file.parent.name.startswith(".")]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    hooks, store = Hooks(), tmp_path_factory.mktemp("store")
    rig = Rig(httpx.Client(timeout=30), hooks, store)

    async def answer(request: Request) -> Response:
        body = await request.body()
        rig.sent.append(json.loads(body) if body[:1] == b"{" else {"form": len(body)})
        return rig.answer if isinstance(rig.answer, Response) else rig.answer()  # type: ignore[no-any-return]

    async def image(request: Request) -> Response:
        return Response(BAD if "bad" in request.url.path else SMALL, media_type="image/png")

    routes = [Route(path, answer, methods=["POST"]) for path in (GENERATIONS, EDITS)]
    routes.append(Route("/files/{name}", image))
    with serving(Starlette(routes=routes)) as provider, serving(tokenlab.create_app(task_seconds=0.05)) as tasks:
        rig.origin = f"http://127.0.0.1:{provider}"  # type: ignore[attr-defined]
        config = {
            "upstreams": [
                {"name": "openai", "base_url": f"http://127.0.0.1:{provider}", "api_key": "k"},
                {
                    "name": "tasks",
                    "adapter": "tokenlab",
                    "base_url": f"http://127.0.0.1:{tasks}",
                    "api_key": "sk-demo-k",
                },
            ],
            "delivery": {"store": f"file://{store}"},
            "tasks": {"poll_interval": 0.05},
            "prices": {"models": {"gpt-image-2": {"image": 0.5}}},
        }
        with serving(ImageGateway(config=config, moderation=hooks, hooks=[rig])) as port:
            rig.web.base_url = f"http://127.0.0.1:{port}"
            yield rig
    rig.web.close()


@pytest.fixture
def rig(started: Rig) -> Rig:
    for kept in (started.sent, started.records, started.hooks.seen, started.hooks.requests):
        kept.clear()
    started.hooks.fails = False
    started.hooks.withholds = {hashlib.sha256(BAD).hexdigest()}
    return started


def of(*images: bytes) -> Response:
    data = [{"b64_json": base64.b64encode(image).decode()} for image in images]
    return JSONResponse({"created": 1, "data": data})


def stream_of(*images: bytes) -> Response:
    """Previews, and the image after them."""

    async def events() -> AsyncIterator[str]:
        for place, image in enumerate(images):
            is_last = place == len(images) - 1
            name = f"image_generation.{'completed' if is_last else 'partial_image'}"
            event = {"type": name, "b64_json": base64.b64encode(image).decode()}
            event |= {} if is_last else {"partial_image_index": place}
            yield f"event: {name}\ndata: {json.dumps(event)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"async": True}, {"headers": {"imagegate-explain": "?1"}}])
def test_a_refused_request_is_not_sent(rig: Rig, more: dict[str, Any]) -> None:
    reply = rig.post(prompt="A bad cat", **more)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "content_policy_violation")
    assert (reply.json()["error"]["message"], reply.json()["error"]["param"]) == ("Not here.", "prompt")
    assert rig.sent == []
    assert rig.record().outcome_class == "moderated"


@pytest.mark.parametrize("count", [1, 9])
def test_references_are_seen(rig: Rig, count: int) -> None:
    """Also those of a form of more than 8 MiB, which would be sent while it is read."""
    rig.answer = of(SMALL)
    files = [("image[]", ("a.png", SMALL if count == 1 else LARGE, "image/png"))] * count
    form = {"model": "openai/gpt-image-2", "prompt": "A cat"}
    assert rig.web.post(EDITS, data=form, files=files).status_code == 200
    reply = rig.web.post(EDITS, data=form, files=[*files, ("image[]", ("bad.png", BAD, "image/png"))])
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "image")
    assert len(rig.sent) == 1
    assert [len(digests) for _, digests in rig.hooks.requests] == [count, count + 1]


@pytest.mark.parametrize("operation", [GENERATIONS, EDITS])
@pytest.mark.parametrize("member", ["image_url", "image_urls", "images", "reference_images"])
def test_references_in_json_are_seen(rig: Rig, operation: str, member: str) -> None:
    """Whichever member they stand in, as data URLs and as links, which are read through the guard."""
    inline = f"data:image/png;base64,{base64.b64encode(BAD).decode()}"
    value: Any = {"image_url": inline, "images": [{"image_url": inline}]}.get(member, [inline])
    reply = rig.post(operation, **{member: value})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "content_policy_violation")
    assert rig.sent == []


def test_a_replaced_prompt_is_sent_and_disclosed(rig: Rig) -> None:
    rig.answer = of(SMALL)
    reply = rig.post(prompt="A wild cat")
    assert rig.sent[-1]["prompt"] == "A tame cat"
    assert reply.headers["imagegate-changes"] == "prompt;replaced"
    assert reply.json()["data"][0]["revised_prompt"] == "A tame cat"
    assert [change.kind for change in rig.record().changes] == ["replaced"]
    shown = rig.post(prompt="A wild cat", headers={"imagegate-explain": "?1"}).json()
    assert (shown["body"]["prompt"], shown["changes"]) == ("A tame cat", [{"field": "prompt", "kind": "replaced"}])
    rig.answer = of(LARGE)  # which would be relayed as it comes
    assert rig.post(prompt="A wild cat").json()["data"][0]["revised_prompt"] == "A tame cat"


WAYS: Final[dict[str, Any]] = {
    "base64": ({"response_format": "b64_json"}, lambda bad: of(bad)),
    "link": ({"response_format": "url"}, lambda bad: of(bad)),
    "one of two": ({"n": 2}, lambda bad: of(SMALL, bad)),
    "streamed": ({"stream": True}, lambda bad: of(bad)),
    "stream": ({"stream": True}, lambda bad: stream_of(bad)),
    "stream of links": ({"stream": True, "response_format": "url"}, lambda bad: stream_of(bad)),
}


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("size", [70, 1_500_000, 12_000_000])
def test_a_withheld_image_is_delivered_in_no_way(rig: Rig, way: str, size: int) -> None:
    """It was made and is paid for, and the record says so; nothing of it is in the answer or in the store."""
    more, answer = WAYS[way]
    bad = {70: BAD, 1_500_000: LARGE, 12_000_000: HUGE}[size]
    rig.hooks.withholds = {hashlib.sha256(bad).hexdigest()}
    rig.answer = lambda: answer(bad)
    before = rig.stored()
    reply = rig.post(**more)
    n = more.get("n", 1)
    assert "content_policy_violation" in reply.text
    assert "Not this image." in reply.text
    assert len(reply.content) < 1000
    assert rig.stored() == before
    assert max(seen[2] for seen in rig.hooks.seen) == len(bad)
    record = rig.record()
    assert (record.images_made, record.images_withheld, record.images_delivered) == (n, n, 0)
    assert (record.outcome_class, record.cost) == ("moderated", 0.5 * n)
    if not more.get("stream"):
        assert (reply.status_code, reply.headers["x-should-retry"]) == (400, "false")


def test_a_stream_is_read_to_its_end(rig: Rig) -> None:
    """Where the provider says what it has cost; nothing after the withheld image is delivered."""

    async def events() -> AsyncIterator[str]:
        for image, usage in ((SMALL, {"total_tokens": 1}), (BAD, {"total_tokens": 7}), (SMALL, {"total_tokens": 8})):
            event = {"type": "image_generation.completed", "b64_json": base64.b64encode(image).decode(), "usage": usage}
            yield f"event: image_generation.completed\ndata: {json.dumps(event)}\n\n"
        yield "data: [DONE]\n\n"

    rig.answer = StreamingResponse(events(), media_type="text/event-stream")
    reply = rig.post(stream=True, n=3)
    assert re.findall("event: (.*)", reply.text) == ["image_generation.completed", "error"]
    assert '"content_policy_violation"' in reply.text
    record = rig.record()
    assert (record.images_made, record.images_withheld, record.images_delivered) == (3, 1, 1)
    assert [call.outcome for call in record.calls] == ["ok"]
    assert record.usage == {"total_tokens": 16}


@pytest.mark.parametrize("way", list(WAYS))
def test_what_passes_is_delivered(rig: Rig, way: str) -> None:
    more, answer = WAYS[way]
    rig.answer = lambda: answer(SMALL)
    reply = rig.post(**more)
    assert reply.status_code == 200, reply.text
    assert base64.b64encode(SMALL).decode() in reply.text or "/images/" in reply.text
    assert (rig.record().images_withheld, rig.record().images_delivered) == (0, more.get("n", 1))


def test_links_of_the_provider_are_read_for_the_hook(rig: Rig) -> None:
    for name, status in (("good", 200), ("bad", 400)):
        link = f"{rig.origin}/files/{name}.png"  # type: ignore[attr-defined]
        rig.answer = JSONResponse({"created": 1, "data": [{"url": link}]})
        reply = rig.post(response_format="url")
        assert reply.status_code == status
        assert (link in reply.text) is (name == "good")


def test_a_preview_is_kept_back_and_the_stream_goes_on(rig: Rig) -> None:
    rig.answer = lambda: stream_of(SMALL, BAD, SMALL)
    reply = rig.post(stream=True, partial_images=2)
    assert reply.text.count("event: image_generation.partial_image") == 1
    assert "event: image_generation.completed" in reply.text
    assert base64.b64encode(BAD).decode() not in reply.text
    assert [partial for _, partial, _ in rig.hooks.seen] == [True, True, False]


@pytest.mark.parametrize("image", [BAD, SMALL])
def test_what_was_made_before_a_failure(rig: Rig, image: bytes) -> None:
    """The error of a split request lists what was made all the same, unless that is withheld."""
    answers = iter([of(image), JSONResponse({"error": {"message": "no", "code": "invalid_value"}}, 400)])
    rig.answer = lambda: next(answers)
    before = rig.stored()
    reply = rig.post(model="openai/dall-e-3", n=2, response_format="url")
    shown = reply.json()["error"]["imagegate"]
    assert (reply.status_code, shown["images_made"]) == (400, 1), reply.text
    assert shown.get("images_withheld", 0) == (image is BAD)
    assert len(shown.get("data", ())) == (image is SMALL)
    assert (len(rig.stored()) > len(before)) is (image is SMALL)
    assert rig.record().images_withheld == (image is BAD)


def test_a_failing_hook_withholds(rig: Rig) -> None:
    rig.hooks.fails = True
    rig.answer = of(SMALL)
    reply = rig.post()
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "moderation_unavailable")
    assert reply.headers["x-should-retry"] == "false"
    assert rig.record().images_withheld == 1


def test_the_same_key_does_not_pay_again(rig: Rig) -> None:
    """What was withheld was paid for: another try with its key gets the same answer."""
    rig.answer = of(BAD)
    first, second = (rig.post(headers={"idempotency-key": "withheld"}) for _ in range(2))
    assert (first.status_code, first.json()) == (400, second.json())
    assert second.headers["idempotency-replayed"] == "true"
    assert len(rig.sent) == 1


def ended(rig: Rig, task: str) -> dict[str, Any]:
    def state() -> dict[str, Any] | None:
        found: dict[str, Any] = rig.web.get(f"/v1/tasks/{task}").json()
        return found if found["status"] in ("completed", "failed") else None

    return until(state, what="the end of a task") or {}


def test_tasks_of_the_gateway(rig: Rig) -> None:
    rig.answer = of(BAD)
    state = ended(rig, rig.post(**{"async": True}).json()["task_id"])
    assert (state["status"], state["error"]["code"], state["data"]) == ("failed", "content_policy_violation", [])


def test_tasks_of_a_provider(rig: Rig) -> None:
    """Whose pictures come when the client asks for them, past the layers."""
    made = rig.post(model="tasks/gpt-image-2", **{"async": True}).json()["task_id"]
    state = ended(rig, made)
    assert state["status"] == "completed"
    assert rig.hooks.seen
    rig.hooks.withholds = {"all"}
    before = rig.stored()
    state = ended(rig, rig.post(model="tasks/gpt-image-2", **{"async": True}).json()["task_id"])
    assert (state["status"], state["data"], rig.stored()) == ("failed", [], before)
    assert state["error"]["code"] == "content_policy_violation"
