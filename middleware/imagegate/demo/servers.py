"""The gateway and the five local providers, each under a real server on this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette

from imagegate.config.loader import load_config
from imagegate.demo.providers import onetoken, toapis, tokenbay, tokenlab, tokmodel
from imagegate.standalone import Standalone

_SECONDS_TO_START: Final = 20.0

PROVIDERS: Final = {
    "tokmodel": tokmodel.create_app,
    "tokenbay": tokenbay.create_app,
    "tokenlab": tokenlab.create_app,
    "toapis": toapis.create_app,
    "onetoken": onetoken.create_app,
}


@contextlib.contextmanager
def serving(app: Any, *, port: int = 0, http: Any = "auto") -> Generator[int]:
    """Runs an ASGI application in a thread of its own and gives its port.

    Args:
        port: to listen on; 0, or one that is taken: any that is free.
        http: uvicorn's protocol.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, http=http, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + _SECONDS_TO_START
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("a local server did not start")
            time.sleep(0.005)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(timeout=10)


@contextlib.contextmanager
def local_providers(*, task_seconds: float = 0.3) -> Generator[tuple[Mapping[str, Starlette], Mapping[str, int]]]:
    """All five providers: their applications, which keep what they received, and their ports."""
    with contextlib.ExitStack() as stack:
        apps = {name: create_app(task_seconds=task_seconds) for name, create_app in PROVIDERS.items()}
        yield apps, {name: stack.enter_context(serving(app)) for name, app in apps.items()}


def write_config(path: Path, ports: Mapping[str, int], *, store: Path) -> None:
    """The configuration of a gateway for the local providers, as a person would write it."""
    upstreams = "\n".join(
        f'[[upstreams]]\nname = "{name}"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "sk-demo-{name}"\n'
        for name, port in ports.items()
    )
    routes = '[routes]\n"dall-e-3" = ["tokmodel/openai/dall-e-3"]\n'
    delivery = f'[delivery]\nstore = "file://{store.as_posix()}"\n'
    tasks = '[tasks]\npoll_interval = "100ms"\n'
    console = "[console]\nenabled = true\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{upstreams}\n{routes}\n{delivery}\n{tasks}\n{console}", "utf-8")


@contextlib.contextmanager
def gateway(config: Path, *, port: int) -> Generator[int]:
    """The gateway with a configuration file, as it stands alone: its port."""
    with serving(Standalone(load_config(config)), port=port) as bound:
        yield bound
