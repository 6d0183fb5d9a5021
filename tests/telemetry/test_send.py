"""``imagegate send``, the line on the terminal, and the switches of what is seen."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict
from tests.conftest import Running

from imagegate.asgi.in_process import ask
from imagegate.asgi.not_found import NotFound
from imagegate.cli.commands import main
from imagegate.cli.send import file_stem, save
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving, write_config
from imagegate.errors import ConfigError
from imagegate.server.run import _shared_metrics
from imagegate.standalone import Standalone
from imagegate.telemetry.metrics_endpoint import ServeMetrics
from imagegate.telemetry.prometheus import FOLDER_VARIABLE
from imagegate.terminal import Working

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def config(running: Running, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("send")
    write_config(folder / "imagegate.toml", running.ports, store=folder / "images")
    return str(folder / "imagegate.toml")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEGATE_CONFIG", "")


def test_pictures_are_saved(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output has the names of the files and nothing else; what was changed is told beside it."""
    arguments = ["send", "A red bicycle", "--config", config, "--model", "tokmodel/openai/dall-e-2", "--n", "2"]
    assert main([*arguments, "--size", "512x512", "--quality", "hd", "--out", str(tmp_path / "new")]) == 0
    told = capsys.readouterr()
    files = told.out.splitlines()
    assert files == [str(tmp_path / "new" / name) for name in ("a-red-bicycle.png", "a-red-bicycle-2.png")]
    for file in files:
        with Image.open(file) as picture:
            assert picture.size == (512, 512)
    assert told.err.startswith("changed  quality;")


def test_members_of_any_type(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--set takes JSON and text; a task is waited for."""
    arguments = ["send", "Two herons", "--config", config, "--model", "toapis/gpt-image-1.5-official"]
    assert main([*arguments, "--set", "n=1", "--set", "size=1:1", "--set", "user=me", "--out", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["two-herons.png"]
    capsys.readouterr()


def test_an_error_is_told(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal is one line on standard error, and no file is made."""
    arguments = ["send", "x", "--config", config, "--model", "tokenlab/gpt-image-2", "--size", "8:1"]
    assert main([*arguments, "--out", str(tmp_path / "none")]) == 1
    told = capsys.readouterr()
    assert told.out == "" and "imagegate: invalid_value: " in told.err
    assert not (tmp_path / "none").exists()
    assert main([*arguments, "--set", "novalue"]) == 1
    assert "--set novalue: write it as NAME=VALUE" in capsys.readouterr().err


def test_a_folder_that_cannot_be(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures that cannot be written are an error that says why."""
    (tmp_path / "file").touch()
    arguments = ["send", "x", "--config", config, "--model", "tokmodel/openai/dall-e-2", "--size", "256x256"]
    assert main([*arguments, "--out", str(tmp_path / "file")]) == 1
    assert "the pictures cannot be written: " in capsys.readouterr().err


def test_names_of_files(tmp_path: Path) -> None:
    """From the prompt, without what a shell or a path minds; what is no picture is told by its extension."""
    assert file_stem("../../etc/passwd; rm -rf *") == "etc-passwd-rm-rf"
    assert file_stem("木") == "picture"
    assert len(file_stem("x" * 500)) == 48
    assert [path.name for path in save([b"odd", b"odd"], tmp_path, "木")] == ["picture.bin", "picture-2.bin"]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Old(Terminal):
    encoding = "latin-1"


@pytest.mark.parametrize(("output", "frame"), [(Terminal(), "⠋"), (Old(), "|")])
def test_line_on_a_terminal(output: Terminal, frame: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on is drawn on one line, cut to its width, and wiped in the end."""
    monkeypatch.setenv("COLUMNS", "40")
    with Working(lambda: "x" * 200, output=output):
        while output.getvalue().count("\r") < 2:
            time.sleep(0.01)
    frames = output.getvalue().split("\r\x1b[K")
    assert frames[1].startswith(frame) and frames[1].endswith("...") and len(frames[1]) <= 40
    assert output.getvalue().endswith("\r\x1b[K")


def test_no_line_elsewhere() -> None:
    """In a file or a pipe nothing is drawn."""
    output = io.StringIO()
    with Working(lambda: "x", output=output):
        pass
    assert output.getvalue() == ""


def test_workers_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several workers get a folder, which is gone afterwards; one worker none, and the operator's own is kept."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with _shared_metrics(1):
        assert FOLDER_VARIABLE not in os.environ
    with _shared_metrics(2):
        folder = Path(os.environ[FOLDER_VARIABLE])
        assert folder.is_dir()
    assert not folder.exists() and FOLDER_VARIABLE not in os.environ
    monkeypatch.setenv(FOLDER_VARIABLE, "/mine")
    with _shared_metrics(2):
        assert os.environ[FOLDER_VARIABLE] == "/mine"


def test_the_dead_no_longer_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gauges of a process that has ended, perhaps by a kill, are forgotten when somebody scrapes; others stay."""
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    mine, dead = os.getpid(), int(ended.stdout)
    for process in (mine, dead):
        for kind in ("gauge_livesum", "counter"):
            MmapedDict(str(tmp_path / f"{kind}_{process}.db")).close()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    app = ServeMetrics(NotFound(), registry=CollectorRegistry())
    assert asyncio.run(ask(app, "GET", "/metrics")).status == 200
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"counter_{dead}.db", f"counter_{mine}.db", f"gauge_livesum_{mine}.db"}


CONFIG = '[[upstreams]]\nname = "openai"\napi_key = "sk-test-key"\n[delivery]\nstore = "memory://"\n'


def test_metrics_may_need_a_key() -> None:
    """With `[metrics] key` a scraper must send it; in any format that it asks for it gets metrics."""
    app = Standalone(parse_config(CONFIG + '[metrics]\nkey = "scrape-key"\n'))
    with serving(app) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        assert httpx.get(url).status_code == 401
        open_metrics = {"authorization": "Bearer scrape-key", "accept": "application/openmetrics-text; version=1.0.0"}
        answered = httpx.get(url, headers=open_metrics)
        assert answered.status_code == 200
        assert answered.headers["content-type"].startswith("application/openmetrics-text")
        assert answered.text.endswith("# EOF\n")
        assert "imagegate_build_info" in answered.text and "process_cpu_seconds_total" in answered.text
        assert "_created" not in answered.text
        assert httpx.post(url).status_code == 405


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ('[access]\nkeys = ["a-key"]\nnames = ["x", "y"]', "access.names"),
        ('[access]\nkeys = ["a-key", "b-key"]\nnames = ["x", "x"]', r"access.names\[1\]"),
        ('[access]\nkeys = ["a-key"]\nnames = ["a b"]', r"access.names\[0\]"),
        ('[access]\nkeys = ["a-key"]\nnames = ["a-key"]', r"access.names\[0\]"),
        ('[console]\noperators = ["root"]', r"console.operators\[0\]"),
        ("[console]\nexchanges = 0", "console.exchanges"),
        ('[metrics]\nkey = "a b"', "metrics.key"),
        ('[prices]\ncurrency = "€"', "prices.currency"),
        ('[prices.models]\n"m" = { image = -1 }', "prices.models.m"),
        ('[prices.models]\n"m" = { tokens = { input = -1 } }', "prices.models.m"),
        ('[prices.models]\n"m" = { tokens = { letters = 1 } }', "prices.models"),
    ],
)
def test_wrong_configuration(section: str, key: str) -> None:
    """What is seen is configured like the rest: an error names its key."""
    with pytest.raises(ConfigError, match=key):
        parse_config(CONFIG + section)


def test_names_of_keys() -> None:
    """As configured, else by their place."""
    assert parse_config(CONFIG + '[access]\nkeys = ["k1", "k2"]').access.named_keys() == {"key-1": "k1", "key-2": "k2"}
    named = parse_config(CONFIG + '[access]\nkeys = ["k1"]\nnames = ["alice"]').access
    assert named.named_keys() == {"alice": "k1"}
