"""What is published: built, installed where nothing else is, and free of surprises."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Final, NamedTuple

import pytest

import imagegate

pytestmark = pytest.mark.server

ROOT: Final = Path(imagegate.__file__).parents[2]
PYTHONS: Final = ("3.11", "3.12", "3.13")


class Built(NamedTuple):
    """The two files of a release."""

    wheel: Path
    source: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, source)


def python(version: str) -> str:
    """The interpreter of a version; skips the test where there is none."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    versions = Path.home() / ".pyenv" / "versions"
    found = [shutil.which(f"python{version}"), *map(str, sorted(versions.glob(f"{version}.*/bin/python")))]
    for name in filter(None, found):
        if subprocess.run([name, "-c", ""], capture_output=True).returncode == 0:
            return name
    pytest.skip(f"there is no Python {version}")


@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_runs_where_nothing_else_is_installed(built: Built, version: str, tmp_path: Path) -> None:
    """With its declared dependencies alone: the command, every adapter, and a mounted gateway."""
    subprocess.run([python(version), "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    program = tmp_path / "env" / "bin"
    install = [sys.executable, "-m", "pip", "--python", str(program / "python"), "install", "--quiet", "--no-compile"]
    subprocess.run([*install, f"{built.wheel}[server]"], check=True, capture_output=True)
    models = subprocess.run(
        [str(program / "imagegate"), "models", "--adapter", "openai"], capture_output=True, text=True
    )
    assert "gpt-image-2" in models.stdout, models.stderr
    code = (
        "import imagegate, imagegate.standalone, imagegate_adapters\n"
        "from imagegate.registry import installed, load_adapter\n"
        "print(len([load_adapter(name).contracts() for name in installed()]))\n"
        "imagegate.ImageGateway(config={'upstreams': [{'name': 'openai', 'api_key': 'k'}]})\n"
    )
    run = subprocess.run([str(program / "python"), "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert int(run.stdout) == len(project["entry-points"]["imagegate.adapters"])


def test_what_the_wheel_contains(built: Built) -> None:
    """Two packages, their metadata, and no file that Python runs by itself (`.pth`)."""
    names = zipfile.ZipFile(built.wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "imagegate",
        "imagegate_adapters",
        "imagegate-0.1.0.dist-info",
    }
    assert [name for name in names if name.endswith((".pth", ".so", ".pyc"))] == []
    data = {path.relative_to(ROOT / "middleware").as_posix() for path in (ROOT / "middleware").rglob("*.toml")}
    assert data <= set(names)


def test_the_source_distribution_makes_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.source) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # which Python 3.11.2 does not have yet
        archive.extractall(tmp_path)
    (source,) = tmp_path.iterdir()
    assert {"tests", "docs", "deploy", "SECURITY.md", "CONTRIBUTING.md"} <= {path.name for path in source.iterdir()}
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path / "d"), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (again,) = (tmp_path / "d").glob("*.whl")
    first, second = (
        {entry.filename: entry.CRC for entry in zipfile.ZipFile(wheel).infolist()} for wheel in (built.wheel, again)
    )
    assert first == second


IMPORT: Final = """
import json, os, sys, threading
seen = []
def hook(event, arguments):
    opened = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if opened or event in ("socket.__new__", "socket.connect", "socket.bind", "subprocess.Popen", "os.fork",
                           "os.remove", "os.mkdir", "os.putenv", "urllib.Request"):
        seen.append([event, repr(arguments)])
environment = dict(os.environ)
sys.addaudithook(hook)
sys.dont_write_bytecode = True
import imagegate, imagegate.adapter, imagegate.contract, imagegate.events, imagegate.layers, imagegate.standalone
import imagegate.testing, imagegate.cli
from imagegate.registry import installed, load_adapter
for name in installed():
    load_adapter(name)
print(json.dumps([seen, threading.active_count(), environment == dict(os.environ)]))
"""


def test_importing_does_nothing_else(tmp_path: Path) -> None:
    """No file is written, no socket made, no program or thread started, and the environment stays as it is."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == 0, done.stderr
    # Libraries that look for a socket of IPv6 when they are imported open none to anywhere.
    seen, threads, untouched = json.loads(done.stdout)
    assert ([event for event in seen if event[0] != "socket.__new__"], threads, untouched) == ([], 1, True)
    assert list(tmp_path.iterdir()) == []
