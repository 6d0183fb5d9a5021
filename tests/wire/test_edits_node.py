"""The official Node SDK and the AI SDK against the gateway: the provider sees the files that the program sent."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Running
from tests.wire.edit_support import (
    Seen,
    Tap,
    large_picture,
    mask_for,
    node_packages,
    picture,
    posted_to,
    seen,
    sha,
    taps,
)

pytestmark = pytest.mark.node

SCRIPT = Path(__file__).parent / "node" / "edit.mjs"
ONE, LARGE = picture(1), large_picture(5_000_000)
THREE = {"c.png": picture(3), "a.jpg": picture(4, mode="RGB", form="JPEG"), "b.webp": picture(5, form="WEBP")}

FILES = [
    "tokmodel/openai/gpt-image-2",
    "tokenbay/gpt-image-2",
    "tokenlab/gpt-image-2",
    "toapis/gpt-image-1.5-official",
    "onetoken/gpt-image-2",
]
"""Models that take masks, and get the files under their names."""
LINKS = ["tokenlab/nano-banana-pro", "tokenlab/grok-imagine-image"]
"""Models that take links, and no masks."""
SQUARE = "tokmodel/openai/dall-e-2"
"""Takes one file."""


class Program:
    """The script, which makes one call for each line that it is given."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                ["node", str(folder / SCRIPT.name)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __call__(self, *call: str) -> dict[str, Any]:
        """Make a call; return what came back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self._log.read_text()[-2000:]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        self._process.communicate(timeout=20)


@pytest.fixture(scope="module")
def program(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One Node process for all tests: starting it takes longest."""
    folder = node_packages(pytestconfig)
    shutil.copy(SCRIPT, folder)  # where it finds the SDKs
    program = Program(folder, tmp_path_factory.mktemp("node") / "log")
    yield program
    program.end()


@pytest.fixture
def tapped(running: Running) -> Iterator[dict[str, Tap]]:
    """What each provider receives during a test."""
    with taps(running.providers) as found:
        yield found


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def node(program: Program, running: Running, tmp_path: Path) -> Run:
    """Makes one call as a program on Node would."""

    def run(operation: str, model: str, files: dict[str, bytes], mask: bytes = b"") -> dict[str, Any]:
        for name, content in {**files, "mask.png": mask or mask_for()}.items():
            (tmp_path / name).write_bytes(content)
        return program(operation, f"{running.url}/v1", model, *(str(tmp_path / name) for name in ("mask.png", *files)))

    return run


def pictures_of(answer: dict[str, Any], count: int = 1) -> list[str]:
    """SHA-256 of the pictures that the program got, which must be that many whole PNGs."""
    assert "error" not in answer, answer["error"]
    assert [True] * count == [image["isPNG"] and image["size"] > 100 for image in answer["pictures"]]
    return [image["sha256"] for image in answer["pictures"]]


@pytest.mark.parametrize("model", [*FILES, *LINKS, "tokmodel/openai/dall-e-3"])
def test_generate(node: Run, model: str) -> None:
    """Two pictures are made, from links or from base64."""
    pictures_of(node("generate", model, {}), 2)


@pytest.mark.parametrize("operation", ["toFile", "list"])
@pytest.mark.parametrize("model", [*FILES, *LINKS, SQUARE])
def test_one_file(node: Run, tapped: dict[str, Tap], model: str, operation: str) -> None:
    """One file, alone and as a list of one."""
    pictures_of(node(operation, model, {"one.png": ONE}))
    found = seen(tapped[model.partition("/")[0]].posts)
    assert Seen([sha(ONE)], None, [] if model in LINKS else ["one.png"]) == found


@pytest.mark.parametrize("model", [*FILES, *LINKS])
def test_three_files(node: Run, tapped: dict[str, Tap], model: str) -> None:
    """Three files of three formats arrive in the program's order."""
    pictures_of(node("several", model, THREE))
    expected = Seen([sha(content) for content in THREE.values()], None, [] if model in LINKS else list(THREE))
    assert expected == seen(tapped[model.partition("/")[0]].posts)


@pytest.mark.parametrize("model", FILES)
def test_three_files_and_a_mask(node: Run, tapped: dict[str, Tap], model: str) -> None:
    """The mask, which this SDK writes before the images, arrives as it is."""
    pictures_of(node("mask", model, THREE))
    found = seen(tapped[model.partition("/")[0]].posts)
    assert ([sha(content) for content in THREE.values()], sha(mask_for())) == (found.images, found.mask)


@pytest.mark.parametrize("model", LINKS)
def test_a_mask_that_the_model_does_not_take(node: Run, running: Running, model: str) -> None:
    """The SDK gets a BadRequestError that names the mask, and nothing is sent."""
    with posted_to(running) as posts:
        error = node("mask", model, THREE)["error"]
    assert (error["name"], error["status"], error["param"]) == ("BadRequestError", 400, "mask")
    assert posts == {}


@pytest.mark.parametrize("content", [ONE, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("model", [*FILES, *LINKS])
def test_a_read_stream(node: Run, tapped: dict[str, Tap], model: str, content: bytes) -> None:
    """A file that is read while it is sent, chunked and without a type, arrives whole and as what it is."""
    pictures_of(node("stream", model, {"one.png": content}))
    posts = tapped[model.partition("/")[0]].posts
    assert Seen([sha(content)], None, [] if model in LINKS else ["one.png"]) == seen(posts)
    assert {part.content_type for post in posts for part in post.files} <= {"image/png"}


@pytest.mark.parametrize("model", [*FILES, *LINKS])
def test_three_read_streams(node: Run, tapped: dict[str, Tap], model: str) -> None:
    """Several streams in a row, large enough to go upstream while they come in."""
    files = {f"{name}.png": large_picture(1_200_000, seed) for seed, name in enumerate("cab")}
    pictures_of(node("streams", model, files))
    expected = Seen([sha(content) for content in files.values()], None, [] if model in LINKS else list(files))
    assert expected == seen(tapped[model.partition("/")[0]].posts)


@pytest.mark.parametrize("content", [ONE, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("model", FILES)
def test_a_read_stream_and_a_mask(node: Run, tapped: dict[str, Tap], model: str, content: bytes) -> None:
    """A stream with a mask of its own."""
    pictures_of(node("maskedStream", model, {"one.png": content}))
    found = seen(tapped[model.partition("/")[0]].posts)
    assert ([sha(content)], sha(mask_for())) == (found.images, found.mask)


@pytest.mark.parametrize("operation", ["mask", "maskedStream"])
@pytest.mark.parametrize("model", FILES)
def test_a_mask_of_another_size(node: Run, running: Running, model: str, operation: str) -> None:
    """A mask that does not fit the first image is refused by name, also where it comes first and the image is large."""
    with posted_to(running) as posts:
        error = node(operation, model, {"one.png": LARGE}, mask_for(128))["error"]
    assert (error["name"], error["status"], error["param"]) == ("BadRequestError", 400, "mask")
    assert posts == {}


@pytest.mark.parametrize("model", [*FILES, *LINKS, SQUARE])
def test_variation(node: Run, tapped: dict[str, Tap], model: str) -> None:
    """Variations, by the provider or as an edit."""
    pictures_of(node("variation", model, {"one.png": ONE}))
    assert [sha(ONE)] == seen(tapped[model.partition("/")[0]].posts).images


@pytest.mark.parametrize("model", ["tokenbay/gpt-image-2", "onetoken/gpt-image-2", "tokenlab/flux-pro"])
def test_ai_sdk(node: Run, model: str) -> None:
    """The AI SDK, which needs base64, gets the bytes of its picture from every kind of provider."""
    pictures_of(node("ai", model, {}))


@pytest.mark.parametrize("model", ["tokenbay/gpt-image-2", "onetoken/gpt-image-2", "toapis/gpt-image-1.5-official"])
def test_ai_sdk_edits(node: Run, tapped: dict[str, Tap], model: str) -> None:
    """The AI SDK's edits, whose files have no names of their own, arrive in order."""
    pictures_of(node("aiEdit", model, THREE))
    assert [sha(content) for content in THREE.values()] == seen(tapped[model.partition("/")[0]].posts).images
