"""Ports for programs that cannot be told to take any free one."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """A port below those that systems give out by themselves: no other test is given it in the meantime."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
