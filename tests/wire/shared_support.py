"""What the tests of gateways that share a Redis have in common."""

from __future__ import annotations

import base64
import contextlib
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from tests.waiting import until
from tests.wire.edit_support import Process, gateway_process
from tests.wire.keeping_support import GENERATIONS, Origin, ended, write_config

from imagegate import ImageGateway
from imagegate.demo.servers import serving

SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


class Both:
    """The counting provider, and as many gateways as a test wants."""

    def __init__(self, folder: Path, origin: Origin, port: int, redis: str, stack: contextlib.ExitStack) -> None:
        self.folder, self.origin, self.port, self.address, self._stack = folder, origin, port, redis, stack
        self._count = 0

    def config(self, lease: str = "1s", more: str = "") -> Path:
        """A configuration file for one more gateway."""
        self._count += 1
        tasks = f'store = "{self.address}"\nlease = "{lease}"\ncallback_secret = "whsec_{SECRET}"\n'
        folder = self.folder / str(self._count)
        return write_config(folder, self.port, store=self.folder / "images", tasks=tasks, more=more)

    def gateway(self, lease: str = "1s", more: str = "") -> tuple[Process, httpx.Client]:
        """One more gateway, a process of its own."""
        process = self._stack.enter_context(gateway_process(self.config(lease, more), IMAGEGATE_GRACE="3"))
        return process, self._stack.enter_context(httpx.Client(base_url=process.url, timeout=30))

    def here(self, lease: str = "1s", more: str = "") -> tuple[ImageGateway, httpx.Client]:
        """The same in a thread of this process."""
        gateway = ImageGateway(config=self.config(lease, more), grace=0.2)
        url = f"http://127.0.0.1:{self._stack.enter_context(serving(gateway))}"
        return gateway, self._stack.enter_context(httpx.Client(base_url=url, timeout=30))


def kill(process: Process) -> None:
    process.process.send_signal(signal.SIGKILL)
    process.process.wait()


def create(client: httpx.Client, body: dict[str, Any], path: str = GENERATIONS) -> str:
    reply = client.post(path, json={**body, "async": True})
    assert reply.status_code == 202, reply.text
    return str(reply.headers["location"])


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Starts it; the result waits for it."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> Any:
        thread.join(timeout=60)
        return found[0]

    return result


def silence(gateway: ImageGateway) -> None:
    """The gateway goes on with its work, but gives no sign of life any more, as one that was suspended."""
    loops = gateway.loop_services.tasks.take_over._loops
    assert loops
    for loop in loops:
        loop.get_loop().call_soon_threadsafe(loop.cancel)
    until(lambda: all(loop.done() for loop in loops), what="silence")


def found(client: httpx.Client, location: str) -> dict[str, Any]:
    """The task's document, once the store knows it again and it is over."""
    until(lambda: client.get(location).status_code == 200, what="the task")
    return ended(client, location)
