"""Tests that start servers or programs are marked, so that `make test-fast` really is without."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest


def bind() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))


def spawn() -> None:
    os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})


def run() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


@pytest.mark.parametrize("start", [bind, spawn, run])
def test_without_the_marker_nothing_is_started(start: Callable[[], None]) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"mark\.server"):
        start()


@pytest.mark.server
@pytest.mark.parametrize("start", [bind, run])
def test_with_the_marker_it_is(start: Callable[[], None]) -> None:
    start()
