"""A real S3 server that verifies signatures (rclone), and a line to it that can be slow, silent or cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ports import free_port

KEY, SECRET, BUCKET = "AKIDEXAMPLE", "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY", "pictures"
TIMEOUT = 20.0


class S3Server:
    """``rclone serve s3`` over a folder, whose folders are the buckets."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        (folder / "buckets" / BUCKET).mkdir(parents=True)
        self._log = folder / "log"
        self.port = free_port()
        # fmt: off
        command = [
            program, "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY},{SECRET}", "-vv",
            "--config", os.devnull, "--vfs-cache-mode", "off", str(folder / "buckets"),
        ]
        # fmt: on
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + TIMEOUT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.popen.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    @property
    def files(self) -> dict[str, bytes]:
        """Everything in the bucket, what the server keeps of unfinished uploads included."""
        root = self.folder / "buckets" / BUCKET
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def uploads(self) -> tuple[int, int]:
        """Multipart uploads that were begun, and those that have been neither completed nor aborted."""
        log = self.log
        begun, completed, aborted = (
            log.count(f"serve s3: {word} multipart upload {BUCKET} ") for word in ("initiate", "complete", "abort")
        )
        return begun, begun - completed - aborted

    def empty(self) -> None:
        for name in self.files:
            (self.folder / "buckets" / BUCKET / name).unlink()

    def stop(self) -> None:
        self.popen.kill()
        self.popen.wait(TIMEOUT)


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("rclone is not installed")
    server = S3Server(folder, program)
    try:
        yield server
    finally:
        server.stop()


class Answering:
    """A server that reads whatever comes and gives everybody the same answer."""

    def __init__(self, status: int, body: bytes, headers: bytes = b"") -> None:
        self._answer = (
            b"HTTP/1.1 %d Answer\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n" % (status, len(body), headers)
        ) + body
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError):
            head, _, body = self._read(client, b"")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            left = (int(lengths[0].partition(b":")[2]) if lengths else 0) - len(body)
            while left > 0:
                left -= len(client.recv(65536)) or left
            client.sendall(self._answer)

    def _read(self, client: socket.socket, data: bytes) -> tuple[bytes, bytes, bytes]:
        while b"\r\n\r\n" not in data:
            piece = client.recv(65536)
            if not piece:
                raise ValueError
            data += piece
        return data.partition(b"\r\n\r\n")

    def close(self) -> None:
        self._listener.close()
