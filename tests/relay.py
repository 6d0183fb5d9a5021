"""A TCP relay, whose connections a test can slow down, break, silence and lead elsewhere."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable


class Relay:
    """Relays the connections to a port of its own to another one.

    Args:
        target: port to relay to.
        delay: seconds by which every piece is delayed.
        on_bytes: a number of bytes to the target, and what is called once when so many have been relayed.
    """

    def __init__(
        self, target: int, *, delay: float = 0, on_bytes: tuple[int, Callable[[], object]] | None = None
    ) -> None:
        self._target = target
        self._delay = delay
        self._on_bytes = on_bytes
        self._is_silent = threading.Event()
        self._sockets: list[socket.socket] = []
        self.passed = 0
        """Bytes relayed to the target."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink, sink is far), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_out: bool) -> None:
        try:
            while piece := source.recv(65536):
                time.sleep(self._delay)
                if self._is_silent.is_set():
                    continue
                sink.sendall(piece)
                self.passed += len(piece) if is_out else 0
                if self._on_bytes is not None and self.passed >= self._on_bytes[0]:
                    (_, act), self._on_bytes = self._on_bytes, None
                    act()
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # one side is gone, so the other one goes, too
            for each in (source, sink):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def lead_to(self, target: int) -> None:
        """Relay new connections to another port, and break the others."""
        self._target = target
        self.cut()

    def cut(self) -> None:
        """Break all connections."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def silence(self) -> None:
        """Discard everything from now on, with the connections open."""
        self._is_silent.set()

    def close(self) -> None:
        """Stop listening, and break all connections."""
        self._listener.close()
        self.cut()
