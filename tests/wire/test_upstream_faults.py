"""Providers that fail in every way: who is asked again, what the client hears, and what it must not hear."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest
from tests.waiting import TIMEOUT
from tests.wire.faults import (
    CHUNKED,
    FAULTS,
    GOOD,
    HALF,
    HTML,
    KEY,
    PNG,
    Behaviour,
    Connection,
    Request,
    Rig,
    Upstream,
    leave,
    own,
    rig,
    says,
    writes,
)

# What no client may see, quoted by a provider wherever it can.
LEAKS: dict[str, Behaviour] = {
    "leak-key": says(401, own(f"Incorrect API key provided: {KEY}.")),
    "leak-key-500": says(500, own(f"token {KEY} is over its limit")),
    "leak-key-in-code": says(400, own(code=f"bad_key_{KEY}")),
    "leak-key-in-type": says(400, own(type=KEY)),
    "leak-key-in-param": says(400, own(param=KEY)),
    "leak-key-in-id": says(400, own(), f"x-request-id: {KEY}"),
    "leak-key-in-502": says(502, own(f"upstream said no to Bearer {KEY}")),
    "leak-url": says(500, own("dial tcp: http://<host>/leak-url/v1/images/generations refused")),
    "leak-host": says(500, own("connect to <host> failed")),
    "leak-url-200": says(200, {"status": "failed", **own(f"GET http://<host>/x: 500 ({KEY})")}),
    "leak-other-key": says(500, own("Incorrect API key provided: sk-proj-ZyXwVu98. You can find yours online.")),
    "leak-in-list": says(422, {"detail": [{"loc": ["header", KEY], "msg": f"{KEY} at <host>", "type": "x"}]}),
}


class Parts:
    """A provider of one image at a time that waits until three are asked for, and then answers each in its own way."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours = behaviours
        self._asked = 0

    async def __call__(self, connection: Connection, request: Request) -> None:
        mine = self._behaviours[self._asked % len(self._behaviours)]
        self._asked += 1
        while self._asked < len(self._behaviours):
            await asyncio.sleep(0.001)
        await mine(connection, request)


class RefusalThenReset:
    """Refuses the first request with a 429, and resets the others when the first reply has been read to its end."""

    def __init__(self) -> None:
        self._asked = 0
        self._read = False

    async def __call__(self, connection: Connection, request: Request) -> None:
        self._asked += 1
        mine = self._asked
        while self._asked < 2:
            await asyncio.sleep(0.001)
        await connection.body(request)
        if mine == 1:
            await connection.json(429, own(code="rate_limit_exceeded"), "connection: close")
            await connection.left()
            self._read = True
            connection.writer.close()
        else:
            while not self._read:
                await asyncio.sleep(0.001)
            await connection.reset()


PARTS: dict[str, Behaviour] = {
    "parts-made": Parts(*[says(200, GOOD)] * 3),
    "parts-one-fails": Parts(says(200, GOOD), says(500, own("No more.")), says(200, GOOD)),
    "parts-all-refused": Parts(*[says(429, own(), "retry-after: 9")] * 3),
    "parts-refused-and-reset": RefusalThenReset(),
}
HOLDS: dict[str, Behaviour] = {
    "holds-head": writes(end="silence"),
    "holds-reply": writes(HALF, end="silence"),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    behaviours = {name: fault.behaviour for name, fault in FAULTS.items()} | LEAKS | PARTS | HOLDS
    behaviours["named-500"] = says(500, own(), "x-request-id: of-the-first")
    routes = '"all-fail" = ["500/any", "refused/any", "503/any"]'
    with rig(behaviours, tmp_path_factory.mktemp("faulty"), routes=routes) as running:
        yield running


@pytest.mark.parametrize("name", FAULTS)
def test_one_candidate(faulty: Rig, name: str) -> None:
    """With one candidate the provider is asked once, and the client gets the error with the right advice."""
    fault = FAULTS[name]
    before = faulty.upstream.posts.copy()
    reply = faulty.post(f"{name}.alone")
    assert fault.status == reply.status_code, reply.text[:500]
    error = faulty.error_of(reply)
    assert fault.code in (None, error["code"])
    assert name == error["imagegate"]["upstream"]
    assert ("false" if fault.outcome == "uncertain" else None) == reply.headers.get("x-should-retry")
    assert +Counter({name: fault.posts}) == faulty.upstream.posts - before
    record = faulty.record_of(reply)
    assert (fault.status, fault.outcome, name) == (record.status, record.outcome, record.upstream)


@pytest.mark.parametrize("name", FAULTS)
def test_two_candidates(faulty: Rig, name: str) -> None:
    """The second candidate is asked only after an error that shows that the first one made nothing."""
    fault = FAULTS[name]
    before = faulty.upstream.posts.copy()
    reply = faulty.post(f"{name}.two")
    assert +Counter({name: fault.posts, "good": int(fault.elsewhere)}) == faulty.upstream.posts - before
    if fault.elsewhere:
        assert (reply.status_code, reply.headers["imagegate-upstream"]) == (200, "good")
        assert httpx.get(reply.json()["data"][0]["url"]).content == PNG
    else:
        assert fault.status == reply.status_code
        faulty.error_of(reply)


def test_redirects_are_not_followed(faulty: Rig) -> None:
    """A redirect of a POST leads nowhere, and the key goes with it to nobody."""
    before = faulty.upstream.gets.copy(), faulty.upstream.posts["good"], faulty.upstream.others.copy()
    faulty.post("302.alone")
    faulty.post("307.alone")
    assert before == (faulty.upstream.gets, faulty.upstream.posts["good"], faulty.upstream.others)


@pytest.mark.parametrize(("name", "seconds"), [("429", "7"), ("503", "3"), ("500", None), ("502", None)])
def test_retry_after_is_passed_on(faulty: Rig, name: str, seconds: str | None) -> None:
    """The client hears after how many seconds the provider wants to be asked again."""
    assert seconds == faulty.post(f"{name}.alone").headers.get("retry-after")


@pytest.mark.parametrize("name", ["reset-after-body", "500-html", "empty-data", "silent-head", "wrong-bytes"])
def test_sdk_does_not_pay_twice(faulty: Rig, name: str) -> None:
    """The official SDK, with the retries that it comes with, asks once where the picture may have been made."""
    before = faulty.upstream.posts.copy()
    with openai.OpenAI(base_url=f"{faulty.url}/v1", api_key="any") as client, pytest.raises(openai.APIStatusError):
        client.images.generate(model=f"{name}.alone", prompt="A kite", response_format="url")
    assert Counter({name: 1}) == faulty.upstream.posts - before


def test_every_candidate_fails(faulty: Rig) -> None:
    """Where no candidate makes a picture, the error is that of the one that was preferred; each was asked once."""
    before = faulty.upstream.posts.copy()
    reply = faulty.post("all-fail")
    error = faulty.error_of(reply)
    assert (reply.status_code, error["code"], error["imagegate"]["upstream"]) == (500, "own_code", "500")
    assert reply.headers["imagegate-upstream"] == "500"
    assert Counter({"500": 1, "503": 1}) == faulty.upstream.posts - before


def test_record_of_the_second_candidate(faulty: Rig) -> None:
    """The record tells of the provider that answered, and nothing of the one before that it says is another's."""
    record = faulty.record_of(faulty.post("named-500.two"))
    assert (record.upstream, record.attempts, record.outcome, record.error_code) == ("good", 2, "", "")
    assert record.upstream_request_id == ""


@pytest.mark.parametrize("name", LEAKS)
def test_no_key_and_no_host_in_any_answer(faulty: Rig, name: str) -> None:
    """Whatever the provider quotes, and in whichever member, its key and address do not reach the client."""
    reply = faulty.post(f"{name}.alone")
    assert reply.status_code >= 400
    assert faulty.error_of(reply)["message"]


def test_what_looks_like_a_key_is_taken_out(faulty: Rig) -> None:
    """A key in a provider's text that is not the gateway's own, such as the provider's key for its own provider."""
    reply = faulty.post("leak-other-key.alone")
    assert "sk-proj-ZyXwVu98" not in reply.text
    assert faulty.error_of(reply)["message"].startswith("Incorrect API key provided: ")


# Requests in parts


def test_all_parts_are_made(faulty: Rig) -> None:
    """Three images of a model that makes one at a time are three requests and one reply."""
    before = faulty.upstream.posts.copy()
    reply = faulty.post("parts-made.parts", n=3)
    assert (reply.status_code, len(reply.json()["data"])) == (200, 3)
    assert Counter({"parts-made": 3}) == faulty.upstream.posts - before


def test_one_part_fails(faulty: Rig) -> None:
    """One part that fails after others were made is an error that says how many, and nobody is asked again."""
    before = faulty.upstream.posts.copy()
    reply = faulty.post("parts-one-fails.parts.two", n=3)
    error = faulty.error_of(reply)
    assert (reply.status_code, reply.headers["x-should-retry"]) == (500, "false")
    assert error["message"].startswith("2 of 3 images were made")
    assert error["imagegate"]["images_made"] == 2
    assert [httpx.get(image["url"]).content for image in error["imagegate"]["data"]] == [PNG, PNG]
    assert Counter({"parts-one-fails": 3}) == faulty.upstream.posts - before


def test_all_parts_are_refused(faulty: Rig) -> None:
    """Where every part was refused nothing was made, so the next candidate is asked for all of them."""
    before = faulty.upstream.posts.copy()
    reply = faulty.post("parts-all-refused.parts.two", n=3)
    assert (reply.status_code, len(reply.json()["data"])) == (200, 3)
    assert Counter({"parts-all-refused": 3, "good": 3}) == faulty.upstream.posts - before


def test_one_part_is_refused_and_another_uncertain(faulty: Rig) -> None:
    """A part that may have been made keeps the whole from going elsewhere, whichever part failed first."""
    before = faulty.upstream.posts.copy()
    reply = faulty.post("parts-refused-and-reset.parts.two", n=2)
    assert Counter({"parts-refused-and-reset": 2}) == faulty.upstream.posts - before
    assert (reply.status_code >= 400, reply.headers.get("x-should-retry")) == (True, "false")


# Clients that leave


@pytest.mark.parametrize("name", HOLDS)
def test_client_leaves_during_the_call(faulty: Rig, name: str) -> None:
    """When the client leaves, the call to the provider is given up, the record says 499, and others are served."""
    before = faulty.upstream.posts[name]
    record = leave(faulty, f"{name}.two", f"left-{name}", lambda: faulty.upstream.posts[name] > before)
    assert (record.status, record.error_code, record.upstream) == (499, "client_disconnected", name)
    assert faulty.upstream.left[name].wait(TIMEOUT)
    assert faulty.upstream.posts[name] == before + 1
    assert faulty.post("good/any").status_code == 200


def test_many_clients_leave(faulty: Rig) -> None:
    """Clients that leave one after the other take no place in the gateway with them."""
    for number in range(5):
        before = faulty.upstream.posts["holds-head"]
        record = leave(
            faulty,
            "holds-head.alone",
            f"left-{number}",
            lambda before=before: faulty.upstream.posts["holds-head"] > before,  # type: ignore[misc]
        )
        assert record.status == 499
    assert faulty.post("good/any").status_code == 200


# Tasks


class Task:
    """A provider that makes a task of every POST and answers questions about it one after the other."""

    def __init__(self, *polls: Behaviour, **members: Any) -> None:
        self._polls = polls
        self._members = members
        self._asked = 0

    async def __call__(self, connection: Connection, request: Request) -> None:
        if request.method == "POST":
            self._asked = 0
            await says(200, {"id": "task-7", "status": "queued", "progress": 0, **self._members})(connection, request)
            return
        mine = self._polls[min(self._asked, len(self._polls) - 1)]
        self._asked += 1
        await mine(connection, request)


DONE = says(200, {"id": "task-7", "status": "completed", "result": {"data": GOOD["data"]}})
WORKING = says(200, {"id": "task-7", "status": "in_progress", "progress": 40})
STRANGE = says(200, {"id": "task-7", "status": "reticulating"})
FAILED = says(200, {"id": "task-7", "status": "failed", "error": {"code": "generation_failed", "message": "No luck."}})


class TaskFault(NamedTuple):
    """What becomes of a task, and of the request."""

    behaviour: Task
    status: int
    code: str | None = None
    elsewhere: bool = False
    retry: str | None = "false"
    """The advice in x-should-retry."""


TASK_FAULTS: dict[str, TaskFault] = {
    "failed": TaskFault(Task(WORKING, FAILED), 502, "generation_failed", elsewhere=True, retry=None),
    "failed-string": TaskFault(
        Task(says(200, {"id": "task-7", "status": "failed", "error": "No luck."})), 502, elsewhere=True, retry=None
    ),
    "cancelled": TaskFault(
        Task(says(200, {"id": "task-7", "status": "cancelled"})), 502, "task_cancelled", elsewhere=True, retry=None
    ),
    "moderated": TaskFault(
        Task(says(200, {"id": "task-7", "status": "failed", "error": {"message": "Against our content policy."}})),
        400,
        "moderation_blocked",
        retry=None,
    ),
    "lost": TaskFault(Task(WORKING, says(404, own("Task not found"))), 502, "task_lost"),
    "lost-empty": TaskFault(Task(says(404, b"")), 502, "task_lost"),
    "lost-new-api": TaskFault(
        Task(says(400, {"code": "task_not_exist", "message": "task_not_exist", "data": None})), 502, "task_lost"
    ),
    "done-empty": TaskFault(Task(says(200, {"id": "task-7", "status": "completed", "data": []})), 502),
    # The provider took the order; that it does not answer questions does not mean that nothing is made.
    "poll-401": TaskFault(Task(says(401, own())), 502, "task_lost"),
    "poll-409": TaskFault(Task(says(409, own())), 502, "task_lost"),
    "poll-410-html": TaskFault(Task(says(410, HTML)), 502, "task_lost"),
}
SURVIVED: dict[str, Behaviour] = {
    "500s": Task(says(500, own()), says(503, HTML), says(502, b""), DONE),
    "429": Task(says(429, own(), "retry-after: 0"), says(425, {}), says(408, HTML), DONE),
    "broken": Task(writes(end="reset"), writes(HALF, end="close"), writes(CHUNKED, end="reset"), DONE),
    "html": Task(says(200, HTML), says(200, b""), DONE),
    "strange": Task(STRANGE, WORKING, STRANGE, DONE),
    "poll-url": Task(DONE, poll_url="/v1/elsewhere/task-7"),
}
ELSEWHERE = {
    "absolute": "http://localhost:<port>/stolen",
    "no-scheme": "//localhost:<port>/stolen",
    "other-scheme": "https://127.0.0.1:<own>/stolen",
    "user": "http://127.0.0.1:<own>@localhost:<port>/stolen",
    "file": "file:///etc/passwd",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Task providers that come to an end; the deadline is far away."""
    behaviours: dict[str, Behaviour] = {name: fault.behaviour for name, fault in TASK_FAULTS.items()}
    with rig(
        {**behaviours, **SURVIVED, "works-on": Task(WORKING)},
        tmp_path_factory.mktemp("tasks"),
        tasks='poll_interval = "10ms"\ndeadline = "60s"',
    ) as running:
        yield running


@pytest.mark.parametrize("name", TASK_FAULTS)
@pytest.mark.parametrize("route", ["alone", "two"])
def test_tasks_that_end_badly(tasks: Rig, name: str, route: str) -> None:
    """A task that failed may be ordered elsewhere; one that was lost or cannot be asked for may not."""
    fault = TASK_FAULTS[name]
    before = tasks.upstream.posts.copy()
    reply = tasks.post(f"{name}.{route}")
    elsewhere = fault.elsewhere and route == "two"
    assert +Counter({name: 1, "good": int(elsewhere)}) == tasks.upstream.posts - before
    if elsewhere:
        assert reply.status_code == 200
        return
    error = tasks.error_of(reply)
    assert fault.status == reply.status_code
    assert fault.code in (None, error["code"])
    assert fault.retry == reply.headers.get("x-should-retry")
    assert error["imagegate"]["upstream_task_id"] == "task-7"


@pytest.mark.parametrize("name", SURVIVED)
def test_bad_answers_while_polling_are_survived(tasks: Rig, name: str) -> None:
    """Questions cost nothing: a task whose questions fail for a while is asked for again, and ordered once."""
    before = tasks.upstream.posts.copy()
    reply = tasks.post(f"{name}.two")
    assert reply.status_code == 200, reply.text
    assert httpx.get(reply.json()["data"][0]["url"]).content == PNG
    assert Counter({name: 1}) == tasks.upstream.posts - before
    assert tasks.record_of(reply).polls >= 1


def test_client_leaves_while_the_task_is_at_work(tasks: Rig) -> None:
    """When the client leaves, nobody asks for the task any more."""
    record = leave(tasks, "works-on.alone", "left-task", lambda: tasks.upstream.gets["works-on"] > 1)
    assert (record.status, record.error_code) == (499, "client_disconnected")
    asked = tasks.upstream.gets["works-on"]
    for _ in range(3):
        assert tasks.post("500s.alone").status_code == 200  # each with pauses in which a question would come
    assert tasks.upstream.gets["works-on"] <= asked + 1


@pytest.fixture(scope="module")
def endless_tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Task providers that come to no end, and a short deadline."""
    behaviours: dict[str, Behaviour] = {
        "never": Task(WORKING),
        "only-errors": Task(says(500, own())),
        "hangs": Task(writes(end="silence")),
    }
    with rig(
        behaviours, tmp_path_factory.mktemp("endless"), tasks='poll_interval = "10ms"\ndeadline = "300ms"'
    ) as running:
        yield running


@pytest.mark.parametrize("name", ["never", "only-errors", "hangs"])
def test_a_task_that_does_not_end(endless_tasks: Rig, name: str) -> None:
    """A task that is not ready at the deadline is a 504 with its id, also where its provider does not answer at all."""
    before = endless_tasks.upstream.posts.copy()
    reply = endless_tasks.post(f"{name}.two", timeout=5)
    error = endless_tasks.error_of(reply)
    assert (reply.status_code, error["code"]) == (504, "upstream_timeout")
    assert error["imagegate"]["upstream_task_id"] == "task-7"
    assert reply.headers["x-should-retry"] == "false"
    assert Counter({name: 1}) == endless_tasks.upstream.posts - before


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_task_on_another_host_is_never_asked_for(name: str, tmp_path: Path) -> None:
    """A poll_url that leaves the provider's origin is not fetched, and neither it nor the key gets out."""
    thief = Upstream({})
    with thief.running() as port:
        address = ELSEWHERE[name].replace("<port>", str(port)).replace("127.0.0.1:<own>", "<host>")
        with rig({"astray": Task(DONE, poll_url=address)}, tmp_path, tasks='poll_interval = "10ms"') as running:
            reply = running.post("astray.alone")
            assert Counter() == thief.others
            assert (reply.status_code, running.error_of(reply)["code"]) == (502, "task_lost")
            assert str(port) not in reply.text


def test_a_task_on_another_host_is_ordered_once(tmp_path: Path) -> None:
    """A provider that took the order and cannot be asked about it may have made it, so nobody else gets the order."""
    astray = Task(DONE, poll_url="http://localhost:9/astray")
    with rig({"astray": astray}, tmp_path, tasks='poll_interval = "10ms"') as running:
        reply = running.post("astray.two")
        assert Counter({"astray": 1}) == running.upstream.posts
        assert reply.headers.get("x-should-retry") == "false"
