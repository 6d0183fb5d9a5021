"""How much of what was written to a socket its peer has not acknowledged."""

from __future__ import annotations

import sys
from typing import Any

fcntl: Any
termios: Any
try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = termios = None


def unacknowledged(transport: Any) -> int:
    """Return how many bytes wait in the kernel; 0 where the system does not say.

    The kernel takes more from a program only when a third of its buffer is free, which may be a megabyte: seen from
    above, a slow reader looks like none at all. Linux reports it by ``SIOCOUTQ`` (tcp(7)).
    """
    if fcntl is None:
        return 0
    try:
        queue = bytearray(4)
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queue)
    except (AttributeError, OSError):
        return 0
    return int.from_bytes(queue, sys.byteorder)
