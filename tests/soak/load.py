"""A gateway at its limits: faults, cancels, retries, tasks and a small spool, for minutes.

    python -m tests.soak.load [--seconds 360] [--clients 120]

The provider is a process of its own. It marks each picture with the request that paid for it, and counts those whose
reply has left it whole. No request may have two of them, each client must get its own picture and no other, and a
picture that was made for a client who was still there must have reached it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Final

import aiohttp
from tests.wire.edit_support import gateway_process, picture

SIZES: Final = (200, 20_000, 300_000, 1_500_000)
_MARK: Final = re.compile(rb"ID([0-9]+)Z")
CONFIG: Final = """
[[upstreams]]
name = "maker"
adapter = "openai"
base_url = "http://127.0.0.1:{port}"
api_key = "sk-maker"
read_timeout = "20s"

[delivery]
store = "file://{folder}/images"
link_ttl = "60s"

[policy]
retries = 1
backoff = "10ms"
breaker_failures = 0
deadline = "60s"

[limits]
in_flight = 60
spool = 134217728
spool_memory = 4194304
"""


class Maker:
    """Makes pictures, and fails in every fourth request."""

    def __init__(self) -> None:
        self.posts: Counter[int] = Counter()
        self.whole: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                body = await _body(head.lower(), reader)
                if head.startswith(b"GET"):
                    name = head.split(b" ")[1].rpartition(b"/")[2].split(b"-")
                    await _answer(writer, _picture(int(name[0]), int(name[1])), "image/png")
                    continue
                found = _MARK.search(body)
                assert found is not None
                await self._make(int(found[1]), body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _make(self, number: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.posts[number] += 1
        fault = random.choice(FAULTS) if random.random() < 0.25 else "none"
        self.faults[fault] += 1
        size = random.choice(SIZES)
        await asyncio.sleep(random.choice((0, 0.01, 0.1, 0.5)))
        if fault in ("429", "500", "400"):
            await _answer(writer, json.dumps({"error": {"message": "No.", "code": "no"}}).encode(), status=int(fault))
            return
        if fault == "close":
            writer.close()
            return
        content = _picture(number, size)
        text = base64.b64encode(content).decode()
        if b'"stream":true' in body.replace(b" ", b""):
            event = json.dumps({"type": "image_generation.completed", "b64_json": text})
            reply, kind = (
                f"event: image_generation.completed\ndata: {event}\n\n".encode(),
                "text/event-stream",
            )
        elif b"LINK" in body:
            port = writer.get_extra_info("sockname")[1]
            link = f"http://127.0.0.1:{port}/{number}-{size}"
            reply, kind = json.dumps({"created": 1, "data": [{"url": link}]}).encode(), "application/json"
        else:
            reply, kind = json.dumps({"created": 1, "data": [{"b64_json": text}]}).encode(), "application/json"
        if fault == "cut":
            await _answer(writer, reply, kind, cut=True)
            return
        if fault == "slow":
            await asyncio.sleep(2)
        await _answer(writer, reply, kind)
        self.whole[number] += 1


FAULTS: Final = ("429", "500", "400", "close", "cut", "slow")


def _picture(number: int, size: int) -> bytes:
    return picture(number % 251) + f"ID{number}Z".encode() + random.Random(number).randbytes(size)


async def _answer(
    writer: asyncio.StreamWriter, body: bytes, kind: str = "application/json", *, status: int = 200, cut: bool = False
) -> None:
    head = f"HTTP/1.1 {status} Status\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + (body[: len(body) // 2] if cut else body))
    await writer.drain()
    if cut:
        writer.close()


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    if found := re.search(rb"content-length: ([0-9]+)", head):
        return await reader.readexactly(int(found[1]))
    body = b""
    if b"chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    return body


def _provide(pipe: Pipe) -> None:
    async def main() -> None:
        maker = Maker()
        server = await asyncio.start_server(maker.serve, "127.0.0.1", 0, limit=2**26, backlog=1000)
        pipe.send(server.sockets[0].getsockname()[1])
        while not pipe.poll():
            await asyncio.sleep(0.1)
        pipe.send((dict(maker.posts), dict(maker.whole), dict(maker.faults)))

    asyncio.run(main())


class Driver:
    """Clients of every kind; each request is one number."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session
        self.ends: dict[int, str] = {}
        """Number -> ``picture``, ``left``, or the status and code of an error."""
        self.wrong: list[str] = []
        self.kinds: Counter[str] = Counter()
        self._next = 0

    async def client(self, until: float) -> None:
        while time.monotonic() < until:
            self._next += 1
            number, kind = self._next, random.choice(KINDS)
            self.kinds[kind] += 1
            self.ends[number] = "none"
            try:
                self.ends[number] = await asyncio.wait_for(self._ask(number, kind), 90)
            except Exception as error:
                self.ends[number] = f"broken {error!r}"[:80]
            if self.ends[number].startswith("503"):
                await asyncio.sleep(0.2)

    async def _ask(self, number: int, kind: str) -> str:
        prompt = f"ID{number}Z {'LINK' if 'link' in kind else ''}"
        body: dict[str, Any] = {"model": "maker/gpt-image-1", "prompt": prompt}
        body |= {"response_format": "url"} if "url" in kind else {"response_format": "b64_json"}
        headers: dict[str, str] = {}
        if kind == "leaves":
            asking = asyncio.ensure_future(self._post(body, headers))
            await asyncio.sleep(random.random() * 0.3)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            return "left"
        if kind == "stream":
            return await self._end(number, await self._post({**body, "stream": True}, headers))
        if kind == "task":
            return await self._task(number, await self._post({**body, "async": True}, headers), headers)
        if kind == "form":
            return await self._end(number, await self._form(body, headers))
        if kind == "keyed":
            return await self._keyed(number, body, {**headers, "idempotency-key": f"key-{number}"})
        return await self._end(number, await self._post(body, headers))

    async def _keyed(self, number: int, body: dict[str, Any], headers: dict[str, str]) -> str:
        """Leaves once, and asks again with the same key until there is an answer, as SDKs do."""
        asking = asyncio.ensure_future(self._post(body, headers))
        await asyncio.wait([asking], timeout=0.2)
        if not asking.done():
            asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        for _ in range(4):
            status, kind, answer = await self._post(body, headers)
            if status not in (409, 429, 503):
                break
            await asyncio.sleep(0.2)
        return await self._end(number, (status, kind, answer))

    async def _post(self, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, str, bytes]:
        async with self.session.post(f"{self.url}/v1/images/generations", json=body, headers=headers) as reply:
            return reply.status, reply.content_type, await reply.read()

    async def _form(self, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, str, bytes]:
        form = aiohttp.FormData()
        for name, value in body.items():
            form.add_field(name, value)
        form.add_field("image", picture(1) + os.urandom(random.choice((100, 400_000))), filename="a.png")
        async with self.session.post(f"{self.url}/v1/images/edits", data=form, headers=headers) as reply:
            return reply.status, reply.content_type, await reply.read()

    async def _task(self, number: int, answer: tuple[int, str, bytes], headers: dict[str, str]) -> str:
        if answer[0] != 202:
            return await self._end(number, answer)
        location = json.loads(answer[2])["poll_url"]
        while True:
            async with self.session.get(self.url + location, headers=headers) as reply:
                document = await reply.json()
            if reply.status == 200 and document["status"] == "completed":
                return await self._end(number, (200, "application/json", json.dumps(document).encode()))
            if reply.status == 200 and document["status"] == "failed":
                return f"task {document['error']['code']}"
            await asyncio.sleep(0.2)

    async def _end(self, number: int, answer: tuple[int, str, bytes]) -> str:
        status, kind, body = answer
        if status != 200:
            return f"{status} {json.loads(body)['error']['code']}"
        if kind == "text/event-stream":
            events = [json.loads(line[5:]) for line in body.decode().splitlines() if line.startswith("data: {")]
            if "b64_json" not in events[-1]:
                return f"event {events[-1].get('error', {}).get('code')}"
            content = base64.b64decode(events[-1]["b64_json"])
        else:
            item = json.loads(body)["data"][0]
            content = base64.b64decode(item["b64_json"]) if "b64_json" in item else await self._load(item["url"])
        found = _MARK.search(content)
        if found is None or int(found[1]) != number or content != _picture(number, len(content) - _overhead(number)):
            self.wrong.append(f"{number}: another picture, or a broken one")
            return "wrong"
        return "picture"

    async def _load(self, url: str) -> bytes:
        async with self.session.get(url) as reply:
            return await reply.read() if reply.status == 200 else b""


KINDS: Final = ("b64", "url", "link", "link url", "stream", "form", "task", "keyed", "leaves")


def _overhead(number: int) -> int:
    return len(_picture(number, 0))


async def _run(url: str, seconds: float, clients: int, memory: list[int], pid: int) -> Driver:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(90)) as session:
        driver, until = Driver(url, session), time.monotonic() + seconds
        working = [asyncio.create_task(driver.client(until)) for _ in range(clients)]
        while any(not task.done() for task in working):
            await asyncio.sleep(5)
            status = Path(f"/proc/{pid}/status").read_text("utf-8")
            memory.append(int(re.search(r"VmRSS:\s+([0-9]+)", status)[1]) // 1024)  # type: ignore[index]
        await asyncio.gather(*working)
        return driver


def main() -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=360)
    parser.add_argument("--clients", type=int, default=120)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    provider = multiprocessing.Process(target=_provide, args=(theirs,), daemon=True)
    provider.start()
    memory: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "imagegate.toml"
        config.write_text(CONFIG.format(port=ours.recv(), folder=folder), "utf-8")
        with gateway_process(config) as gateway:
            pid = gateway.process.pid
            driver = asyncio.run(_run(gateway.url, options.seconds, options.clients, memory, pid))
    ours.send("stop")
    posts, whole, faults = ours.recv()
    return _report(driver, posts, whole, faults, memory)


def _report(
    driver: Driver, posts: dict[int, int], whole: dict[int, int], faults: dict[str, int], memory: list[int]
) -> int:
    twice = [number for number, count in whole.items() if count > 1]
    lost = {number: end for number, end in driver.ends.items() if whole.get(number) and end not in ("picture", "left")}
    missing = [number for number, end in driver.ends.items() if end == "none" or end.startswith("broken")]
    unpaid = [number for number, end in driver.ends.items() if end == "picture" and not whole.get(number)]
    print("requests", len(driver.ends), dict(driver.kinds))
    print("ends", dict(Counter(driver.ends.values()).most_common()))
    print("provider: POSTs", sum(posts.values()), "whole replies", sum(whole.values()), faults)
    print(f"memory, MiB: {memory[0]} at first, {max(memory)} at most, {memory[-1]} at last")
    print("paid twice", len(twice), "lost", Counter(lost.values()), "not accounted for", len(missing))
    print("pictures that nobody made", len(unpaid), "wrong", driver.wrong[:5])
    return 1 if twice or lost or missing or driver.wrong or unpaid else 0


if __name__ == "__main__":
    sys.exit(main())
