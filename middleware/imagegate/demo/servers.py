"""The gateway and the local providers, each under a real server on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Final

from starlette.applications import Starlette

from imagegate.config.loader import load_config
from imagegate.demo.providers import comfyui, gemini, onetoken, toapis, tokenbay, tokenlab, tokmodel
from imagegate.demo.workflows import OPTIONS, write_workflows
from imagegate.server.guard import Guard
from imagegate.server.in_thread import serving as serving
from imagegate.standalone import Standalone

PROVIDERS: Final = {
    "tokmodel": tokmodel.create_app,
    "tokenbay": tokenbay.create_app,
    "tokenlab": tokenlab.create_app,
    "toapis": toapis.create_app,
    "onetoken": onetoken.create_app,
    "gemini": gemini.create_app,
    "comfyui": comfyui.create_app,
}
_OPTIONS: Final = {"comfyui": OPTIONS}


@contextlib.contextmanager
def local_providers(*, task_seconds: float = 0.3) -> Generator[tuple[Mapping[str, Starlette], Mapping[str, int]]]:
    """Return all providers: their applications, which keep what they received, and their ports."""
    with contextlib.ExitStack() as stack:
        apps = {name: create_app(task_seconds=task_seconds) for name, create_app in PROVIDERS.items()}
        yield apps, {name: stack.enter_context(serving(app)) for name, app in apps.items()}


def write_config(path: Path, ports: Mapping[str, int], *, store: Path) -> None:
    """Write the configuration of a gateway for the local providers, as a person would."""
    upstreams = "\n".join(
        f'[[upstreams]]\nname = "{name}"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "sk-demo-{name}"\n'
        f"{_OPTIONS.get(name, '')}"
        for name, port in ports.items()
    )
    routes = '[routes]\n"dall-e-3" = ["tokmodel/openai/dall-e-3"]\n'
    delivery = f'[delivery]\nstore = "file://{store.as_posix()}"\n'
    tasks = '[tasks]\npoll_interval = "100ms"\n'
    console = "[console]\nenabled = true\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_workflows(path.parent)
    path.write_text(f"{upstreams}\n{routes}\n{delivery}\n{tasks}\n{console}", "utf-8")


@contextlib.contextmanager
def gateway(config: Path, *, port: int) -> Generator[int]:
    """Run the gateway standalone with a configuration file, and give its port."""
    loaded = load_config(config)
    with serving(Standalone(loaded), port=port, http=Guard(loaded.limits)) as bound:
        yield bound
