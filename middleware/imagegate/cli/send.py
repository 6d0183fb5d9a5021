"""``imagegate send``: pictures made and saved, without a server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pybase64

from imagegate.cli.explain import as_operator, generate
from imagegate.config.schema import Config
from imagegate.gateway import ImageGateway
from imagegate.protocol.image_format import sniff
from imagegate.telemetry.progress import Progress
from imagegate.telemetry.record import ExchangeRecord
from imagegate.terminal import Working

_LONGEST_NAME = 48


class Made(NamedTuple):
    """What became of a request."""

    pictures: Sequence[bytes]
    error: str
    """For people; empty: there was none."""
    changes: str
    """As in the header `Imagegate-Changes`."""


class _Watch:
    """A hook that knows how far the one exchange is."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._progress: Progress | None = None

    def exchange_started(self, progress: Progress) -> None:
        self._progress = progress

    def exchange_ended(self, record: ExchangeRecord) -> None: ...

    def describe(self) -> str:
        progress = self._progress
        if progress is None or not progress.upstream:
            return self._model
        polled = f", asked {progress.polls} times whether it is ready" if progress.polls else ""
        return f"{progress.upstream_model or self._model} at {progress.upstream}{polled}"


async def make(config: Config, fields: Mapping[str, Any]) -> Made:
    """Send a request for generations, and show on the terminal how far it is."""
    watch = _Watch(str(fields.get("model", "")))
    body = msgspec.json.encode({**fields, "response_format": "b64_json"})
    async with ImageGateway(config=as_operator(config), hooks=[watch]) as gateway:
        with Working(watch.describe):
            answered = await generate(gateway, body)
    document = msgspec.json.decode(answered.body)
    pictures: tuple[bytes, ...] = ()
    error = ""
    if answered.status == 200:
        pictures = tuple(pybase64.b64decode(item["b64_json"]) for item in document["data"])
    else:
        error = f"{document['error']['code'] or answered.status}: {document['error']['message']}"
    return Made(pictures, error, answered.headers.get("imagegate-changes", ""))


def save(pictures: Sequence[bytes], folder: Path, prompt: str) -> list[Path]:
    """Write pictures under names that are not taken. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_save(folder, file_stem(prompt), picture) for picture in pictures]


def file_stem(prompt: str) -> str:
    """Return a prompt as a file's name, without what a shell or a file system minds."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")
    return words[:_LONGEST_NAME].strip("-") or "picture"


def _save(folder: Path, stem: str, picture: bytes) -> Path:
    kind = sniff(picture[: 64 * 1024])
    extension = kind.extension if kind else "bin"
    number = 1
    while True:
        path = folder / (f"{stem}.{extension}" if number == 1 else f"{stem}-{number}.{extension}")
        try:
            with path.open("xb") as file:
                file.write(picture)
        except FileExistsError:
            number += 1
            continue
        return path
