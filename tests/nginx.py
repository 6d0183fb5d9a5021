"""A real nginx, on a port of this machine."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from tests.ports import free_port

needs_nginx: Final = pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")

_MAIN: Final = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {http}
}}
"""
_TIMEOUT: Final = 20.0


@contextlib.contextmanager
def nginx(folder: Path, http: str) -> Iterator[str]:
    """Run nginx, and give the address that it listens on.

    Args:
        folder: that is made for its files.
        http: what stands in its ``http`` block; ``PORT`` is the port.
    """
    port = free_port()
    folder.mkdir()
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, http=http.replace("PORT", str(port))))
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + _TIMEOUT
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/healthz").is_success:
                    break
            assert process.poll() is None and time.monotonic() < deadline, (folder / "error.log").read_text()
            time.sleep(0.01)
        yield url
    finally:
        process.terminate()
        process.wait()
