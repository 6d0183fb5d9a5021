"""The provider that all proxies have: OpenAI's Images API with prompts that say how to answer.

    python benchmarks/upstream.py PORT [KEEP_ALIVE]

``large`` in a prompt: four pictures of 4 MiB; ``link``: the link of one, which is not there; else one of a kilobyte.
``wait=2``: after two seconds. ``hold``: after
``POST /release``. ``GET /received``: how many requests came since it was last asked, and of the last form the SHA-256
of each file; forms are only read, and parsed when somebody asks. ``KEEP_ALIVE``: seconds after which idle connections
are closed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import resource
import sys
from typing import Any, cast

import httptools
import uvloop
from pictures import large, small
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


LINKED = b'{"created":1,"data":[{"url":"https://images.invalid/1.png"}]}'


def reply(pictures: list[bytes]) -> bytes:
    data = [{"b64_json": base64.b64encode(each).decode()} for each in pictures]
    return json.dumps({"created": 1, "data": data}).encode()


class Provider:
    """What is answered to whom."""

    def __init__(self) -> None:
        self._small, self._large = reply([small()]), reply([large(seed) for seed in range(4)])
        self._released = asyncio.Event()
        self._count = 0
        self._form = ("", b"")

    def at_once(self, path: str, kind: str, body: bytes) -> bytes | None:
        """Return an answer that needs no waiting; None: `later` has it."""
        match path:
            case "/received":
                return None
            case "/release":
                self._released.set()
                self._released = asyncio.Event()
                return b"{}"
            case "/v1/images/edits":
                self._count += 1
                self._form = (kind, body)
                return self._small
        prompt = json.loads(body)["prompt"]
        if "wait" in prompt or "hold" in prompt:
            return None
        self._count += 1
        return LINKED if "link" in prompt else self._large if "large" in prompt else self._small

    async def later(self, path: str, body: bytes) -> bytes:
        """Return an answer after what the prompt says."""
        if path == "/received":
            return json.dumps(await self._received()).encode()
        self._count += 1
        prompt = json.loads(body)["prompt"]
        if wait := re.search(r"wait=([0-9.]+)", prompt):
            await asyncio.sleep(float(wait[1]))
        if "hold" in prompt:
            await self._released.wait()
        return self._small

    async def _received(self) -> dict[str, Any]:
        kind, body = self._form
        files: list[str] = []
        if body:

            async def stream() -> Any:
                yield body

            form = await MultiPartParser(Headers({"content-type": kind}), stream()).parse()
            for _, value in form.multi_items():
                if isinstance(value, UploadFile):
                    files.append(hashlib.sha256(await value.read()).hexdigest())
            await form.close()
        count, self._count, self._form = self._count, 0, ("", b"")
        return {"requests": count, "files": files}


class Connection(asyncio.Protocol):
    """HTTP as far as proxies need it: a provider that costs much would keep them waiting, and sleeping."""

    def __init__(self, provider: Provider, keep_alive: float) -> None:
        self._provider, self._keep_alive = provider, keep_alive
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._path, self._kind, self._pieces = "", "", list[bytes]()
        self._task: asyncio.Task[None] | None = None
        self._used = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop.call_later(self._keep_alive, self._look)

    def _look(self) -> None:
        """Close the connection if nothing was asked for so long."""
        if self._transport.is_closing():
            return
        left = self._used + self._keep_alive - self._loop.time()
        if self._task is None and left <= 0:
            self._transport.close()
        else:
            self._loop.call_later(max(left, 0.1), self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._path, self._kind, self._pieces = "", "", []

    def on_url(self, url: bytes) -> None:
        self._path += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._kind = value.decode()

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._pieces)
        self._pieces = []
        answer = self._provider.at_once(self._path, self._kind, body)
        if answer is None:
            self._task = self._loop.create_task(self._answer_later(self._path, body))
        else:
            self._answer(answer)

    async def _answer_later(self, path: str, body: bytes) -> None:
        answer = await self._provider.later(path, body)
        self._task = None
        self._answer(answer)

    def _answer(self, body: bytes) -> None:
        self._used = self._loop.time()
        self._transport.writelines([HEAD % len(body), body])
        if not self._parser.should_keep_alive():
            self._transport.close()


async def main(port: int, keep_alive: float) -> None:
    provider, loop = Provider(), asyncio.get_running_loop()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = await loop.create_server(lambda: Connection(provider, keep_alive), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    # Providers' front ends keep connections for a minute and more; with a few seconds rounds would begin with
    # connections that are just being closed, which no proxy can use and no money-safe one asks on again.
    _, port, *seconds = sys.argv
    uvloop.run(main(int(port), float(*seconds or [600])))
