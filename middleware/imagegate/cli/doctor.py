"""``imagegate doctor``: looks at everything that a gateway needs, and says what to do where something is amiss."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from imagegate import __version__
from imagegate.cli.live import Finding, findings
from imagegate.config.model_contracts import contracts_of, warnings_of
from imagegate.config.schema import Config
from imagegate.errors import ConfigError
from imagegate.standalone import CONFIG_VARIABLE, DEFAULT_FILE, find_config

_MARKS: Final = {"good": "ok  ", "warning": "WARN", "bad": "BAD "}


async def examine() -> int:
    """Print what was found, the worst last; return 1 where something is bad, else 0."""
    found: list[Finding] = []
    async for finding in _everything():
        found.append(finding)
        print(f"{_MARKS[finding.state]}  {finding.name}: {finding.text}.")
        if finding.state != "good" and finding.advice:
            print(f"      -> {finding.advice}")
    bad = sum(finding.state == "bad" for finding in found)
    warnings = sum(finding.state == "warning" for finding in found)
    print(f"{len(found)} looked at, {bad} bad, {warnings} to look at.")
    return 1 if bad else 0


async def _everything() -> AsyncIterator[Finding]:
    yield Finding("imagegate", "good", f"version {__version__}, Python {sys.version.split()[0]}")
    try:
        config = find_config()
    except ConfigError as error:
        yield Finding("configuration", "bad", str(error), "`imagegate init` writes a file to begin with.")
        return
    for finding in (*_configuration(config), *_machine(config)):
        yield finding
    async for finding in findings(config):
        yield finding


def _configuration(config: Config) -> Iterator[Finding]:
    file = os.environ.get(CONFIG_VARIABLE) or (str(DEFAULT_FILE) if DEFAULT_FILE.exists() else "the environment")
    contracts = contracts_of(config)
    models = sum(map(len, contracts.values()))
    yield Finding("configuration", "good", f"{file}: {len(config.upstreams)} upstreams, {models} models")
    for warning in warnings_of(config, contracts):
        yield Finding("configuration", "warning", warning.rstrip("."))


def _machine(config: Config) -> Iterator[Finding]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < 2 * config.limits.connections:
        advice = f"Raise it (LimitNOFILE=, ulimit -n) to {2 * config.limits.connections}, or lower limits.connections."
        text = f"at most {most}, so that {most // 2} clients can be connected and not {config.limits.connections}"
        yield Finding("descriptors", "warning", text, advice)
    else:
        yield Finding("descriptors", "good", "enough for limits.connections")
    yield _room("limits.spool", Path(tempfile.gettempdir()), config.limits.spool)
    if config.delivery.store.startswith("file://"):
        folder = Path(config.delivery.store.removeprefix("file://"))
        yield _room("delivery.store", folder, config.delivery.max_bytes or 0)


def _room(name: str, folder: Path, wanted: int) -> Finding:
    """Return whether a disk has the room that a setting promises."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(name, "bad", f"{folder} cannot be used: {error.strerror or error}", "Name another directory.")
    text = f"{free // 1024**2:,} MiB free at {folder}"
    if free < max(wanted, 64 * 1024**2):
        wants = f", and the setting promises {wanted // 1024**2:,} MiB" if wanted else ""
        return Finding(
            name, "warning", f"{text}{wants}", f"Free space there, or set {name} to less or elsewhere (TMPDIR)."
        )
    return Finding(name, "good", text)
