"""The benchmarks run: every workload once, its answers checked as in a long run; figures mean nothing here."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.server

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(code: str, *arguments: str) -> str:
    """What a few lines say that are run beside the benchmarks, which are no package."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=BENCHMARKS, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_smallest_form(tmp_path: Path) -> None:
    """Each workload has its row or its note, goals are told, and no answer was wrong."""
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--form", "smallest", "--json", str(tmp_path / "seen.json")]
    command += ["--provider-keep-alive", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads((tmp_path / "seen.json").read_text())
    workloads = {(row["workload"], row["server"]) for row in seen["rows"]}
    for server in ("floor aiohttp", "floor httpx", "imagegate alone", "imagegate mounted"):
        assert {("W1", server), ("W2", server), ("W3", server), ("W4", server)} <= workloads
    for server in ("imagegate alone", "imagegate mounted"):
        assert {("W2url", server), ("W5", server)} <= workloads
    for row in seen["rows"]:
        assert row["cpu"] > 0 and row["peak"] > 0
        assert row["requests"] == 1 or row["workload"] == "W1"  # wrk sends as many as it can in its time
    linked = next(row for row in seen["rows"] if (row["workload"], row["server"]) == ("W2url", "imagegate alone"))
    assert linked["ratio"] is not None, "links are compared with the floor's base64"
    several = ("floor aiohttp, 2 workers", "imagegate alone, 2 workers", "imagegate mounted, 2 workers")
    single = {"floor aiohttp", "floor httpx", "imagegate alone", "imagegate mounted"}
    assert {("W1", server) for server in several} <= workloads
    assert {row["server"] for row in seen["rates"]} == {*single, *several}
    for row in seen["rates"]:
        assert row["offered"] == 20 and row["sent"] == 6 and row["errors"] == row["unanswered"] == 0
    notes = "\n".join(seen["notes"])
    words = ("W4 p50 of 1 at once", "W6 a host's own route", "W7 memory at rest", "W7 memory of imagegate alone")
    assert all(word in notes for word in (*words, "start to first answer", "idle for 60 s"))
    assert {"W6: what a host's own route pays", "start to first answer"} <= {goal["name"] for goal in seen["goals"]}
    assert "Goals" in done.stdout and seen["versions"]["imagegate"] and seen["facts"]["start"] > 0


def test_wrong_answers_give_no_figures(tmp_path: Path) -> None:
    """Where the provider gave another picture than the client got, the client says so."""
    code = (
        "from workloads import WORKLOADS, WrongAnswer\n"
        "from pictures import small\n"
        "import base64, json\n"
        "right = {'data': [{'b64_json': base64.b64encode(small()).decode()}]}\n"
        "wrong = {'data': [{'b64_json': base64.b64encode(small(1)).decode()}]}\n"
        "work = WORKLOADS['W1']\n"
        "work.check(work.found(json.dumps(right).encode()))\n"
        "try:\n"
        "    work.check(work.found(json.dumps(wrong).encode()))\n"
        "except WrongAnswer:\n"
        "    print('told')\n"
    )
    assert run(code) == "told\n"


CLIENT = """
import asyncio, sys
from client import Client, HungUp

ANSWERS = {
    "/length": [b"HTTP/1.1 200 OK\\r\\ncontent-length: 3\\r\\n\\r\\na", b"bc"],
    "/chunks": [
        b"HTTP/1.1 201 Created\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n2\\r\\nab\\r\\n",
        b"1\\r\\nc\\r\\n0\\r\\n\\r\\n",
    ],
    "/close": [b"HTTP/1.1 200 OK\\r\\nconnection: close\\r\\ncontent-length: 3\\r\\n\\r\\nabc"],
    "/cut": [b"HTTP/1.1 200 OK\\r\\ncontent-length: 3\\r\\n\\r\\na"],
    "/nonsense": [b"nonsense\\r\\n\\r\\n"],
}

async def main():
    connections, bodies = 0, []

    async def serve(reader, writer):
        nonlocal connections
        connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode()
                path = head.split()[1]
                lines = [line.partition(": ")[2] for line in head.splitlines() if line.startswith("content-length")]
                bodies.append(await reader.readexactly(int(lines[0])) if lines else None)
                for piece in ANSWERS[path]:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                if path in ("/close", "/cut"):
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    client = Client()
    await client.open(url, 2)
    for path in ("/length", "/chunks", "/length"):
        print(await client.ask("GET", url + path, {}), await client.ask("POST", url + path, {}, b"xyz"))
    await asyncio.sleep(0.05)
    print(connections, bodies)
    print(await client.ask("GET", url + "/close", {}), await client.ask("GET", url + "/close", {}))
    for path in ("/cut", "/nonsense"):
        try:
            print(await client.ask("GET", url + path, {}))
        except HungUp as error:
            print("hung up")
    print(await client.ask("GET", url + "/length", {}))
    client.close()
    server.close()

asyncio.run(main())
"""


def test_client_reads_what_servers_write() -> None:
    """Connections are kept and used again, replies of any framing are read whole, and none is made of half of one."""
    whole = "(200, b'abc') (200, b'abc')\n"
    chunked = "(201, b'abc') (201, b'abc')\n"
    kept = "2 [None, b'xyz', None, b'xyz', None, b'xyz']\n"
    assert run(CLIENT) == whole + chunked + whole + kept + whole + "hung up\nhung up\n(200, b'abc')\n"


def row(workload: str, connections: int, server: str, **figures: Any) -> dict[str, Any]:
    """As a table keeps it."""
    kept = {"cpu": 1000.0, "ratio": 1.0, "rate": 10.0, "p50": 2000.0, "p99": 2000.0, "added": 0.0, "peak": 50.0}
    named = {"workload": workload, "title": "asks", "connections": connections, "server": server}
    return {**named, **kept, "grown": 1.0, "requests": 1, "rounds": [1000.0], **figures}


RESULT = {
    "date": "2026-01-02",
    "form": "short",
    "machine": "2 cores",
    "load": 0.1,
    "seconds": 61,
    "versions": {"Python": "3.13"},
    "rows": [
        row("W1", 16, "floor aiohttp", cpu=400.0),
        row("W1", 16, "imagegate alone", cpu=800.0, ratio=2.0),
        row("W1", 16, "imagegate mounted", cpu=1300.0, ratio=3.25),
        row("W1", 16, "portkey", cpu=2000.0, ratio=None),
        row("W1", 16, "litellm", cpu=20000.0),
        row("W2", 4, "imagegate alone", ratio=1.31, grown=17.0),
        row("W4", 2000, "floor aiohttp", p50=2300.0),
        row("W4", 2000, "imagegate mounted", p50=2500.0, grown=50.0),
    ],
    "cores": {"1 worker": "the proxy on 0, client and provider on 1"},
    "rates": [
        {
            "server": "imagegate alone",
            "offered": offered,
            "reached": offered == 300,
            "rate": 299.9,
            "cpu": 900.0,
            "p50": 1.5,
            "p99": 2.5,
            "p999": 3.5,
            "late": 0.25,
            "errors": 0,
            "unanswered": 0 if offered == 300 else 7,
            "sent": 1200,
        }
        for offered in (300, 1000)
    ],
    "facts": {
        "retention of imagegate alone": 0.69,
        "answered at 2000 by imagegate mounted": 2000,
        "p50 without a proxy at 2000": 2000.0,
        "mount": 1.5,
        "start": 0.9,
        "growth": 0.0,
    },
    "notes": ["a note"],
    "failures": [],
}


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A file as a run with --json writes it."""
    code = (
        "import json, sys; from goals import Seen, goals_of\n"
        "result = json.loads(sys.argv[1])\n"
        "result['goals'] = [each.told() for each in goals_of(Seen(result['rows'], result['facts']))]\n"
        "print(json.dumps(result))\n"
    )
    path = tmp_path / "result.json"
    path.write_text(run(code, json.dumps(RESULT)), "utf-8")
    return path


def test_goals(result: Path) -> None:
    """Each that was measured, with what was seen; on the limit is reached."""
    goals = {(goal["name"], goal["of"]): goal for goal in json.loads(result.read_text("utf-8"))["goals"]}
    added = "W4 at 2000: p50 added to that without a proxy, in % of the provider's 2 s"
    assert {name: (goal["measured"], goal["verdict"]) for name, goal in goals.items()} == {
        ("W1 at 16: CPU to the aiohttp floor's", "alone"): ("2 x", "reached"),
        ("W1 at 16: CPU to the aiohttp floor's", "mounted"): ("3.25 x", "NOT REACHED"),
        ("W1 at 16: CPU to Portkey's", "alone"): ("0.4 x", "reached"),
        ("W1 at 16: CPU to Portkey's", "mounted"): ("0.65 x", "NOT REACHED"),
        ("W1 at 16: CPU to LiteLLM's", "alone"): ("0.04 x", "reached"),
        ("W1 at 16: CPU to LiteLLM's", "mounted"): ("0.065 x", "NOT REACHED"),
        ("W1: retention from 16 to 512 connections", "alone"): ("0.69", "NOT REACHED"),
        ("W2 as base64: CPU to the aiohttp floor's", "alone"): ("1.31 x", "NOT REACHED"),
        ("W2 as base64: memory at the peak above that before", "alone"): ("17 MiB", "NOT REACHED"),
        ("W4 at 2000: answered, of each round", "mounted"): ("2000", "reached"),
        (added, "mounted"): ("25 %", "reached"),
        ("W4 at 2000: memory of a request in flight", "mounted"): ("25.6 KiB", "reached"),
        ("W6: what a host's own route pays", "mounted"): ("1.5 us", "reached"),
        ("W7: growth in the later half of mixed traffic", "alone"): ("0 MiB", "reached"),
        ("start to first answer", "alone"): ("0.9 s", "reached"),
    }
    assert goals[added, "mounted"]["beside"] == "the aiohttp floor adds 15 %"


def test_page_keeps_what_people_wrote(result: Path) -> None:
    """Figures are new, prose stays, and goals of which it does not speak are told."""
    code = (
        "import json, pathlib, sys; import figures; from figures_page import page\n"
        "result = json.loads(pathlib.Path(sys.argv[1]).read_text('utf-8'))\n"
        "once = page(result, 'Why: W1 at 16: CPU to Portkey\\'s.', 'Another client.')\n"
        "again = page(result, figures.between(once, figures.PROSE), 'Another client.')\n"
        "print(json.dumps([once, again, figures.untold(result, figures.between(again, figures.PROSE)),\n"
        "    figures.put_between('a<!-- figures -->b<!-- end of figures -->c', figures.BLOCK, 'new')]))\n"
    )
    once, again, untold, put = json.loads(run(code, str(result)))
    assert once == again and "Why: W1 at 16: CPU to Portkey's." in once
    assert "## What changed\n\nAnother client.\n" in once
    assert "Cores, 1 worker: the proxy on 0, client and provider on 1." in once
    assert "| W1: retention from 16 to 512 connections | 0.69 |  | >= 0.7 | **not reached** |" in once
    assert "| W1 at 16: CPU to Portkey's | 0.4 x | 0.65 x | <= 0.4 x | **not reached mounted** |" in once
    assert "| W1 asks, 16 | portkey | 2,000 |  | 10.0 |" in once
    assert "| W1 asks, 16 | 400 (1.00) | 800 (2.00) | 1,300 (3.25) | 2,000 | 20,000 (1.00) |" in once
    assert "| imagegate alone | 300 | reached | 900 | 1.50 | 2.50 | 3.50 | 0.25 |" in once
    missed = "**NOT REACHED: 300 answers a second, 7 unanswered**"
    assert f"| imagegate alone | 1,000 | {missed} | 900 | 1.50 |" in once
    assert once.startswith("# Figures\n\n2026-01-02, 2 cores; the short form, 1:01; load before it 0.1; Python 3.13.\n")
    assert len(untold) == 5 and "W1 at 16: CPU to Portkey's" not in untold
    assert put == "a<!-- figures -->\nnew\n<!-- end of figures -->c"


def test_what_is_drawn(result: Path) -> None:
    """A panel for what was measured, bars in one order, the values as they are read."""
    code = (
        "import json, pathlib, sys; import figures\n"
        "shown = figures.panels(json.loads(pathlib.Path(sys.argv[1]).read_text('utf-8')))\n"
        "print(json.dumps([[each.title, each.unit, [[bar.server, bar.label, bar.kind] for bar in each.bars]]"
        " for each in shown]))\n"
    )
    shown = json.loads(run(code, str(result)))
    assert shown[0] == [
        "Small generation",
        "CPU ms a request",
        [
            ["imagegate alone", "0.80", "own"],
            ["imagegate mounted", "1.3", "own"],
            ["pass-through, aiohttp", "0.40", "floor"],
            ["Portkey", "2.0", "other"],
            ["LiteLLM", "20", "other"],
        ],
    ]
    assert [each[0] for each in shown[1:]] == ["Reply of 4 × 4 MiB"] * 2


@pytest.mark.matplotlib
@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_picture_and_page(result: Path, tmp_path: Path) -> None:
    """Both READMEs show the picture; the same figures make the same files, byte for byte; prose stays."""
    folder = tmp_path / "benchmarks"
    kept = shutil.ignore_patterns(".peers", "__pycache__", "figures.svg", "figures.json", "FIGURES.md")
    shutil.copytree(BENCHMARKS, folder, ignore=kept)
    shutil.copy(BENCHMARKS.parent / "README.md", tmp_path)
    seen: list[dict[str, bytes]] = []
    for _ in range(2):
        command = [sys.executable, str(folder / "page.py"), str(result)]
        done = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
        told = done.stderr.count("does not say why: ")
        names = ("benchmarks/figures.svg", "benchmarks/FIGURES.md", "benchmarks/README.md", "README.md")
        seen.append({name: (tmp_path / name).read_bytes() for name in names})
        assert told == (0 if len(seen) == 2 else 6)
        page = folder / "FIGURES.md"
        whole = page.read_text("utf-8")
        why = "".join(f"{goal['name']}\n" for goal in json.loads(result.read_text("utf-8"))["goals"])
        page.write_text(whole.replace("kept -->\n", f"kept -->\n{why}", 1), "utf-8")
    first, second = seen
    assert first.pop("benchmarks/FIGURES.md") != second.pop("benchmarks/FIGURES.md")
    assert first == second
    assert first["benchmarks/figures.svg"].startswith(b"<?xml") and len(first["benchmarks/figures.svg"]) > 10_000
    alt = b"![Small generation, CPU ms a request: imagegate alone 0.80, "
    assert alt in first["README.md"] and b"](benchmarks/figures.svg)" in first["README.md"]
    assert alt in first["benchmarks/README.md"] and b"](figures.svg)" in first["benchmarks/README.md"]


def test_what_seeing_costs_runs() -> None:
    """benchmarks/observe.py has its own figures and goal; it prints three lines."""
    command = [sys.executable, str(BENCHMARKS / "observe.py"), "--requests", "2", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert len(done.stdout.splitlines()) == 3, done.stderr


def test_path_counts_modules_and_calls() -> None:
    """benchmarks/path.py prints both figures with their goals, which hold, and with --list the calls in order."""
    command = [sys.executable, str(BENCHMARKS / "path.py"), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    listed, _, counted = done.stdout.partition("\n\n")
    *_, modules, calls = counted.splitlines()
    for line, pattern in (
        (modules, r" *(\d+) modules of ours; goal: at most (\d+)"),
        (calls, r" *(\d+) calls; goal: at most (\d+) \(and \d+ resumptions\)"),
    ):
        found = re.fullmatch(pattern, line)
        assert found is not None
        assert int(found[1]) <= int(found[2]), done.stdout
    assert int(calls.split()[0]) == len(listed.splitlines()) > 50
    assert listed.splitlines()[0].startswith("imagegate")
