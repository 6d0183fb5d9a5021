"""The walk of docs/quickstart.md works: a shell executes the page's blocks in their order, copied as they are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image
from tests.ports import free_port

pytestmark = pytest.mark.server

PAGE = (Path(__file__).parent.parent / "docs" / "quickstart.md").read_text("utf-8")
WALK = PAGE[PAGE.index("## A service of your own, step by step") : PAGE.index("## Alone")]
BLOCKS = re.findall(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', WALK, re.MULTILINE | re.DOTALL)
END = "kill %1 %2\n"
INSTEAD = {
    # What the tests run in is the environment that these make.
    "python3 -m venv .venv\n. .venv/bin/activate\npip install '../imagegate[server]' fastapi openai pytest\n": "",
    "pip install -e .\n": f"{sys.executable} -m pip install -q --no-deps --no-build-isolation --no-index -t site .\n",
    END: f"{sys.executable} -c 'input()'\n{END}",
}
"""Lines of the page, and what stands in for them here."""


def script() -> str:
    """The blocks: files are written where they are shown, commands run; the output of each block ends with a mark."""
    lines = ["set -e -m\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n"]
    for language, name, content in BLOCKS:
        if name:
            lines.append(f"cat > {name} <<'END_OF_THE_FILE'\n{content}END_OF_THE_FILE\n")
        elif language == "sh":
            lines.append(f"{content}echo '\n== end of a block'\n")
    text = "".join(lines)
    for ours, other in INSTEAD.items():
        assert text.count(ours) == 1, ours
        text = text.replace(ours, other)
    return text.replace("8000", str(free_port())).replace("9100", str(free_port()))


def test_the_walk(tmp_path: Path) -> None:
    """From an empty folder to a mounted service with an adapter of its own, pictures, and a test that passes."""
    environment = {**os.environ, "PYTHONPATH": "site", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with subprocess.Popen(
        ["bash", "-c", script()],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        said = ""
        for line in shell.stdout:  # the last block waits for a line, so that the links can be loaded before
            said += line
            if line.startswith("http://") and "/images/" in line:
                assert httpx.get(line.strip()).headers["content-type"] == "image/png"
            if " passed in " in line:
                shell.stdin.write("\n")
                shell.stdin.flush()
    assert shell.returncode == 0, said
    _, page, check, _, explained, pictures, passed, _ = said.split("\n== end of a block\n")
    assert page.startswith("# Painter\n")
    assert "imagegate.toml: good. Upstreams: 1, models: 1, routes: 1." in check
    shown = next(json.loads(content) for language, _, content in BLOCKS if language == "json")
    answered = json.loads(explained)
    assert {name: answered[name] for name in shown} == shown
    assert pictures.count("/images/") == 2
    assert pictures.endswith('{"hello":"world"}')
    assert re.search(r"\d+ passed", passed)
    with Image.open(tmp_path / "hello-images" / "kite.png") as picture:
        assert picture.size == (768, 512)
