"""What figures mean nothing without: the machine, the versions, the day."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from measure import cores

PACKAGES = ("imagegate", "uvicorn", "uvloop", "httptools", "starlette", "aiohttp", "httpx")


def about(form: str) -> dict[str, Any]:
    """
    Args:
        form: of the run.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "form": form,
        "machine": f"{len(os.sched_getaffinity(0))} cores {_processor()}, Linux {platform.release().split('-')[0]}",
        "load": round(os.getloadavg()[0], 2),
        "cores": {f"{many} worker{'s' * (many > 1)}": _places(many) for many in (1, 2)},
        "versions": {"Python": platform.python_version()} | {each: _version(each) for each in PACKAGES},
    }


def told(about: Mapping[str, Any]) -> str:
    """Return it in one line; ``seconds`` is what the run took."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    minutes, seconds = divmod(about["seconds"], 60)
    return (
        f"{about['date']}, {about['machine']}; the {about['form']} form, {minutes}:{seconds:02}; "
        f"load before it {about['load']}; {versions}"
    )


def _places(workers: int) -> str:
    own, others = cores(workers)
    shared = ", which they share with it" if set(own) & set(others) else ""
    return f"the proxy on {', '.join(map(str, own))}, client and provider on {', '.join(map(str, others))}{shared}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
