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
        """Seconds, with nanoseconds behind the point: /proc/PID/stat counts only hundredths."""
        return sum(_cpu(pid) for pid in self.pids)

    def reset_peak(self) -> None:
        """From now on `peak` counts anew."""
        for pid in self.pids:
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Bytes: the sum of the processes' peaks, no less than the peak of the sum."""
        return sum(_status(pid, "VmHWM") for pid in self.pids)

    def memory(self) -> int:
        """Bytes that are resident now; what processes share is counted for each."""
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
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))]


def pin(pid: int, *, proxy: bool) -> None:
    """A proxy has the first of our cores for itself, load and provider have the others; a single core is shared."""
    first, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, {first} if proxy or not others else set(others))
