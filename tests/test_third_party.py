"""The example of a third party's adapter, installed as its users would, in an environment of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.server

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "third_party_adapter"
PAGE = (ROOT / "docs" / "write-an-adapter.md").read_text("utf-8")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the example in it; what the example depends on is that of these tests."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python*/site-packages"))
    own = sysconfig.get_path("purelib")
    (site / "dependencies.pth").write_text(f"import site; site.addsitedir({own!r})\n")
    copy = folder / "example"
    subprocess.run(["cp", "-r", EXAMPLE, copy], check=True)
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(copy)]
    subprocess.run(install, check=True, timeout=300)
    return python


def run(python: Path, *arguments: str) -> str:
    done = subprocess.run([str(python), *arguments], capture_output=True, text=True, timeout=300, cwd=EXAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_own_tests_pass_where_it_is_installed(python: Path) -> None:
    """The entry point is found, the kit holds the adapter to its contract, and a client gets its first picture."""
    out = run(
        python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", ".", "test_studio.py"
    )
    assert re.search(r"^1[0-9] passed", out, re.MULTILINE), out


def test_the_program_knows_it(python: Path) -> None:
    """`imagegate models --adapter studio` tells what its contract says."""
    out = run(python, "-m", "imagegate", "models", "--adapter", "studio")
    assert out.startswith("# Studio\n")
    assert "`oil`" in out


def test_it_touches_no_file_of_imagegate() -> None:
    """It imports what is public, and nothing else."""
    sources = "\n".join(file.read_text("utf-8") for file in (EXAMPLE / "src").rglob("*.py"))
    imported = set(re.findall(r"^from (imagegate[\w.]*) import", sources, re.MULTILINE))
    assert imported == {"imagegate.adapter", "imagegate.errors", "imagegate.replies"}


def test_the_page_shows_the_example() -> None:
    """Each block of the page that names a file of the example is that file."""
    shown = re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in shown} == {
        "pyproject.toml",
        "src/imagegate_studio/studio.py",
        "src/imagegate_studio/studio.toml",
        "test_studio.py",
    }
    for name, block in shown:
        assert block == (EXAMPLE / name).read_text("utf-8"), name
