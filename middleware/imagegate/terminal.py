"""A line on the terminal that shows that something is going on."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, Self, TextIO

_FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_FRAMES: Final = "|/-\\"
_SECONDS: Final = 0.1


class Working:
    """Shows what goes on and for how long, until the block ends; nothing where the output is no terminal.

    Args:
        describe: says what goes on just now; called from a thread of its own.
        output: default: standard error, so that standard output holds results only.
    """

    def __init__(self, describe: Callable[[], str], *, output: TextIO | None = None) -> None:
        self._describe = describe
        self._output = sys.stderr if output is None else output
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._output.isatty():
            self._thread = threading.Thread(target=self._draw, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _draw(self) -> None:
        started = time.monotonic()
        frames = _FRAMES if "utf" in (self._output.encoding or "").lower() else _PLAIN_FRAMES
        turn = 0
        while not self._ended.wait(_SECONDS):
            seconds = f"{time.monotonic() - started:5.1f} s "
            room = max(0, shutil.get_terminal_size().columns - len(seconds) - 4)
            text = self._describe()
            shown = text if len(text) <= room else text[: max(0, room - 3)] + "..."
            self._write(f"\r\x1b[K{frames[turn % len(frames)]} {seconds} {shown}")
            turn += 1
        self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()
