"""OpenStack Swift with its S3 front, all four servers on this machine: stricter about S3 than most."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.stores.sigv4 import signed

KEY, SECRET, BUCKET = "test:tester", "testing", "pictures"
TIMEOUT = 60.0
SERVERS = ("account", "container", "object", "proxy")
FILTERS = "catch_errors cache s3api tempauth copy slo dlo"

_ENVIRONMENT = {**os.environ, "EVENTLET_NO_GREENDNS": "yes"}
"""Without it Swift's eventlet imports a resolver, which imports trio where that is installed, and fails."""


class Swift:
    """One replica of everything on one device, which is a folder.

    Args:
        bin_folder: with Swift's programs.
    """

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self._folder = folder
        self._bin = bin_folder
        self._ports = {name: free_port() for name in SERVERS}
        (folder / "devices" / "d1").mkdir(parents=True)
        (folder / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = tests\n[storage-policy:0]\nname = one\ndefault = yes\n"
        )
        for name in SERVERS:
            if name != "proxy":
                self._make_ring(name)
            self._configure(name)
        self._processes = [self._start(name) for name in SERVERS]

    @property
    def port(self) -> int:
        return self._ports["proxy"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{BUCKET}"

    def _make_ring(self, name: str) -> None:
        builder = str(self._folder / f"{name}.builder")
        device = f"r1z1-127.0.0.1:{self._ports[name]}/d1"
        for arguments in (("create", "4", "1", "0"), ("add", device, "1"), ("rebalance",)):
            command = [str(self._bin / "swift-ring-builder"), builder, *arguments]
            subprocess.run(command, check=True, capture_output=True, env=_ENVIRONMENT)

    def _configure(self, name: str) -> None:
        filters = FILTERS if name == "proxy" else ""
        text = (
            f"[DEFAULT]\nswift_dir = {self._folder}\ndevices = {self._folder}/devices\nmount_check = false\n"
            f"bind_ip = 127.0.0.1\nbind_port = {self._ports[name]}\nworkers = 0\nuser = {getpass.getuser()}\n"
            f"disable_fallocate = true\n[pipeline:main]\npipeline = {filters} {name}-server\n"
            f"[app:{name}-server]\nuse = egg:swift#{name}\naccount_autocreate = true\n"
        )
        for each in filters.split():
            text += f"[filter:{each}]\nuse = egg:swift#{'memcache' if each == 'cache' else each}\n"
            text += "location = us-east-1\n" if each == "s3api" else ""
            text += f"user_{KEY.replace(':', '_')} = {SECRET} .admin\n" if each == "tempauth" else ""
        (self._folder / f"{name}-server.conf").write_text(text)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        command = [str(self._bin / f"swift-{name}-server"), str(self._folder / f"{name}-server.conf"), "verbose"]
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=_ENVIRONMENT)

    def make_bucket(self) -> None:
        """Returns when the servers answer."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                reply = signed("PUT", self.url, KEY, SECRET)
                if reply.status_code == 200:
                    return
            logs = "\n".join(path.read_text("utf-8", "replace")[-2000:] for path in self._folder.glob("*.log"))
            assert all(each.poll() is None for each in self._processes), logs
            assert time.monotonic() < deadline, logs
            time.sleep(0.1)

    def listed(self, what: str = "") -> str:
        """The bucket's own list of objects, or with ``?uploads`` of unfinished uploads."""
        return signed("GET", self.url + what, KEY, SECRET).raise_for_status().text

    def stop(self) -> None:
        for each in self._processes:
            each.kill()
        for each in self._processes:
            each.wait(TIMEOUT)


@contextlib.contextmanager
def swift_server(folder: Path) -> Iterator[Swift]:
    bin_folder = Path(os.environ.get("SWIFT_BIN", Path(sys.executable).parent))
    if not (bin_folder / "swift-proxy-server").exists():
        pytest.skip("swift is not installed")
    swift = Swift(folder, bin_folder)
    try:
        swift.make_bucket()
        yield swift
    finally:
        swift.stop()
