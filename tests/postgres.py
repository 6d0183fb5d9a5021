"""PostgreSQL for tests: a server of their own, on a free port of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.ports import free_port

_OF_DEBIAN = Path("/usr/lib/postgresql")


def _programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres``, which Debian keeps out of PATH."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    folders = (
        sorted(_OF_DEBIAN.glob("*/bin"), key=lambda folder: int(folder.parent.name)) if _OF_DEBIAN.exists() else []
    )
    return folders[-1] if folders else None


class Postgres:
    """A running server."""

    def __init__(self, programs: Path, folder: Path, host: str = "127.0.0.1") -> None:
        self._programs, self._folder, self._host = programs, folder, host
        self.port = free_port()
        # It refuses to run as root.
        self._as: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}

    def run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            (self._programs / program, *arguments),
            check=True,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            **self._as,
        )

    def start(self) -> None:
        """Start it, or start it again with what it had."""
        options = ("-D", f"{self._folder}/data", "-p", f"{self.port}", "-h", self._host, "-k", f"{self._folder}")
        with (self._folder / "log").open("ab") as log:
            command = (self._programs / "postgres", *options, "-c", "fsync=off")
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, **self._as)
        for _ in range(1200):
            try:
                psycopg.connect(self._url("postgres")).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise AssertionError((self._folder / "log").read_text())

    def stop(self) -> None:
        """End it at once, as a crash would."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(20)

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"db_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self._url(name)


@contextmanager
def postgres_server(host: str = "127.0.0.1") -> Generator[Postgres]:
    """Skips the test where PostgreSQL is not installed.

    Args:
        host: to listen on; all of this machine's networks may come in where it is not loopback.
    """
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="imagegate-postgres-"))  # pytest's own can be entered by its user only
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        server = Postgres(programs, folder, host)
        server.run("initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        if host != "127.0.0.1":
            with (folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write("host all all 10.0.0.0/8 trust\n")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
