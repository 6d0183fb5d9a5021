"""Writing many pieces of bytes to a descriptor."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Final

_PIECES_AT_ONCE: Final = 1024
"""As many as Linux and macOS take."""


def write_all(descriptor: int, data: Sequence[bytes]) -> None:
    """Write all pieces with as few system calls as possible: each one releases the GIL. Raises `OSError`."""
    left = deque(memoryview(piece) for piece in data if piece)
    while left:
        written = os.writev(descriptor, [left[at] for at in range(min(len(left), _PIECES_AT_ONCE))])
        while left and written >= len(left[0]):
            written -= len(left.popleft())
        if written:
            left[0] = left[0][written:]
