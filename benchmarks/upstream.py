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
import sys
from typing import Any

from pictures import large, small
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser
from starlette.types import Receive, Scope, Send

CHUNK = 256 * 1024


LINKED = b'{"created":1,"data":[{"url":"https://images.invalid/1.png"}]}'


def reply(pictures: list[bytes]) -> bytes:
    data = [{"b64_json": base64.b64encode(each).decode()} for each in pictures]
    return json.dumps({"created": 1, "data": data}).encode()


class Provider:
    def __init__(self) -> None:
        self._small, self._large = reply([small()]), reply([large(seed) for seed in range(4)])
        self._released = asyncio.Event()
        self._count = 0
        self._form = (Headers(), b"")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        pieces: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(pieces)
        match scope["path"]:
            case "/received":
                answer = json.dumps(await self._received()).encode()
            case "/release":
                self._released.set()
                self._released = asyncio.Event()
                answer = b"{}"
            case "/v1/images/edits":
                self._count += 1
                self._form = (Headers(scope=scope), body)
                answer = self._small
            case _:
                self._count += 1
                answer = await self._generated(json.loads(body)["prompt"])
        await _answer(send, answer)

    async def _generated(self, prompt: str) -> bytes:
        if wait := re.search(r"wait=([0-9.]+)", prompt):
            await asyncio.sleep(float(wait[1]))
        if "hold" in prompt:
            await self._released.wait()
        if "link" in prompt:
            return LINKED
        return self._large if "large" in prompt else self._small

    async def _received(self) -> dict[str, Any]:
        headers, body = self._form
        files: list[str] = []
        if body:

            async def stream() -> Any:
                yield body

            form = await MultiPartParser(headers, stream()).parse()
            for _, value in form.multi_items():
                if isinstance(value, UploadFile):
                    files.append(hashlib.sha256(await value.read()).hexdigest())
            await form.close()
        count, self._count, self._form = self._count, 0, (Headers(), b"")
        return {"requests": count, "files": files}


async def _answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(body), CHUNK):
        piece = body[start : start + CHUNK]
        await send({"type": "http.response.body", "body": piece, "more_body": start + CHUNK < len(body)})


if __name__ == "__main__":
    import uvicorn

    # Providers' front ends keep connections for a minute and more; with uvicorn's five seconds rounds would begin with
    # connections that are just being closed, which no proxy can use and no money-safe one asks on again.
    _, port, *keep_alive = sys.argv
    uvicorn.run(
        Provider(),
        port=int(port),
        access_log=False,
        log_level="error",
        backlog=4096,
        timeout_keep_alive=int(*keep_alive or [600]),
    )
