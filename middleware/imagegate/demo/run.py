"""``imagegate demo``: local providers, the gateway, and a set of requests by the official OpenAI SDK."""

from __future__ import annotations

import base64
import io
import sys
import threading
import urllib.request
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import openai
import structlog
from PIL import Image
from starlette.applications import Starlette

from imagegate.contracts.size_syntax import Pixels
from imagegate.demo.pictures import draw_picture
from imagegate.demo.requests import REQUESTS, DemoRequest
from imagegate.demo.servers import gateway, local_providers, write_config
from imagegate.demo.sheet import SheetEntry, contact_sheet
from imagegate.terminal import Working

_LONGEST_VALUE: Final = 64
_LABELS: Final = ("asked", "sent", "changed", "picture")


def run(*, port: int, folder: Path, once: bool) -> int:
    """Run the demo.

    Args:
        port: of the gateway; another where it is taken.
        folder: for pictures, the contact sheet and the configuration.
        once: stop after the requests instead of staying up.

    Returns:
        0, or 1 where anything was not as it should be.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # the demo prints its own output
    folder = folder.absolute()
    config = folder / "imagegate.toml"
    with local_providers() as (providers, ports):
        write_config(config, ports, store=folder / "images")
        with gateway(config, port=port) as bound:
            address = f"http://127.0.0.1:{bound}"
            print(f"Gateway at {address}/v1, in front of {len(ports)} local providers: {', '.join(ports)}.")
            print(f"Its configuration: {config}\n")
            failures, entries = _send_all(address, providers, folder, once=once)
            sheet = folder / "contact-sheet.png"
            sheet.write_bytes(contact_sheet(entries, heading="imagegate demo"))
            good = len(REQUESTS) - failures
            print(f"{good} of {len(REQUESTS)} requests went as they should.")
            print(f"All pictures on one sheet: {sheet}")
            if not once:
                _stay(address)
    return 1 if failures else 0


def _send_all(
    address: str, providers: Mapping[str, Starlette], folder: Path, *, once: bool
) -> tuple[int, list[SheetEntry]]:
    failures = 0
    entries: list[SheetEntry] = []
    # A key is needed by the SDK only: this gateway is open, and each provider gets its own.
    with openai.OpenAI(base_url=f"{address}/v1", api_key="not-needed", max_retries=0) as client:
        for number, request in enumerate(REQUESTS, start=1):
            with urllib.request.urlopen(f"{address}/console/exchanges", timeout=30):  # noqa: S310 - our own
                pass  # as an open page does, so that the console keeps pictures that are no links
            step = _Step(number, request)
            before = {name: app.state.requests_seen for name, app in providers.items()}
            with Working(step.describe):
                step.ask(client)
            step.look_upstream(providers, before)
            step.judge()
            step.save(folder / "pictures", links_last=not once)
            print(step.report(), flush=True)
            failures += bool(step.problems)
            entries += step.entries()
    return failures, entries


class _Step:
    """One request: what was asked, what the provider received, what came back, and what was wrong with it."""

    def __init__(self, number: int, request: DemoRequest) -> None:
        self.number = number
        self.request = request
        self.problems: list[str] = []
        self.provider = ""
        self.sent: list[dict[str, Any]] = []
        self.paid: list[dict[str, Any]] = []
        """What went upstream but for uploads of references, which cost nothing."""
        self.sent_to = ""
        self.changes = ""
        self.links: list[str] = []
        self.pictures: list[bytes] = []
        self.error: dict[str, Any] | None = None

    def ask(self, client: openai.OpenAI) -> None:
        try:
            raw = self._call(client)
        except openai.APIStatusError as error:
            self.error = error.body if isinstance(error.body, dict) else {"message": str(error)}
            self.changes = error.response.headers.get("imagegate-changes", "")
            self.provider = error.response.headers.get("imagegate-upstream", "")
            return
        self.changes = raw.headers.get("imagegate-changes", "")
        self.provider = raw.headers.get("imagegate-upstream", "")
        for image in raw.parse().data or []:
            if image.url:
                self.links.append(image.url)
                with urllib.request.urlopen(image.url, timeout=30) as reply:  # noqa: S310 - our own links
                    self.pictures.append(reply.read())
            else:
                picture = base64.b64decode(image.b64_json or "")
                self.links.append("")
                self.pictures.append(picture)

    def _call(self, client: openai.OpenAI) -> Any:
        method = getattr(client.images.with_raw_response, self.request.operation)
        arguments: dict[str, Any] = {
            name: _files().get(value, value) for name, value in self.request.arguments.items() if name != "extra_body"
        }
        if self.request.prompt:
            arguments["prompt"] = self.request.prompt
        return method(model=self.request.model, extra_body=self.request.arguments.get("extra_body"), **arguments)

    def look_upstream(self, providers: Mapping[str, Starlette], before: Mapping[str, int]) -> None:
        """Show what reached the provider since the step began."""
        for name, app in providers.items():
            new = app.state.requests_seen - before[name]
            for received in app.state.received[len(app.state.received) - new :]:
                if received.method == "POST":
                    form = {part.name: part.filename or part.text for part in received.parts}
                    body = received.json if isinstance(received.json, dict) else form
                    self.sent.append(body)
                    if "upload" not in received.path:
                        self.paid.append(body)
                    self.sent_to = f"POST {received.path}"

    def describe(self) -> str:
        return f"{self.number} of {len(REQUESTS)}: {self.title}"

    @property
    def title(self) -> str:
        return self.request.prompt or "Variations of a picture"

    def judge(self) -> None:
        request = self.request
        if len(self.sent) != request.requests:
            self.problems.append(f"{len(self.sent)} requests upstream instead of {request.requests}")
        if request.path and self.sent_to != f"POST {request.path}":
            self.problems.append(f"{self.sent_to} instead of POST {request.path}")
        for name, value in request.sent.items():
            if any(_member(sent, name) != value for sent in self.paid):
                self.problems.append(f"{name} went upstream as {_member(self.paid[0], name)!r} instead of {value!r}")
        changed = tuple(item.strip().partition(";")[0] for item in _split(self.changes))
        if changed != request.changed:
            self.problems.append(f"changed {changed} instead of {request.changed}")
        if request.refused or request.code:
            got = self.error or {}
            if got.get("code") != request.code or got.get("param") != request.refused:
                self.problems.append(f"answered {got or 'with a picture'} instead of an error")
        elif self.error:
            self.problems.append(f"refused: {self.error.get('message')}")
        elif len(self.pictures) != request.arguments.get("n", 1):
            self.problems.append(f"{len(self.pictures)} pictures")
        for picture in self.pictures:
            size = Pixels(*Image.open(io.BytesIO(picture)).size)
            if request.pixels and size != request.pixels:
                self.problems.append(f"the picture is {size} instead of {Pixels(*request.pixels)}")

    def save(self, folder: Path, *, links_last: bool) -> None:
        """Write every picture to a file, which is what the report links to where nothing else is there afterwards."""
        folder.mkdir(parents=True, exist_ok=True)
        for place, picture in enumerate(self.pictures):
            file = folder / f"{self.number:02}-{place + 1}.png"
            file.write_bytes(picture)
            if not self.links[place]:
                self.links[place] = f"{file.as_uri()} (came as base64)"
            elif not links_last:
                self.links[place] = f"{file.as_uri()} (came as a link)"

    def report(self) -> str:
        asked = _members({**self.request.arguments, **self.request.arguments.get("extra_body", {})})
        sent = _members(self.sent[-1]) if self.sent else "nothing"
        times = f" ({len(self.paid)} times)" if len(self.paid) > 1 else ""
        if uploads := len(self.sent) - len(self.paid):
            times = f" (after {uploads} uploads)"
        answer = " ".join(self.links)
        if self.error:
            answer = f"none: {self.error.get('code')}: {self.error.get('message')}"
        to = f"to {self.provider}: " if self.provider else ""
        values = (
            f"{self.request.model} {asked}".rstrip(),
            f"{to}{self.sent_to} {sent}{times}".strip() if self.sent else f"{to}nothing",
            self.changes or "nothing",
            answer,
        )
        lines = [f"{self.number:2}. {self.title}"]
        lines += [f"    {label:<8} {value}" for label, value in zip(_LABELS, values, strict=True)]
        lines += [f"    WRONG    {problem}" for problem in self.problems]
        return "\n".join(lines) + "\n"

    def entries(self) -> list[SheetEntry]:
        asked = _members({**self.request.arguments, **self.request.arguments.get("extra_body", {})})
        sent = _members(self.sent[-1]) if self.sent else ""
        subtitles = (self.request.model, f"asked: {asked or 'the default'}", f"sent: {sent or 'as asked'}")
        title = f"{self.number}. {self.provider}"
        return [SheetEntry(title, subtitles, picture) for picture in self.pictures]


def _member(fields: Any, path: str) -> Any:
    """Return a member; dots lead into others."""
    for name in path.split("."):
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields


def _members(fields: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in fields.items() if name not in ("model", "prompt", "extra_body")}
    return " ".join(f"{name}={_plain(value)}" for name, value in shown.items())


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_plain(item) for item in value)
    text = _members(value) if isinstance(value, dict) else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


@cache
def _files() -> Mapping[str, tuple[str, bytes, str]]:
    """Return what the demo's edits start from: a picture, and a mask whose upper half is to be changed."""
    picture = draw_picture(
        width=512, height=512, prompt="The source", provider="demo", model="a file", transparent=True
    )
    mask = Image.new("RGBA", (512, 512), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 512, 256))
    encoded = io.BytesIO()
    mask.save(encoded, "PNG")
    return {
        "source": ("source.png", picture, "image/png"),
        "mask": ("mask.png", encoded.getvalue(), "image/png"),
    }


def _split(header: str) -> list[str]:
    """Return the items of the header; a comma inside quotes is part of a value."""
    items: list[str] = []
    quoted = False
    start = 0
    for place, character in enumerate(header):
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            items.append(header[start:place])
            start = place + 1
    return [*items, header[start:]] if header else []


def _stay(address: str) -> None:
    """Wait for Ctrl-C."""
    print(
        f"\nThe gateway stays up. Try it:\n\n"
        f"  curl {address}/v1/images/generations -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "nano-banana-pro", "prompt": "A red bicycle", "size": "1792x1024"}}\'\n\n'
        f"Add -H 'Imagegate-Explain: ?1' to see what would be sent. Models: {address}/v1/models\n\n"
        f"  Console  {address}/console   the outcome of each request, and a playground\n"
        f"  Metrics  {address}/metrics\n\n"
        f"Ctrl-C ends it.",
        flush=True,
    )
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("\nBye.", file=sys.stderr)
