"""Freed memory is kept for what comes next, only where nobody has chosen otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from imagegate.allocator import keep_freed_memory

FAULTS = """
import resource, sys
from imagegate.allocator import keep_freed_memory
if len(sys.argv) > 1:
    assert keep_freed_memory()
for _ in range(20):
    bytearray(250_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    bytearray(250_000), bytearray(255_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GLIBC = platform.libc_ver()[0] == "glibc"


def faults(*arguments: str) -> int:
    """Pages that the kernel had to give to a process that allocates and frees 100 MB in pieces."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS, *arguments]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_pieces_of_bodies_are_allocated_without_the_kernel() -> None:
    """By default each of them costs dozens of pages."""
    assert faults("keep") * 10 < faults()


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_the_operator_decides(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What was chosen by the environment stays."""
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to call, and nothing fails."""
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
