"""What a tree of processes costs: CPU time and memory, as Linux counts them."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


class ProcessTree:
    """A process with all that it started and has not ended.

    Args:
        pid: of its root.
    """

    def __init__(self, pid: int) -> None:
        self._root = pid

    @property
    def pids(self) -> list[int]:
        found = [self._root]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += map(int, children.read_text().split())
        return found

    def cpu(self) -> float:
        """Return CPU seconds, with nanoseconds behind the point: /proc/PID/stat counts only hundredths."""
        return sum(_cpu(pid) for pid in self.pids)

    def reset_peak(self) -> None:
        """Make `peak` count anew."""
        for pid in self.pids:
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Return the peak in bytes: the sum of the processes' peaks, no less than the peak of the sum."""
        return sum(_status(pid, "VmHWM") for pid in self.pids)

    def rest(self, timeout: float = 30.0) -> None:
        """Wait until it does next to nothing: what a client has left behind is through then."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            before = self.cpu()
            time.sleep(0.05)
            if self.cpu() - before < 0.0025:
                return

    def memory(self) -> int:
        """Return the bytes that are resident now; what processes share is counted for each."""
        return sum(_status(pid, "VmRSS") for pid in self.pids)


def _cpu(pid: int) -> float:
    # The clock that clock_getcpuclockid(3) names; it has the threads that have ended, too.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _status(pid: int, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True)
class Figures:
    """One measurement."""

    requests: int
    seconds: float
    """Wall time."""
    cpu: float
    """Seconds of the whole tree."""
    peak: int
    """Bytes at the most, while it ran."""
    grown: int
    """Bytes that `peak` is above what was resident before."""
    latencies: list[float]
    """Seconds, ascending."""

    @property
    def microseconds(self) -> float:
        """CPU of a request."""
        return self.cpu / self.requests * 1e6

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def quantile(self, share: float) -> float:
        return quantile(self.latencies, share)


KEPT_UP = 0.97
"""Of the answers must be there when the last request is sent; the others are on their way."""


@dataclass(frozen=True)
class OpenLoop:
    """One measurement at a fixed rate."""

    offered: float
    """Requests a second."""
    asked: int
    """Requests that were to be sent in all."""
    sent: int
    rate: float
    """Answers a second while requests were sent."""
    cpu: float
    """Microseconds of a request, of the whole tree."""
    latencies: list[float]
    """Seconds from the time at which a request was to be sent, ascending; of one without an answer, how long it has
    waited."""
    late: list[float]
    """Seconds by which requests were sent after their time, ascending."""
    errors: int
    """Refused, or hung up on."""
    unanswered: int

    @property
    def reached(self) -> bool:
        """Whether the server kept up: nothing was left out or refused, and answers came as fast as requests went."""
        whole = self.sent == self.asked and not self.errors and not self.unanswered
        return whole and self.rate >= KEPT_UP * self.offered


def quantile(values: list[float], share: float) -> float:
    """Return the value below which so much of them lies; 0: there are none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def cores(workers: int) -> tuple[list[int], list[int]]:
    """Those of a proxy, and those of client and provider.

    A proxy has a core for each worker, the others have what is left; where nothing is left, they share the last one.
    """
    all_ = sorted(os.sched_getaffinity(0))
    return all_[:workers], all_[workers:] or all_[-1:]


def pin(pid: int, *, proxy: bool, workers: int = 1) -> None:
    """Keep a process, and what it starts, on its cores."""
    own, others = cores(workers)
    os.sched_setaffinity(pid, own if proxy else others)
