"""The examples of an edit with a mask, in three languages, run as a person would run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from tests.conftest import Running
from tests.wire.edit_support import Seen, Tap, mask_for, node_packages, picture, posted_to, seen, sha, taps

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PROMPT = 'A "cat" on the sofa; @home'
MODELS = ["tokenbay/gpt-image-2", "toapis/gpt-image-1.5-official", "tokmodel/openai/dall-e-2"]


@pytest.fixture
def tapped(running: Running) -> Iterator[dict[str, Tap]]:
    """What each provider receives during a test."""
    with taps(running.providers) as found:
        yield found


def python() -> list[str]:
    return [sys.executable, str(EXAMPLES / "edit_with_mask.py")]


def shell() -> list[str]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return ["bash", str(EXAMPLES / "edit_with_mask.sh")]


@pytest.fixture(scope="session")
def node(pytestconfig: pytest.Config) -> list[str]:
    """The example beside the SDK that it needs."""
    folder = node_packages(pytestconfig)
    shutil.copy(EXAMPLES / "edit_with_mask.mjs", folder)
    return ["node", str(folder / "edit_with_mask.mjs")]


Run = Callable[[Sequence[str], str], subprocess.CompletedProcess[str]]


@pytest.fixture
def run(running: Running, tmp_path: Path) -> Run:
    """Runs a command on two files, with gateway and model in its environment."""

    def run(command: Sequence[str], model: str, *more: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "room.png").write_bytes(picture(1))
        (tmp_path / "mask.png").write_bytes(mask_for())
        environment = {**os.environ, "IMAGEGATE_URL": running.url, "IMAGEGATE_MODEL": model}
        arguments = [*command, "room.png", "mask.png", PROMPT, *more]
        return subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return run


def makes_an_edit(tapped: dict[str, Tap], model: str, done: subprocess.CompletedProcess[str], link: str) -> None:
    """The provider has both files and the prompt, and the link that was printed leads to a picture."""
    assert done.stderr == ""
    posts = tapped[model.partition("/")[0]].posts
    found = seen(posts)
    assert Seen([sha(picture(1))], sha(mask_for()), found.names) == found
    assert found.names[:1] == ["room.png"]
    assert posts[-1].fields["prompt"] == PROMPT
    reply = httpx.get(link)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    assert reply.content.startswith(b"\x89PNG")


@pytest.mark.parametrize("model", MODELS)
def test_python(run: Run, tapped: dict[str, Tap], model: str) -> None:
    """The Python example prints the link of the edited picture."""
    done = run(python(), model)
    assert done.returncode == 0, done.stderr
    makes_an_edit(tapped, model, done, done.stdout.strip())


@pytest.mark.node
@pytest.mark.parametrize("model", MODELS)
def test_node(run: Run, tapped: dict[str, Tap], node: list[str], model: str) -> None:
    """The Node example prints the link of the edited picture."""
    done = run(node, model)
    assert done.returncode == 0, done.stderr
    makes_an_edit(tapped, model, done, done.stdout.strip())


@pytest.mark.parametrize("model", MODELS)
def test_curl(run: Run, tapped: dict[str, Tap], model: str) -> None:
    """The curl example prints the reply with the link of the edited picture."""
    done = run(shell(), model)
    assert done.returncode == 0, done.stderr
    makes_an_edit(tapped, model, done, json.loads(done.stdout)["data"][0]["url"])


def test_curl_explains(run: Callable[..., subprocess.CompletedProcess[str]], running: Running) -> None:
    """More arguments go to curl, so that one can look first."""
    with posted_to(running) as posts:
        done = run(shell(), "tokenbay/gpt-image-2", "-H", "Imagegate-Explain: ?1")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)["body"]
    assert {"name": "prompt", "value": PROMPT} in shown
    assert [sha(picture(1)), sha(mask_for())] == [part["sha256"] for part in shown if "sha256" in part]
    assert posts == {}


def test_a_model_without_masks_says_so(run: Run) -> None:
    """Where the mask would be lost the examples fail with the gateway's own words."""
    model = "tokenlab/nano-banana-pro"
    by_curl, by_python = run(shell(), model), run(python(), model)
    assert by_curl.returncode != 0
    assert by_python.returncode != 0
    assert json.loads(by_curl.stdout)["error"]["param"] == "mask"
    assert "mask" in by_python.stderr


def test_without_an_address_they_ask_the_port_that_serve_listens_on() -> None:
    """All three say the same address where none is given."""
    for name in ("edit_with_mask.py", "edit_with_mask.mjs", "edit_with_mask.sh"):
        assert "http://127.0.0.1:8000" in (EXAMPLES / name).read_text()
