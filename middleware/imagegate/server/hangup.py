"""SIGHUP to the parent of several workers: each worker reads the configuration again, and none is replaced."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator


@contextlib.contextmanager
def forwarding_hangup(workers: int) -> Generator[None]:
    """Forward SIGHUP to the workers of this process, which uvicorn would replace by ones that may not start.

    The signal is blocked, so that uvicorn's handler never runs, and taken by a thread. Workers inherit that; they
    unblock it as soon as they have a handler of their own.
    """
    if workers == 1 or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    threading.Thread(target=_forward, name="imagegate-hangup", daemon=True).start()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _forward() -> None:
    while signal.sigwait({signal.SIGHUP}):
        for worker in multiprocessing.active_children():
            if worker.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGHUP)
