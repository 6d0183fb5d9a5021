"""Freed memory is kept for what comes next, only where nobody has chosen otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from imagegate.server.allocator import keep_freed_memory

FAULTS = """
import resource, sys
from imagegate.server.allocator import keep_freed_memory
if len(sys.argv) > 1:
    assert keep_freed_memory()
for _ in range(20):
    bytearray(250_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    bytearray(250_000), bytearray(255_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
ARENAS = """
import ctypes, sys, threading
from imagegate.server.allocator import keep_freed_memory
if len(sys.argv) > 1:
    assert keep_freed_memory()
all_run = threading.Barrier(4)
def allocate():
    all_run.wait()
    kept.append(bytearray(250_000))
kept = []
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""
GLIBC = platform.libc_ver()[0] == "glibc"


def outcome(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a process says for which nobody has chosen."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)


def faults(*arguments: str) -> int:
    """Pages that the kernel had to give to a process that allocates and frees 100 MB in pieces."""
    return int(outcome(FAULTS, *arguments).stdout)


def arenas(*arguments: str) -> int:
    """Heaps of a process in which four threads allocate."""
    return outcome(ARENAS, *arguments).stderr.count("Arena ")


@pytest.mark.server
@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_pieces_of_bodies_are_allocated_without_the_kernel() -> None:
    """By default each of them costs dozens of pages."""
    assert faults("keep") * 10 < faults()


@pytest.mark.server
@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_threads_share_what_is_kept() -> None:
    """By default each thread has a heap of its own, which keeps what it has freed for itself."""
    assert arenas("keep") == 1 < arenas()


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_the_operator_decides(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What was chosen by the environment stays."""
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to call, and nothing fails."""
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
