"""Every fault of a provider, in nine forms of request: who was asked, how often, and what the client was told.

    python -m tests.soak.exchanges

Each exchange has a second candidate, which must be asked where the first one made nothing, and never else. Requests
with a key are sent again with it, as SDKs do: nobody is asked again for what may have been made.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
from tests.wire.faults import FAULTS, PNG, TIMEOUT, Fault, Rig, own, rig, writes

GENERATIONS: Final = "/v1/images/generations"
EDITS: Final = "/v1/images/edits"
LARGE: Final = PNG + bytes(1_000_000)


_GZIP: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 9\r\n\r\nno gzip!!"
)
_EVENTS: Final = b'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: x\ndata: {"b64_json": "iVBO'
_CUT: Final = (
    b" Status\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n" + json.dumps(own()).encode()[:-2]
)
ALL: Final[dict[str, Fault]] = {
    **FAULTS,
    "interim-then-reset": Fault(writes(b"HTTP/1.1 102 Processing\r\n\r\n", end="reset"), "uncertain", 502, False),
    "interim-then-close": Fault(writes(b"HTTP/1.1 102 Processing\r\n\r\n", end="close"), "uncertain", 502, False),
    "two-lengths": Fault(
        writes(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 7\r\n\r\n{}", end="close"),
        "uncertain",
        502,
        False,
    ),
    "broken-gzip": Fault(writes(_GZIP, end="close"), "uncertain", 502, False),
    "cut-events": Fault(writes(_EVENTS, end="reset"), "uncertain", 502, False),
    "500-cut": Fault(writes(b"HTTP/1.1 500" + _CUT, end="reset"), "uncertain", 502, False),
    "429-cut": Fault(writes(b"HTTP/1.1 429" + _CUT, end="close"), "uncertain", 502, False),
}
RELAYED: Final = frozenset({"wrong-bytes"})
"""What nobody looks at where base64 is passed on as it is."""


class Told(NamedTuple):
    """What a client knows in the end."""

    status: int
    outcome: str
    """Empty: it has a picture."""
    may_retry: bool


def _told(reply: httpx.Response) -> Told:
    if reply.status_code == 200 and "event-stream" in reply.headers["content-type"]:
        return _told_by(_last_event(reply.text), reply)
    return _told_by(reply.json(), reply)


def _told_by(document: dict[str, Any], reply: httpx.Response) -> Told:
    error = document.get("error")
    if error is None:
        assert "b64_json" in str(document) or "url" in str(document), document
        return Told(200, "", may_retry=True)
    extension = error.get("imagegate", {})
    may_retry = reply.headers.get("x-should-retry") != "false"
    return Told(reply.status_code, extension.get("outcome", "uncertain" if not may_retry else ""), may_retry)


def _last_event(text: str) -> dict[str, Any]:
    data = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    found: dict[str, Any] = json.loads([each for each in data if each != "[DONE]"][-1])
    return found


def _json(running: Rig, model: str, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    body = {"model": model, "prompt": "A kite", **more}
    return httpx.post(running.url + GENERATIONS, json=body, headers=headers, timeout=TIMEOUT)


def _form(
    running: Rig, model: str, *, picture: bytes = PNG, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    files = {"image": ("a.png", picture, "image/png")}
    fields = {"model": model, "prompt": "A kite"}
    return httpx.post(running.url + EDITS, data=fields, files=files, headers=headers, timeout=TIMEOUT)


def _task(running: Rig, model: str) -> httpx.Response:
    """The end of a task, as an answer to its request."""
    reply = _json(running, model, **{"async": True})
    if reply.status_code != 202:
        return reply
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        found = httpx.get(running.url + reply.headers["location"], timeout=TIMEOUT)
        if found.json()["status"] in ("completed", "failed"):
            return found
        time.sleep(0.02)
    raise AssertionError("the task did not end")


FORMS: Final[dict[str, Callable[[Rig, str, str], httpx.Response]]] = {
    "base64": lambda running, model, key: _json(running, model, response_format="b64_json"),
    "link": lambda running, model, key: _json(running, model, response_format="url"),
    "stream": lambda running, model, key: _json(running, model, stream=True),
    "keyed": lambda running, model, key: _json(running, model, headers={"idempotency-key": key}),
    "keyed stream": lambda running, model, key: _json(running, model, stream=True, headers={"idempotency-key": key}),
    "form": lambda running, model, key: _form(running, model),
    "large form": lambda running, model, key: _form(running, model, picture=LARGE),
    "keyed form": lambda running, model, key: _form(running, model, headers={"idempotency-key": key}),
    "task": lambda running, model, key: _task(running, model),
}


def check(running: Rig, name: str, form: str) -> list[str]:
    """Make one exchange; return what is wrong with it."""
    fault, key = ALL[name], f"{name}-{form}"
    wrong: list[str] = []

    def ask() -> tuple[Counter[str], Told]:
        before = running.upstream.posts.copy()
        told = _told(FORMS[form](running, f"{name}.two", key))
        return running.upstream.posts - before, told

    posts, told = ask()
    wrong += _compared(name, fault, posts, told)
    if form.startswith("keyed"):
        again, retold = ask()
        if told.status == 200 or told.outcome == "uncertain":
            if again:
                wrong.append(f"asked again with the same key: {dict(again)}")
            if (retold.outcome, retold.may_retry) != (told.outcome, told.may_retry):
                wrong.append(f"told {retold}, and {told} before")
    return [f"{name} / {form}: {each}" for each in wrong]


def _compared(name: str, fault: Fault, posts: Counter[str], told: Told) -> list[str]:
    wrong: list[str] = []
    if posts[name] > max(fault.posts, 0):
        wrong.append(f"{posts[name]} POSTs in place of {fault.posts}")
    if posts["good"] != int(fault.elsewhere):
        wrong.append(f"{posts['good']} POSTs to the second candidate")
    if fault.elsewhere and told.outcome:
        wrong.append(f"no picture of the second candidate: {told}")
    is_relayed = name in RELAYED and told.status == 200
    if not fault.elsewhere and told.outcome != fault.outcome and told.status != fault.status and not is_relayed:
        wrong.append(f"told {told}, not {fault.outcome}")
    if fault.outcome == "uncertain" and told.status != 200 and told.may_retry:
        wrong.append("an SDK would send it again")
    return wrong


def main() -> int:
    """Run all; return the exit status."""
    began, wrong, count = time.monotonic(), list[str](), 0
    behaviours = {name: fault.behaviour for name, fault in ALL.items()}
    with tempfile.TemporaryDirectory() as folder, rig(behaviours, Path(folder)) as running:
        for form in FORMS:
            for name in ALL:
                try:
                    wrong += check(running, name, form)
                except Exception as error:
                    wrong.append(f"{name} / {form}: {error!r}")
                count += 1
        posts = sum(running.upstream.posts.values())
    for line in wrong:
        print(line)
    seconds = time.monotonic() - began
    print(f"{count} exchanges ({len(ALL)} faults x {len(FORMS)} forms), {posts} POSTs, {seconds:.0f} s")
    print(f"{len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
