"""W6: what a host application's own route pays for a gateway in front of it, in CPU microseconds.

A Starlette application with one route is called as a server would call it, with and without the gateway. Short rounds
alternate, and the least is taken: what other programs add by emptying caches is no cost of ours.

    python benchmarks/mount.py [--requests N] [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("at home")


async def measure(requests: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return CPU microseconds per request of each round, without and with."""
    from imagegate import ImageGateway

    bare = Starlette(routes=[Route("/", home)])
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "imagegate.toml"
        config.write_text('[[upstreams]]\nname = "openai"\napi_key = "key"\n[delivery]\nstore = "memory://"\n')
        gateway = ImageGateway(bare, config=config)
    answers: set[bytes] = set()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            answers.add(message["body"])

    async def run(app: ASGIApp) -> float:
        started = time.process_time_ns()
        for _ in range(requests):
            # fmt: off
            scope = {
                "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
                "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "", "headers": [(b"host", b"h")],
                "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "state": {},
            }
            # fmt: on
            await app(scope, receive, send)
        return (time.process_time_ns() - started) / requests / 1000

    without: list[float] = []
    with_it: list[float] = []
    for _ in range(rounds):
        without.append(await run(bare))
        with_it.append(await run(gateway))
    if answers != {b"at home"}:
        raise SystemExit(f"W6: other answers than the application's: {answers}")
    await gateway.aclose()
    return without, with_it


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    without, with_it = asyncio.run(measure(options.requests, options.rounds))
    cost, median = min(with_it) - min(without), statistics.median(with_it) - statistics.median(without)
    print(json.dumps({"without": min(without), "with": min(with_it), "cost": cost, "median": median}))


if __name__ == "__main__":
    main()
