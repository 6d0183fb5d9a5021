"""Others that do a part of the work, each in a folder of its own and never in our virtualenv.

    python benchmarks/peers.py

installs what is missing: nginx from Debian, Portkey's gateway from npm, LiteLLM proxy from PyPI.
README.md says how they are configured, and why so.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servers import Proxy, Server, free_port, running
from workloads import KEY, MODEL

FOLDER: Final = Path(__file__).parent / ".peers"
PORTKEY: Final = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": "1.15.2"},
    # Its edits pass the provider's reply on with headers that later ones do not let it add to: 500 to each edit.
    "overrides": {"@hono/node-server": "1.13.8"},
}
LITELLM: Final = "litellm[proxy]==1.108.7"


class NotInstalled(Exception):
    """And what would have to be done."""


@dataclass(frozen=True)
class Peer:
    name: str
    install: Callable[[], None]
    """Raises `NotInstalled`."""
    version: Callable[[], str | None]
    """None: it is not installed."""
    start: Callable[[Path, str], contextlib.AbstractContextManager[Server]]

    @property
    def proxy(self) -> Proxy:
        return Proxy(self.name, self.start)


def _nginx() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")


def _nginx_version() -> str | None:
    program = _nginx()
    return program and _said(program, "-v").rpartition("/")[2]


def _install_nginx() -> None:
    if os.geteuid() or shutil.which("apt-get") is None:
        raise NotInstalled("as root: apt-get install nginx-light")
    _run("apt-get", "update", "-qq")
    _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "nginx-light")


@contextlib.contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[Server]:
    """One worker; buffers in memory only, as is advised for large bodies; keeps connections to the provider."""
    program = _nginx()
    if program is None:
        raise NotInstalled("nginx")
    port, config = free_port(), folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker cannot write bodies into our folder
    config.write_text(
        f"""daemon off; {user} worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log error;
worker_rlimit_nofile 10000;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 512m; keepalive_requests 1000000; proxy_read_timeout 300s;
  client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-f; uwsgi_temp_path {folder}/nginx-u; scgi_temp_path {folder}/nginx-s;
  upstream provider {{ server {upstream.removeprefix("http://")}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off; client_body_buffer_size 256k;
      proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_max_temp_file_size 0;
    }}
  }}
}}
"""
    )
    command = [program, "-e", str(folder / "nginx-start.log"), "-p", str(folder), "-c", str(config)]
    with running("nginx", command, port, log=folder / "nginx.log") as server:
        yield server


def _portkey() -> Path:
    return FOLDER / "portkey" / "node_modules" / "@portkey-ai" / "gateway"


def _portkey_version() -> str | None:
    package = _portkey() / "package.json"
    if not package.exists() or shutil.which("node") is None:
        return None
    return f"{json.loads(package.read_text())['version']} on Node.js {_said('node', '--version').lstrip('v')}"


def _install_portkey() -> None:
    if shutil.which("npm") is None:
        raise NotInstalled("there is no npm")
    home = FOLDER / "portkey"
    home.mkdir(parents=True, exist_ok=True)
    (home / "package.json").write_text(json.dumps(PORTKEY))
    _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home))


@contextlib.contextmanager
def portkey(folder: Path, upstream: str) -> Iterator[Server]:
    """One process. Told where the provider is by each request's headers, and that loopback may be trusted."""
    port = free_port()
    environment = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    command = ["node", str(_portkey() / "build" / "start-server.js"), f"--port={port}", "--headless"]
    with running("portkey", command, port, log=folder / "portkey.log", environment=environment) as server:
        yield server


def _litellm() -> Path:
    return FOLDER / "litellm" / "bin" / "litellm"


def _litellm_version() -> str | None:
    if not _litellm().exists():
        return None
    code = (
        "import platform, importlib.metadata as m; print(m.version('litellm'), 'on Python', platform.python_version())"
    )
    return _said(str(_litellm().with_name("python")), "-c", code)


def _install_litellm() -> None:
    home = FOLDER / "litellm"
    _run(sys.executable, "-m", "venv", str(home))
    _run(str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", LITELLM)


@contextlib.contextmanager
def litellm(folder: Path, upstream: str) -> Iterator[Server]:
    """One worker, no database, what its page on production says about logs."""
    port, config = free_port(), folder / "litellm.yaml"
    config.write_text(
        f"""model_list:
  - model_name: {MODEL}
    litellm_params: {{model: openai/{MODEL}, api_base: "{upstream}/v1", api_key: upstream}}
    model_info: {{mode: image_generation}}
litellm_settings: {{num_retries: 0, request_timeout: 600, set_verbose: false, json_logs: true}}
general_settings: {{master_key: {KEY}}}
"""
    )
    # fmt: off
    command = [str(_litellm()), "--config", str(config), "--host", "127.0.0.1", "--port", str(port),
               "--num_workers", "1", "--telemetry", "False"]
    # fmt: on
    # Its table of prices comes with the package; without that word it would be fetched.
    environment = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with running("litellm", command, port, log=folder / "litellm.log", environment=environment) as server:
        yield server


PEERS: Final = (
    Peer("nginx", _install_nginx, _nginx_version, nginx),
    Peer("portkey", _install_portkey, _portkey_version, portkey),
    Peer("litellm", _install_litellm, _litellm_version, litellm),
)


@functools.cache
def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotInstalled(f"{' '.join(command[:3])}: {done.stderr.strip()[-300:]}")


def install() -> None:
    """Install what is missing; what cannot be had is said and left out."""
    for peer in PEERS:
        try:
            if peer.version() is None:
                print(f"{peer.name}: being installed", flush=True)
                _said.cache_clear()
                peer.install()
            print(f"{peer.name} {peer.version()}")
        except NotInstalled as error:
            print(f"{peer.name} is left out: {error}")


if __name__ == "__main__":
    install()
