"""Tasks and keyed calls where something fails that no request can make fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route as Endpoint
from starlette.testclient import TestClient
from tests.waiting import async_until

from imagegate import ImageGateway
from imagegate.asgi.background import Background, is_cancelled, stop
from imagegate.asgi.captured_response import CapturedResponse
from imagegate.config.loader import parse_config
from imagegate.delivery.disclosure import fewer
from imagegate.errors import ImagegateError, RequestError, UpstreamError, UpstreamRefused, UpstreamUncertain
from imagegate.idempotency.base import Claim, ReplaysUnavailable
from imagegate.idempotency.coalescing import Call, KeyedCalls, calls_in_memory
from imagegate.idempotency.keys import KeptReply
from imagegate.idempotency.memory import MemoryReplays
from imagegate.layers import Idempotency
from imagegate.stores.blobs import FileBlobs, pieces_of, whole
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks.outcomes import internal
from imagegate.tasks.providers import ProviderTasks
from imagegate.tasks.records import ProviderTask, TaskRecord
from imagegate.telemetry.progress import Progress

UPSTREAM = '[[upstreams]]\nname = "openai"\napi_key = "sk-0123456789"\n[delivery]\nstore = "memory://"\n'
BODY = {"model": "gpt-image-1.5", "prompt": "A kite"}


# Idempotency alone


def handler(answers: list[Response | Exception]) -> Starlette:
    """An application of somebody's own behind the layer; its answers in turn."""

    async def answer(request: Request) -> Response:
        await request.body()
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return Starlette(routes=[Endpoint("/v1/images/generations", answer, methods=["POST"])])


@pytest.mark.parametrize("calls", [None, calls_in_memory()])
def test_alone_in_front_of_a_handler(calls: KeyedCalls | None) -> None:
    """What it answers well is replayed; what it refuses, however, is asked for again."""
    refused = JSONResponse({"error": {"message": "No."}}, status_code=429)
    good = JSONResponse({"created": 1, "data": [{"url": "https://example.com/1.png"}]})
    app = Idempotency(handler([refused, good, PlainTextResponse("never asked")]), calls=calls)
    with TestClient(app) as client:
        replies = [client.post("/v1/images/generations", json=BODY, headers={"idempotency-key": "k"}) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [429, 200, 200]
    assert replies[1].content == replies[2].content
    assert replies[2].headers["idempotency-replayed"] == "true"


def test_a_handler_that_fails() -> None:
    """Nobody knows what it cost, so it is not asked again."""
    app = Idempotency(handler([RuntimeError("oh")]))
    with TestClient(app, raise_server_exceptions=False) as client:
        first, second = (
            client.post("/v1/images/generations", json=BODY, headers={"idempotency-key": "k"}) for _ in range(2)
        )
    assert (first.status_code, second.status_code) == (500, 502)  # its own page, and the gateway's word
    assert second.headers["x-should-retry"] == "false"


# Calls and their store


class Moody(MemoryReplays):
    """A store that others share, and that fails when it is told to."""

    is_shared = True

    def __init__(self, blobs: FileBlobs) -> None:
        super().__init__(blobs, max_bytes=10_000)
        self.failing = 0
        self.is_mine = True
        self.renewed = 0
        self.is_away = self.fails_oddly = False
        self.released: list[str] = []

    async def finish(self, claim: Claim, reply: KeptReply) -> None:
        if self.failing:
            self.failing -= 1
            raise ReplaysUnavailable
        await super().finish(claim, reply)

    async def mark_sent(self, claim: Claim) -> bool:
        if self.is_away:
            raise ReplaysUnavailable
        return self.is_mine

    async def release(self, claim: Claim) -> None:
        if self.is_away:
            raise ReplaysUnavailable
        self.released.append(claim.holder)

    async def renew(self, claims: Collection[Claim]) -> None:
        self.renewed += len(claims)
        if self.fails_oddly:
            raise ZeroDivisionError
        if self.is_away:
            raise ReplaysUnavailable


class Calls:
    """A coordinator with a store that fails, and what its clients get."""

    def __init__(self, folder: Path, *, lease: float = 15.0) -> None:
        self.blobs = FileBlobs(folder / "blobs", ttl=60)
        self.store = Moody(self.blobs)
        self.background = Background()
        self.calls = KeyedCalls(self.store, self.blobs, self.background, lease=lease)

    async def ask(self, work: Any, *, slot: str = "s") -> tuple[list[dict[str, Any]], Progress]:
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        progress = Progress("generations")
        await self.calls.answer(slot, "p", work, send, progress, ttl=60)
        return sent, progress

    async def aclose(self) -> None:
        await self.background.finish(5)
        await self.calls.aclose()


async def good(call: Call) -> None:
    headers = [(b"content-type", b"application/json")]
    await call.recording({"type": "http.response.start", "status": 200, "headers": headers})
    await call.recording({"type": "http.response.body", "body": b"{}"})


@pytest.mark.parametrize(("length", "how"), [(b"2", "replayed"), (b"3", "joined"), (None, "joined")])
def test_a_client_that_read_it_all_gets_a_replay(tmp_path: Path, length: bytes | None, how: str) -> None:
    """Once all bytes of the announced length are there, a client may come back before the application has ended."""
    written, ending = asyncio.Event(), asyncio.Event()

    async def ends_late(call: Call) -> None:
        headers = [(b"Content-Length", length)] if length else []
        await call.recording({"type": "http.response.start", "status": 200, "headers": headers})
        await call.recording({"type": "http.response.body", "body": b"{}", "more_body": True})
        written.set()
        await ending.wait()
        await call.recording({"type": "http.response.body", "body": b"!" if length == b"3" else b""})

    async def run() -> None:
        here = Calls(tmp_path)
        first = asyncio.ensure_future(here.ask(ends_late))
        await written.wait()
        second = asyncio.ensure_future(here.ask(ends_late))
        await asyncio.sleep(0)
        ending.set()
        (sent, _), (again, progress) = await asyncio.gather(first, second)
        assert progress.idempotent == how
        assert ((b"idempotency-replayed", b"true") in again[0]["headers"]) == (how == "replayed")
        assert sent[1:] == again[1:]
        await here.aclose()

    asyncio.run(run())


def test_answers_while_the_store_is_away(tmp_path: Path) -> None:
    """The call itself answers as long as its store cannot be reached; then the store does."""

    async def run() -> None:
        here = Calls(tmp_path)
        here.store.failing = 2
        _, first = await here.ask(good)
        sent, second = await here.ask(good)
        assert (first.idempotent, second.idempotent) == ("", "replayed")
        assert (b"idempotency-replayed", b"true") in sent[0]["headers"]
        await here.background.finish(10)
        sent, third = await here.ask(good)
        assert third.idempotent == "replayed"
        await here.aclose()

    asyncio.run(run())


def test_a_store_that_stays_away(tmp_path: Path) -> None:
    """The end of the gateway does not wait for it."""

    async def run() -> None:
        here = Calls(tmp_path)
        here.store.failing = 10**6
        await here.ask(good)
        assert await here.background.finish(0.1) == 1
        await here.aclose()

    asyncio.run(run())


def test_a_process_that_was_taken_for_dead(tmp_path: Path) -> None:
    """It does not send."""

    async def run() -> None:
        here = Calls(tmp_path)
        here.store.is_mine = False

        async def work(call: Call) -> None:
            await here.calls.mark_sent(call)
            raise AssertionError("it must not go on")

        with pytest.raises(ReplaysUnavailable):
            await here.ask(work)
        await here.aclose()

    asyncio.run(run())


def test_a_release_that_the_store_missed(tmp_path: Path) -> None:
    """It may think that something was sent, so it is told again, until it hears; an odd failure ends no renewal."""

    async def run() -> None:
        here = Calls(tmp_path, lease=0.03)
        here.store.is_away = here.store.fails_oddly = True
        holders: list[str] = []

        async def work(call: Call) -> None:
            holders.append(call.claim.holder)
            await here.calls.mark_sent(call)

        with pytest.raises(ReplaysUnavailable):
            await here.ask(work)
        await asyncio.sleep(0.05)
        assert here.store.released == []
        here.store.fails_oddly = False
        await asyncio.sleep(0.05)
        here.store.is_away = False
        await async_until(lambda: here.store.released == holders)
        await asyncio.sleep(0.05)
        assert here.store.released == holders  # once
        await here.aclose()

    asyncio.run(run())


def test_a_store_that_goes_away_between_two_requests_of_a_call(tmp_path: Path) -> None:
    """What was sent is kept already, so the call goes on; a part that was paid for is not given up."""

    async def run() -> None:
        here = Calls(tmp_path)

        async def work(call: Call) -> None:
            await here.calls.mark_sent(call)
            here.store.is_away = True
            await here.calls.mark_sent(call)
            await good(call)

        sent, _ = await here.ask(work)
        assert sent[0]["status"] == 200
        await here.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("sends", [True, False])
def test_the_end_of_the_gateway(tmp_path: Path, sends: bool) -> None:
    """Who waits gets a word: uncertain where something was sent, and then that is kept."""

    async def run() -> None:
        here = Calls(tmp_path, lease=0.03)

        async def work(call: Call) -> None:
            if sends:
                await here.calls.mark_sent(call)
                await here.calls.mark_sent(call)
            await asyncio.sleep(60)

        waiting = asyncio.create_task(here.ask(work))
        await asyncio.sleep(0.1)
        assert here.store.renewed
        assert await here.background.finish(0) == 1
        with pytest.raises(UpstreamUncertain if sends else ImagegateError) as caught:
            await waiting
        assert isinstance(caught.value, UpstreamUncertain) is sends
        if sends:
            sent, _ = await here.ask(good)
            assert sent[0]["status"] == 502
        else:
            sent, _ = await here.ask(good)
            assert sent[0]["status"] == 200
        await here.aclose()

    asyncio.run(run())


def test_answers_that_break_off(tmp_path: Path) -> None:
    """Clients are hung up on, and nothing is sent again."""

    async def run() -> None:
        here = Calls(tmp_path)

        async def work(call: Call) -> None:
            await here.calls.mark_sent(call)
            await call.recording({"type": "http.response.start", "status": 200, "headers": []})
            await call.recording({"type": "http.response.body", "body": b"{", "more_body": True})

        with pytest.raises(UpstreamUncertain):
            await here.ask(work)
        sent, _ = await here.ask(good)
        assert sent[0]["status"] == 502

        async def fails(call: Call) -> None:
            await call.recording({"type": "http.response.start", "status": 200, "headers": []})
            call.progress.failed(RequestError("No."))
            await call.recording({"type": "http.response.body", "body": b'{"error": {}}'})

        await here.ask(fails, slot="t")
        sent, progress = await here.ask(good, slot="t")
        assert (progress.idempotent, sent[-1]["body"]) == ("replayed", b'{"error": {}}')
        await here.aclose()

    asyncio.run(run())


def test_blobs_that_are_gone_or_full(tmp_path: Path) -> None:
    """What cannot be kept, or is kept no longer, is told; nothing is paid again."""

    async def run() -> None:
        here = Calls(tmp_path)

        async def large(call: Call) -> None:
            await here.calls.mark_sent(call)
            headers = [(b"content-type", b"application/json")]
            await call.recording({"type": "http.response.start", "status": 200, "headers": headers})
            await call.recording({"type": "http.response.body", "body": b"x" * 4000})

        await here.ask(large)
        await here.background.finish(5)
        for file in (tmp_path / "blobs").iterdir():
            file.unlink()
        sent, _ = await here.ask(good)
        assert sent[0]["status"] == 410
        (tmp_path / "blobs").rmdir()
        (tmp_path / "blobs").write_text("in the way")
        sent, _ = await here.ask(large, slot="t")
        assert sent[0]["status"] == 200
        await here.background.finish(5)
        sent, _ = await here.ask(good, slot="t")
        assert sent[0]["status"] == 410
        await here.aclose()

    asyncio.run(run())


# Tasks


def gateway_with(forward: Any) -> ImageGateway:
    gateway = ImageGateway(config=parse_config(UPSTREAM), hooks=[], grace=0.1)
    gateway.loop_services.tasks.runner.forward = forward
    return gateway


async def end_of(gateway: ImageGateway) -> dict[str, Any]:
    """Makes a task and returns its document once it is over."""
    import httpx

    transport = httpx.ASGITransport(app=gateway)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        reply = await client.post("/v1/images/generations", json={**BODY, "async": True})
        if reply.status_code != 202:
            return {"status_code": reply.status_code, **reply.json()}
        while True:
            document: dict[str, Any] = (await client.get(reply.headers["location"])).json()
            if document["status"] in ("completed", "failed"):
                return document
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("status", "body", "state", "code"),
    [
        (200, b'{"created": 1, "data": [{"url": "https://example.com/1.png"}], "usage": {}}', "completed", None),
        (200, b'{"error": {"message": "No.", "type": "t", "param": null, "code": "c"}}', "failed", "c"),
        (200, b'{"data": [{"b64_json": "AA"}]}', "failed", "upstream_uncertain"),
        (200, b"<html>", "failed", "upstream_uncertain"),
        (200, b"[1]", "failed", "upstream_uncertain"),
        (200, b"x" * 5_000_000, "failed", "upstream_uncertain"),
    ],
)
def test_answers_of_the_stack(status: int, body: bytes, state: str, code: str | None) -> None:
    """Links are a task's pictures; an error that came late, and anything else, is its failure."""

    async def forward(scope: Any, exchange: Any, receive: Any, send: Any) -> None:
        for tell in scope["imagegate.sending"]:
            from imagegate.upstream.dispatch_hooks import Sending

            await tell(Sending("openai"))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def run() -> None:
        async with gateway_with(forward) as gateway:
            document = await end_of(gateway)
        assert document["status"] == state
        assert (document.get("error") or {}).get("code") == code

    asyncio.run(run())


def test_mistakes_of_the_gateway() -> None:
    """A failure that nobody foresaw ends the task all the same."""

    async def forward(scope: Any, exchange: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("oh")

    async def run() -> None:
        async with gateway_with(forward) as gateway:
            document = await end_of(gateway)
        assert document["error"]["code"] == "internal_error"

    asyncio.run(run())
    assert isinstance(internal(sent=True), UpstreamUncertain)


def test_a_refused_task_is_discarded_however_long_the_store_is_away() -> None:
    """Its client has the error at once; kept, it would be done after its lease."""

    async def forward(scope: Any, exchange: Any, receive: Any, send: Any) -> None:
        raise UpstreamRefused("busy", status=429)

    async def run() -> None:
        async with gateway_with(forward) as gateway:
            runner, asked = gateway.loop_services.tasks.runner, 0
            store = vars(runner)["_store"]
            discard = store.discard

            async def away(record: Any) -> None:
                nonlocal asked
                asked += 1
                if asked < 3:
                    raise StoreUnavailable
                await discard(record)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(store, "discard", away)
                document = await end_of(gateway)
                assert (document["status_code"], asked) == (429, 1)
                (run_,) = runner.runs.values()
                await async_until(lambda: not runner.runs)
            assert asked == 3
            assert await store.get(run_.record.number) is None

    asyncio.run(run())


@pytest.mark.parametrize("how", ["away", "left"])
def test_a_task_that_was_kept_though_nobody_was_told_is_given_up(how: str) -> None:
    """The store's answer was lost, or the client left before it: done after its lease, it would be paid for twice."""

    async def forward(scope: Any, exchange: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it is not done")

    async def run() -> None:
        async with gateway_with(forward) as gateway:
            runner = gateway.loop_services.tasks.runner
            store, numbers = vars(runner)["_store"], list[str]()
            add = store.add

            async def kept(record: TaskRecord) -> None:
                await add(record)
                numbers.append(record.number)
                if how == "away":
                    raise StoreUnavailable
                await asyncio.sleep(60)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(store, "add", kept)
                asking = asyncio.create_task(end_of(gateway))
                await async_until(lambda: numbers)
                assert await store.get(numbers[0]) is not None or how == "away"
                if how == "left":
                    asking.cancel()
                (found,) = await asyncio.gather(asking, return_exceptions=True)
            assert isinstance(found, asyncio.CancelledError) or found["status_code"] == 503
            await async_until(lambda: not runner.given_up)
            assert await store.get(numbers[0]) is None
            assert not runner.runs

    asyncio.run(run())


class Asked(ProviderTasks):
    """Has one answer for each question about a task, which is an error."""

    def __init__(self, *errors: UpstreamError) -> None:
        account: Any = SimpleNamespace(poll_interval=0.0, deadline=30.0)
        self._accounts = {"p": account}
        self.errors = list(errors)

    async def ask(self, *_: Any, **__: Any) -> Any:
        raise self.errors.pop(0)


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (UpstreamRefused("Not found.", status=404), "task_lost", "uncertain"),
        (UpstreamRefused("No.", status=401), "task_lost", "uncertain"),
        (fewer(2, 1), "fewer_images", "uncertain"),
    ],
)
def test_a_followed_task_whose_question_is_refused(error: UpstreamError, code: str, outcome: str) -> None:
    """What became of it is not known, so that its money is held; what is over is not asked for again."""
    provider = ProviderTask(upstream="p", id="theirs", model="m")
    record = TaskRecord(
        number="t", owner="", created=1.0, model="m", images=2, task_id="t", poll_url="/", provider=provider
    )
    tasks = Asked(UpstreamRefused("busy", status=429), error)
    with pytest.raises(UpstreamError) as caught:
        asyncio.run(tasks.wait(record, Progress("tasks")))
    assert (caught.value.code, caught.value.outcome, tasks.errors) == (code, outcome, [])


def test_the_end_with_tasks_at_work() -> None:
    """In memory nobody can take them over: they have failed, with what is known about the money."""

    async def forward(scope: Any, exchange: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def run() -> None:
        async with gateway_with(forward) as gateway:
            import httpx

            transport = httpx.ASGITransport(app=gateway)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                reply = await client.post("/v1/images/generations", json={**BODY, "async": True})
                assert reply.status_code == 202
                (run_,) = gateway.loop_services.tasks.runner.runs.values()
                await gateway.loop_services.background.finish(0)
                document = (await client.get(reply.headers["location"])).json()
        assert (run_.record.state, document["error"]["code"]) == ("failed", "task_not_begun")

    asyncio.run(run())


def test_captured_takes_no_more_than_it_can_hold() -> None:
    async def run() -> None:
        captured = CapturedResponse(limit=4 * 1024**2)
        await captured({"type": "http.response.trailers"})
        with pytest.raises(UpstreamUncertain):
            await captured({"type": "http.response.body", "body": b"x" * 5_000_000})

    asyncio.run(run())


# The end of stubborn tasks


def test_old_blobs_are_removed(tmp_path: Path) -> None:
    """When something new is written, now and then."""

    async def run() -> None:
        blobs = FileBlobs(tmp_path / "b", ttl=-1, sweep_interval=0.0)
        first = await blobs.put(pieces_of(b"a"))
        await blobs.put(pieces_of(b"b"))
        with pytest.raises(FileNotFoundError):
            await whole(blobs.read(first))

    asyncio.run(run())


def test_stubborn_tasks_are_told_again() -> None:
    """One that swallows the first word ends with the second."""

    async def stubborn() -> bool:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        assert is_cancelled()
        await asyncio.sleep(60)
        return True

    async def run() -> None:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await stop(task, interval=0.05)
        assert task.cancelled()
        await stop(task)

    asyncio.run(run())
