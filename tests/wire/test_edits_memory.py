"""Large and many edits through a gateway process of its own: little memory, nothing lost, everything given back."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest
from starlette.types import Receive, Scope, Send
from tests.waiting import until
from tests.wire.edit_support import Process, gateway_process, large_picture, picture, sha

from imagegate.demo.servers import serving
from imagegate.spool.budget import UPLOADS_SHARE

pytestmark = pytest.mark.memory

MIB = 1024 * 1024
EDITS = "/v1/images/edits"
FILE, FILES = 10_000_000, 16
MAY_GROW = 24 * MIB
CLIENTS, EACH = 100, 5_000_000
FIT = 30
"""Edits that the spool of the second gateway holds at a time."""
RESULT = 3 * 1024 * 1024
"""Room that is secured for the picture of an edit before it is sent."""
SPOOL = FIT * (EACH + 100_000 + RESULT)
SPOOL_MEMORY = 16 * MIB
CONNECTION = 2 * MIB
"""What one request that is being received may need beside the spool: a write to disk, and the server's buffers."""


class Received(NamedTuple):
    """A request that reached the upstream whole."""

    path: str
    files: tuple[str, ...]
    """SHA-256 of each file of a form."""
    document: Any


class SlowUpstream:
    """A provider that takes whatever comes, and answers when it is told."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._go_on = threading.Event()
        self._go_on.set()
        self.url = ""

    def hold(self) -> None:
        """From now on requests wait for their answers."""
        self._go_on.clear()

    def release(self) -> None:
        self._go_on.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = dict(scope["headers"])
        kind = headers[b"content-type"]
        if kind.startswith(b"multipart/form-data"):
            boundary = kind.partition(b"boundary=")[2]
            hashes = await asyncio.to_thread(hashes_of, body, boundary)
            self.received.append(Received(scope["path"], hashes, None))
        else:
            self.received.append(Received(scope["path"], (), json.loads(body)))
        body.clear()
        while not self._go_on.is_set():
            await asyncio.sleep(0.02)
        reply: dict[str, Any] = {"created": 1, "data": [{"b64_json": base64.b64encode(picture(1, 16)).decode()}]}
        if scope["path"] == "/v1/uploads/images":
            reply = {"success": True, "data": {"url": f"{self.url}/files/{len(self.received)}"}}
        answer = json.dumps(reply).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": answer})


def hashes_of(body: bytearray, boundary: bytes) -> tuple[str, ...]:
    """SHA-256 of every file of a form, none of which is copied."""
    delimiter = b"\r\n--" + boundary
    hashes: list[str] = []
    with memoryview(body) as view:
        place = body.find(b"\r\n")
        while (head := body.find(b"\r\n\r\n", place)) >= 0:
            end = body.find(delimiter, head + 2)
            if b"filename=" in body[place:head]:
                hashes.append(hashlib.sha256(view[head + 4 : end]).hexdigest())
            place = end + len(delimiter)
    return tuple(hashes)


@pytest.fixture(scope="module")
def upstream() -> Iterator[SlowUpstream]:
    upstream = SlowUpstream()
    with serving(upstream) as port:
        upstream.url = f"http://127.0.0.1:{port}"
        yield upstream


def write_config(folder: Path, upstream: SlowUpstream, limits: str = "") -> Path:
    adapters = "".join(
        f'[[upstreams]]\nname = "{name}"\nbase_url = "{upstream.url}"\napi_key = "sk-any-key"\n'
        for name in ("openai", "tokenlab", "toapis")
    )
    config = folder / "imagegate.toml"
    config.write_text(f'{adapters}\n[delivery]\nstore = "file://{folder}/images"\n{limits}')
    return config


@pytest.fixture
def gateway(upstream: SlowUpstream, tmp_path: Path) -> Iterator[Process]:
    """A fresh process, whose peak of memory is nobody else's."""
    upstream.received.clear()
    with gateway_process(write_config(tmp_path, upstream)) as process:
        yield process


@pytest.fixture(scope="module")
def folder_of_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of 10 MB, each of its own content."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{number:02}.png" for number in range(FILES)]
    for number, path in enumerate(paths):
        path.write_bytes(large_picture(FILE, number)[:FILE])
    return paths


@pytest.mark.parametrize("model", ["openai/gpt-image-2", "tokenlab/nano-banana-pro", "toapis/gpt-image-1.5-official"])
def test_sixteen_large_files(gateway: Process, upstream: SlowUpstream, folder_of_files: list[Path], model: str) -> None:
    """As a form, by links to the store, and through an upload API: 160 MB pass in less than 24 MiB."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=120) as client:
        client.images.edit(model=model, image=("a.png", picture(1)), prompt="A small one")
        before = gateway.memory("VmHWM")
        upstream.received.clear()
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in folder_of_files]
            client.images.edit(model=model, image=files, prompt="All of them")
        grown = gateway.memory("VmHWM") - before
    print(f"{model}: 16 files of 10 MB grew VmHWM by {grown / MIB:.1f} MiB over {before / MIB:.1f} MiB")
    expected = [sha(path.read_bytes()) for path in folder_of_files]
    if model.startswith("tokenlab"):
        (edit,) = upstream.received
        assert expected == [sha(httpx.get(link).content) for link in edit.document["image_urls"]]
    else:
        assert expected == [file for request in upstream.received for file in request.files]
    until(lambda: not gateway.spooled(), what="closing the spool files")
    assert gateway.left_behind() == []
    assert grown < MAY_GROW


def test_a_form_full_of_text(gateway: Process) -> None:
    """Text is kept in memory, so a form of a hundred megabytes of it is refused, or takes as little as files do."""

    def send(fields: int, size: int) -> int:
        texts = {f"field{place}": (None, "x" * size) for place in range(fields)}
        known = {"model": (None, "openai/gpt-image-2"), "prompt": (None, "Blue")}
        files: dict[str, Any] = {**texts, **known, "image": ("a.png", picture(1), "image/png")}
        return httpx.post(gateway.url + EDITS, files=files, timeout=60).status_code

    assert send(1, 10) == 200
    before = gateway.memory("VmHWM")
    assert send(120, 1_000_000) == 413
    grown = gateway.memory("VmHWM") - before
    print(f"120 MB of text grew VmHWM by {grown / MIB:.1f} MiB")
    assert grown < MAY_GROW


# Many at a time


FORMS, LINKS = "openai/gpt-image-2", "tokenlab/nano-banana-pro"
"""Models that take files as they are, and as links to the gateway's store."""
BOUNDARY = "own-boundary"
SHARED = large_picture(EACH)


class Sent(NamedTuple):
    """One edit, and how it ended."""

    sha256: str
    reply: httpx.Response | httpx.TransportError


def head_of(number: int) -> bytes:
    """The unlike beginning of each client's file."""
    return picture(number) + number.to_bytes(8, "big")


def file_of(number: int) -> list[bytes]:
    """The file of one client in pieces that are shared with the others."""
    head = head_of(number)
    return [head, *(SHARED[start : start + 65_536] for start in range(len(head), EACH, 65_536))]


async def edit(client: httpx.AsyncClient, number: int, model: str = FORMS) -> Sent:
    """Sends one edit of 5 MB."""
    pieces = file_of(number)
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    fields = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("model", model), ("prompt", f"Number {number}"))
    )
    disposition = 'Content-Disposition: form-data; name="image"; filename="a.png"'
    before = f"{fields}--{BOUNDARY}\r\n{disposition}\r\nContent-Type: image/png\r\n\r\n".encode()
    after = f"\r\n--{BOUNDARY}--\r\n".encode()

    async def body() -> AsyncIterator[bytes]:
        yield before
        for piece in pieces:
            yield piece
        yield after

    length = len(before) + sum(map(len, pieces)) + len(after)
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}", "content-length": str(length)}
    try:
        return Sent(digest.hexdigest(), await client.post(EDITS, content=body(), headers=headers))
    except httpx.TransportError as error:
        return Sent(digest.hexdigest(), error)


@pytest.fixture(scope="module")
def crowded(upstream: SlowUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A gateway whose spool holds half of what comes."""
    limits = f"[limits]\nspool = {SPOOL}\nspool_memory = {SPOOL_MEMORY}\n"
    with gateway_process(write_config(tmp_path_factory.mktemp("crowded"), upstream, limits)) as process:
        yield process


def run_edits(gateway: Process, upstream: SlowUpstream, numbers: range, model: str = FORMS) -> list[Sent]:
    """Sends edits at the same time, and lets the upstream answer when each has either arrived there or been refused."""

    async def work() -> list[Sent]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=120, limits=limits) as client:
            tasks = [asyncio.create_task(edit(client, number, model)) for number in numbers]
            try:
                async with asyncio.timeout(90):
                    while sum(task.done() for task in tasks) + len(upstream.received) < len(tasks):
                        await asyncio.sleep(0.02)
            finally:
                upstream.release()
            return list(await asyncio.gather(*tasks))

    upstream.received.clear()
    upstream.hold()
    return asyncio.run(work())


@pytest.mark.parametrize("model", [FORMS, LINKS], ids=["forms", "links"])
def test_more_edits_at_a_time_than_the_spool_holds(crowded: Process, upstream: SlowUpstream, model: str) -> None:
    """What does not fit is answered 503, what is accepted arrives whole, and memory stays within its budget."""
    (warm,) = run_edits(crowded, upstream, range(1), model)
    assert isinstance(warm.reply, httpx.Response)
    crowded.reset_peak()
    before = crowded.memory("VmHWM")
    sent = run_edits(crowded, upstream, range(CLIENTS), model)
    grown = crowded.memory("VmHWM") - before
    answers = Counter(
        edit.reply.status_code if isinstance(edit.reply, httpx.Response) else type(edit.reply).__name__ for edit in sent
    )
    print(f"{model}: {CLIENTS} edits: {dict(answers)}, VmHWM grew by {grown / MIB:.1f} over {before / MIB:.1f} MiB")
    assert set(answers) == {200, 503}
    assert FIT // 2 <= answers[200] <= SPOOL * UPLOADS_SHARE // EACH
    for edit in sent:
        assert isinstance(edit.reply, httpx.Response)
        if edit.reply.status_code == 503:
            error = edit.reply.json()["error"]
            assert error["code"] in ("overloaded", "no_room")  # for the upload, or for its result
            assert (error["type"], error["param"]) == ("server_error", None)
            assert int(edit.reply.headers["retry-after"]) > 0
    accepted = sorted(edit.sha256 for edit in sent if isinstance(edit.reply, httpx.Response) and edit.reply.is_success)
    delivered = [file for request in upstream.received for file in request.files]
    links = [link for request in upstream.received if request.document for link in request.document["image_urls"]]
    assert accepted == sorted([*delivered, *(sha(httpx.get(link).content) for link in links)])
    assert len(set(accepted)) == len(accepted)
    assert grown < SPOOL_MEMORY + CLIENTS * CONNECTION


def test_afterwards_the_whole_budget_is_free(crowded: Process, upstream: SlowUpstream) -> None:
    """As many edits as the spool holds are all accepted, again and again, also after others were refused."""
    run_edits(crowded, upstream, range(CLIENTS))
    until(lambda: not crowded.spooled(), what="closing the spool files")
    for _ in range(2):
        sent = run_edits(crowded, upstream, range(FIT))
        assert [getattr(edit.reply, "status_code", edit.reply) for edit in sent] == [200] * FIT
        assert len(upstream.received) == FIT
    until(lambda: not crowded.spooled(), what="closing the spool files")
    assert crowded.left_behind() == []


def test_clients_that_leave_while_the_upstream_works(crowded: Process, upstream: SlowUpstream) -> None:
    """Their files are closed, and their room is there for others, before any provider has answered."""

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=crowded.url, timeout=120) as client:
            tasks = [asyncio.create_task(edit(client, number)) for number in range(20)]
            async with asyncio.timeout(90):
                while len(upstream.received) < len(tasks):
                    await asyncio.sleep(0.02)
            assert crowded.spooled()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    upstream.received.clear()
    upstream.hold()
    try:
        asyncio.run(leave())
        until(lambda: not crowded.spooled(), what="closing the spool files")
    finally:
        upstream.release()
    sent = run_edits(crowded, upstream, range(FIT))
    assert [getattr(edit.reply, "status_code", edit.reply) for edit in sent] == [200] * FIT
