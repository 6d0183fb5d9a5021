"""Others that do a part of the work, where they can be installed; each in a folder of its own, never in our .venv."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from servers import Server, free_port, running
from workloads import KEY, MODEL

FOLDER: Final = Path(__file__).parent.parent / ".venv" / "peers"
PORTKEY: Final = "@portkey-ai/gateway@1.15.2"
LITELLM: Final = "litellm[proxy]"


class NotInstalled(Exception):
    """And it cannot be installed here."""


@contextlib.contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[Server]:
    """From Debian: ``apt-get install nginx-light``. Buffers by default; keeps connections."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise NotInstalled("nginx: apt-get install nginx-light")
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
    location / {{ proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""
    )
    command = [program, "-e", str(folder / "nginx-start.log"), "-p", str(folder), "-c", str(config)]
    with running("nginx", command, port, log=folder / "nginx.log") as server:
        yield server


@contextlib.contextmanager
def portkey(folder: Path, upstream: str) -> Iterator[Server]:
    """From npm. Told where the provider is by each request's headers, which it needs to be right about loopback."""
    program = FOLDER / "portkey" / "node_modules" / ".bin" / "gateway"
    if not program.exists():
        if shutil.which("npm") is None:
            raise NotInstalled("Portkey's gateway: there is no npm")
        _install("Portkey's gateway", ["npm", "install", "--silent", "--prefix", str(FOLDER / "portkey"), PORTKEY])
    port = free_port()
    environment = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    command = [str(program), f"--port={port}", "--headless"]
    with running("portkey", command, port, log=folder / "portkey.log", environment=environment) as server:
        yield server


@contextlib.contextmanager
def litellm(folder: Path, upstream: str) -> Iterator[Server]:
    """From PyPI, one worker, no database."""
    home = FOLDER / "litellm"
    program = home / "bin" / "litellm"
    if not program.exists():
        _install("LiteLLM proxy", [sys.executable, "-m", "venv", str(home)])
        _install("LiteLLM proxy", [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", LITELLM])
    port, config = free_port(), folder / "litellm.yaml"
    config.write_text(
        f"""model_list:
  - model_name: {MODEL}
    litellm_params: {{model: openai/{MODEL}, api_base: "{upstream}/v1", api_key: upstream}}
    model_info: {{mode: image_generation}}
litellm_settings: {{num_retries: 0, request_timeout: 300}}
general_settings: {{master_key: {KEY}}}
"""
    )
    # fmt: off
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1",
               "--telemetry", "False"]
    # fmt: on
    # Its table of prices comes with the package; without this word it would be fetched.
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with running("litellm", command, port, log=folder / "litellm.log", environment=environment) as server:
        yield server


PEERS: Final = (nginx, portkey, litellm)


def _install(name: str, command: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotInstalled(f"{name}: {done.stderr.strip()[-300:]}")
