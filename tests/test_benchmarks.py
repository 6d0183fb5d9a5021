"""The benchmarks run: every workload once, its answers checked as in a long run; figures mean nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_smallest_form(tmp_path: Path) -> None:
    """Each workload has its row or its note, and no answer was wrong."""
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--form", "smallest", "--json", str(tmp_path / "seen.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads((tmp_path / "seen.json").read_text())
    workloads = {(row["workload"].split()[0], row["server"]) for row in seen["rows"]}
    for server in ("floor aiohttp", "floor httpx", "imagegate"):
        assert {("W1", server), ("W2", server), ("W3", server)} <= workloads
    assert {("W2url", "imagegate"), ("W4", "imagegate"), ("W5", "imagegate")} <= workloads
    assert all(row["requests"] == 1 and row["cpu"] > 0 and row["peak"] > 0 for row in seen["rows"])
    notes = "\n".join(seen["notes"])
    assert all(word in notes for word in ("W6 a host's own route", "W7 memory", "start to first answer"))


def test_wrong_answers_give_no_figures(tmp_path: Path) -> None:
    """Where the provider gave another picture than the client got, the client says so."""
    code = (
        "from workloads import WORKLOADS, WrongAnswer\n"
        "from pictures import SMALL, png\n"
        "import base64, json\n"
        "right = {'data': [{'b64_json': base64.b64encode(png(SMALL)).decode()}]}\n"
        "wrong = {'data': [{'b64_json': base64.b64encode(png(SMALL, 1)).decode()}]}\n"
        "work = WORKLOADS['W1']\n"
        "work.check(work.found(json.dumps(right).encode()))\n"
        "try:\n"
        "    work.check(work.found(json.dumps(wrong).encode()))\n"
        "except WrongAnswer:\n"
        "    print('told')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, timeout=60)
    assert done.stdout == "told\n", done.stderr


def test_what_seeing_costs_runs() -> None:
    """benchmarks/observe.py has its own figures and goal; it prints three lines."""
    command = [sys.executable, str(BENCHMARKS / "observe.py"), "--requests", "2", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert len(done.stdout.splitlines()) == 3, done.stderr
