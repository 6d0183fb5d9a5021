"""What is asked, and what a right answer to it is."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from pictures import large, small

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
KEY = "sk-benchmark"  # LiteLLM proxy takes only keys that begin so
MODEL = "gpt-image-2"


class WrongAnswer(Exception):
    """A figure of a proxy that answers wrongly is worth nothing."""


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    path: str
    body: Callable[[], tuple[bytes, str]]
    """The request's bytes and their content type."""
    pictures: Callable[[], list[bytes]]
    """What an answer holds."""
    files: Callable[[], list[bytes]] = list
    """What the provider is to get."""
    links: bool = False
    """Pictures come as links."""
    task: bool = False
    """Requests make tasks, and what is measured is asking for them."""
    crowd: bool = False
    """All come at once: their connections, too, are made when the clock runs, and each asks once."""

    def found(self, answer: bytes) -> list[str]:
        """Return the links in an answer, or hashes of its pictures.

        Raises:
            WrongAnswer: it is none.
        """
        try:
            data = json.loads(answer)["data"]
            if self.links:
                return [each["url"] for each in data]
            return [digest(base64.b64decode(each["b64_json"], validate=True)) for each in data]
        except (ValueError, KeyError, TypeError) as error:
            raise WrongAnswer(f"{self.name}: {error!r} in {answer[:300]!r}") from error

    def check(self, hashes: list[str]) -> None:
        expected = [digest(each) for each in self.pictures()]
        if hashes != expected:
            raise WrongAnswer(f"{self.name}: {len(hashes)} pictures that are not the {len(expected)} of the provider")

    def check_files(self, hashes: list[str]) -> None:
        if hashes != [digest(each) for each in self.files()]:
            raise WrongAnswer(f"{self.name}: the provider got other files, or in another order: {len(hashes)}")


def headers(upstream: str) -> dict[str, str]:
    """Return the headers of every request. The last two are for Portkey's gateway; others do not know them."""
    return {
        "authorization": f"Bearer {KEY}",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{upstream}/v1",
    }


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _generation(prompt: str, **members: object) -> Callable[[], tuple[bytes, str]]:
    body = json.dumps({"model": MODEL, "prompt": prompt, "size": "1024x1024", **members}).encode()
    return lambda: (body, "application/json")


def _edit() -> tuple[bytes, str]:
    boundary = b"benchmark-5f0c1d"
    parts = [b'name="model"\r\n\r\n' + MODEL.encode(), b'name="prompt"\r\n\r\na cat']
    parts += [
        b'name="image[]"; filename="%d.png"\r\nContent-Type: image/png\r\n\r\n' % at + data
        for at, data in enumerate(_references())
    ]
    start = b"--%s\r\nContent-Disposition: form-data; " % boundary
    body = b"".join(start + part + b"\r\n" for part in parts) + b"--%s--\r\n" % boundary
    return body, f"multipart/form-data; boundary={boundary.decode()}"


def _references() -> list[bytes]:
    return [large(10 + at) for at in range(3)]


def _small() -> list[bytes]:
    return [small()]


def _large() -> list[bytes]:
    return [large(at) for at in range(4)]


# fmt: off
WORKLOADS = {each.name: each for each in (
    Workload("W1", "generation of 1 kB", GENERATIONS, _generation("a cat"), _small),
    Workload("W2", "4 x 4 MiB base64 as base64", GENERATIONS, _generation("large", n=4), _large),
    Workload("W2url", "4 x 4 MiB base64 as links", GENERATIONS,
             _generation("large", n=4, response_format="url"), _large, links=True),
    Workload("W3", "edit with 3 x 4 MiB", EDITS, _edit, _small, files=_references),
    Workload("W4", "at once, provider takes 2 s", GENERATIONS, _generation("wait=2"), _small, crowd=True),
    Workload("W5", "asking for tasks", GENERATIONS, _generation("hold", **{"async": True}), _small,
             links=True, task=True),
)}
# fmt: on
