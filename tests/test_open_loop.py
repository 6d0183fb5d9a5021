"""The generator of fixed rates counts what a server keeps waiting, and says what was refused or never answered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.server

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

SERVER = """
import asyncio, json, sys
import rate

async def main(kind):
    count = 0

    async def serve(reader, writer):
        nonlocal count
        try:
            while True:
                head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode().lower()
                length = head.partition("content-length: ")[2].partition("\\r\\n")[0]
                await reader.readexactly(int(length))
                at, count = count, count + 1
                if kind == "stalls" and at == 20:
                    # Nobody is answered meanwhile: one process at work on something else.
                    import time; time.sleep(0.3)
                if kind == "hangs up" and at == 20:
                    return
                if kind == "is silent" and at == 20:
                    await asyncio.sleep(60)
                if kind == "chunks":
                    writer.write(b"HTTP/1.1 200 OK\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n2\\r\\nab\\r\\n")
                    await asyncio.sleep(0.001)
                    writer.write(b"0\\r\\n\\r\\n")
                    continue
                status = b"503 Busy" if kind == "refuses" and at < 10 else b"200 OK"
                writer.write(b"HTTP/1.1 " + status + b"\\r\\nContent-Length: 3\\r\\n\\r\\na")
                await asyncio.sleep(0.001)
                writer.write(b"bc")
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    rate.TIMEOUT = 0.5
    offer = rate.Offer(url, url, 200)
    await offer.open(4)
    seen = await offer.run(0.5)
    seen["bodies"] = [body.decode() for body in offer.bodies]
    print(json.dumps(seen), flush=True)
    import os; os._exit(0)

asyncio.run(main(sys.argv[1]))
"""


def offered(kind: str) -> dict[str, Any]:
    """What the generator sees of a server of this kind, at 200 requests a second for half a second."""
    done = subprocess.run(
        [sys.executable, "-c", SERVER, kind], cwd=BENCHMARKS, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["asked"] == seen["sent"] == 100
    return seen


def test_a_stall_counts_for_all_that_it_keeps_waiting() -> None:
    """A server that answers nobody for 0.3 s keeps 60 requests waiting: a closed loop would have seen four."""
    latencies = offered("stalls")["latencies"]
    assert len(latencies) == 100 and max(latencies) >= 0.3
    assert sum(each > 0.05 for each in latencies) >= 40


def test_answers_are_read_whole() -> None:
    """In pieces and in chunks; bodies of known length are kept."""
    plain, chunked = offered("answers"), offered("chunks")
    assert len(plain["latencies"]) == len(chunked["latencies"]) == 100
    assert plain["errors"] == plain["unanswered"] == chunked["errors"] == chunked["unanswered"] == 0
    assert plain["bodies"] == ["abc"]


def test_what_is_refused_or_hung_up_on_is_an_error() -> None:
    """It has no latency."""
    refused, hung = offered("refuses"), offered("hangs up")
    assert (refused["errors"], len(refused["latencies"])) == (10, 90)
    assert (hung["errors"], len(hung["latencies"])) == (1, 99)


def test_what_is_never_answered_counts_with_its_wait() -> None:
    """Leaving it out would flatter who does not answer."""
    seen = offered("is silent")
    assert seen["unanswered"] == 1 and len(seen["latencies"]) == 100
    assert seen["latencies"][-1] >= 0.5
