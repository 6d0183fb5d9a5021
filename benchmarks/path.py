"""Count the modules and calls of ours that one small generation goes through.

A provider in a process of its own answers with a link, which the client asked for and gets as it is. It is spoken to as
TokenLab, which takes `response_format`, so that nothing of the request has to change; GPT Image models of OpenAI itself
never answer with links. The gateway runs under uvicorn in this thread, its client in another. `sys.setprofile` watches
this thread while one warm request is answered, and counts the functions whose code lies in the gateway's packages.

    python benchmarks/path.py [--list] [--alone]

``--list`` prints the calls in order. The gateway is mounted in a Starlette application, with keys, log lines and
metrics; ``--alone`` counts what `imagegate.standalone` adds (console, metrics page), too.

Of a few such requests the one with the fewest calls is shown: work that is put off and done for many requests at once,
such as counting, falls into one of them by chance.

A call is the first entry into a function. CPython reports each resumption of a coroutine or a generator as a call,
too; those are shown beside and not compared with the goal. Comprehensions and generator expressions count to the
function that holds them: whether they have a frame of their own depends on the version of Python.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import importlib.util
import inspect
import json
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import apps
import servers
import uvicorn
from workloads import GENERATIONS, KEY, MODEL

PACKAGES: Final = ("imagegate", "imagegate_adapters")
MODULES_AT_MOST: Final = 30
CALLS_AT_MOST: Final = 200
WARM: Final = 50
"""Requests before the one that is counted: what is imported or made at the first one is no part of the way."""
TRACED: Final = 5
"""Requests that are counted."""
_RESUMABLE: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_EXPRESSIONS: Final = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}


@dataclass
class Trace:
    """The calls of one request, in order.

    Args:
        folders: of each package that counts, by name.
    """

    folders: dict[str, str]
    calls: list[CodeType] = field(default_factory=list)
    resumptions: Counter[str] = field(default_factory=Counter)
    _entered: set[FrameType] = field(default_factory=set)
    """Frames that may be entered again. They are kept, so that none gets the identity of another that has ended."""

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Take an event of `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or code.co_name in _EXPRESSIONS or (module := self.module(code)) is None:
            return
        if code.co_flags & _RESUMABLE:
            if frame in self._entered:
                self.resumptions[module] += 1
                return
            self._entered.add(frame)
        self.calls.append(code)

    def module(self, code: CodeType) -> str | None:
        """Return the name of the module that has the code; None: it is not of our packages."""
        for package, folder in self.folders.items():
            if code.co_filename.startswith(folder):
                inner = code.co_filename[len(folder) :].removesuffix(".py").removesuffix("__init__").strip(os.sep)
                return ".".join([package, *filter(None, inner.split(os.sep))])
        return None

    @property
    def modules(self) -> Counter[str]:
        """Modules with the number of calls in each."""
        return Counter(name for code in self.calls if (name := self.module(code)))


def _folders() -> dict[str, str]:
    found = {name: importlib.util.find_spec(name) for name in PACKAGES}
    return {
        name: str(Path(spec.origin).parent) + os.sep for name, spec in found.items() if spec and spec.origin is not None
    }


def _ask(port: int, times: int) -> None:
    """Send generations on one connection, one after the other.

    Raises:
        SystemExit: an answer was not the provider's link.
    """
    body = json.dumps({"model": MODEL, "prompt": "link", "size": "1024x1024", "response_format": "url"})
    said = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for _ in range(times):
        line.request("POST", GENERATIONS, body, said)
        reply = line.getresponse()
        text = reply.read()
        if reply.status != 200 or b"https://images.invalid/1.png" not in text:
            raise SystemExit(f"path: {reply.status} {text[:300]!r}")
    line.close()


async def traces(app: Any) -> list[Trace]:
    """Run the application and count what each of a few warm requests calls."""
    loop, port, seen = asyncio.get_running_loop(), servers.free_port(), [Trace(_folders()) for _ in range(TRACED)]
    server = uvicorn.Server(uvicorn.Config(app, port=port, access_log=False, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        if serving.done():
            raise SystemExit("path: the gateway did not start")
        await asyncio.sleep(0.01)
    try:
        await asyncio.to_thread(_ask, port, WARM)
        for each in seen:
            loop.call_soon(sys.setprofile, each)
            try:
                await asyncio.to_thread(_ask, port, 1)
            finally:
                sys.setprofile(None)
    finally:
        server.should_exit = True
        await serving
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print the calls in order")
    parser.add_argument("--alone", action="store_true", help="count what a process of its own adds, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagegate-path-") as name, servers.upstream(Path(name), 600) as provider:
        apps.use_config(servers.gateway_config(Path(name), provider.url, adapter="tokenlab"))
        # Log lines are written as they are elsewhere, and nobody reads them here.
        errors, sys.stderr = sys.stderr, open(os.devnull, "w")  # noqa: SIM115
        try:
            found = asyncio.run(traces(apps.alone() if options.alone else apps.mounted()))
        finally:
            sys.stderr = errors
    seen = min(found, key=lambda each: len(each.calls))
    if options.list:
        for code in seen.calls:
            print(f"{seen.module(code)}:{code.co_firstlineno} {getattr(code, 'co_qualname', code.co_name)}")
        print()
    for module, calls in seen.modules.most_common():
        print(f"{calls:5} calls {seen.resumptions[module]:5} resumptions  {module}")
    print(f"{len(seen.modules):5} modules of ours; goal: at most {MODULES_AT_MOST}")
    print(f"{len(seen.calls):5} calls; goal: at most {CALLS_AT_MOST} (and {seen.resumptions.total()} resumptions)")


if __name__ == "__main__":
    main()
