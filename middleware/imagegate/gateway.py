"""ImageGateway: the whole stack as one ASGI middleware."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.access.host import PrincipalSource
from imagegate.asgi.azure_paths import AZURE, openai_scope
from imagegate.asgi.helpers import before_shutdown, report_failure, route_path, running_loop
from imagegate.asgi.in_flight import Permits
from imagegate.asgi.not_found import NotFound, Readiness
from imagegate.config.loaded import LoadedConfig, load
from imagegate.config.reloading import check_reload
from imagegate.config.schema import Config
from imagegate.errors import ConfigError
from imagegate.layers.admit import OwnerOf
from imagegate.layers.base import Endpoint, endpoint_of
from imagegate.logger import get_logger
from imagegate.reloading import Retired, Running
from imagegate.telemetry.console import is_console_path
from imagegate.telemetry.hooks import Hook
from imagegate.wiring import LoopServices, build, loop_services, picture_loader, stack_of

if TYPE_CHECKING:
    from imagegate.http import Transport


class ImageGateway:
    """Serve the OpenAI Images API through the configured providers; pass every other request to the application.

    ``app.add_middleware(ImageGateway, config="imagegate.toml")`` mounts it in FastAPI or Starlette. It also runs
    alone (`app` left out), and below ``Mount``, whose parent must then run `lifespan` or ``async with gateway``.

    Args:
        app: receives every request that is not for the gateway.
        config: a `Config`, a mapping such as a parsed TOML file, or the path of one, all checked alike; None: providers
            whose ``<NAME>_API_KEY`` is set.
        hooks: are notified of every exchange; default: one log line each.
        alone: no application is served here, so that with keys the console is on by default.
        transport: sends the requests to all upstreams in place of the gateway's own connections, over HTTP/2 for
            example; not closed by the gateway. Links that clients and providers name never go through it.
        access: returns the `Principal` of a request, from its ASGI scope, sync or async; None for a stranger, who is
            answered 401. A coroutine function is awaited in the event loop, any other is called in a thread, for
            ``access.timeout`` at most. Tasks, idempotency keys and stored images belong to the principal's `id`.
        moderation: has ``async before(request, principal)``, which may refuse a request or give it another prompt,
            ``async after(images)``, which may withhold what was made, or both (`imagegate.moderation`).
        owner: returns the name of the user to whom the host application attributes a request, from the ASGI scope, sync
            or async; None for no user. Tasks, idempotency keys and stored images then belong to that user, not to the
            ``Authorization`` header, which may be refreshed; records and log lines have the name as `user`.
        grace: seconds, from `drain` on, that background work may take to end.

    Raises:
        ConfigError: the configuration cannot be used. In front of an application this is raised at its start-up
            instead, because servers take an exception in the constructor for a missing lifespan and start all the same.
    """

    def __init__(
        self,
        app: ASGIApp | None = None,
        *,
        config: Config | Mapping[str, Any] | str | PathLike[str] | None = None,
        hooks: Sequence[Hook] | None = None,
        alone: bool = False,
        transport: Transport | None = None,
        access: PrincipalSource | None = None,
        moderation: object | None = None,
        owner: OwnerOf | None = None,
        grace: float = 60.0,
    ) -> None:
        self.app: ASGIApp = NotFound(self.readiness) if app is None else app
        self._grace = grace
        self._owner = owner
        self._drained_from: float | None = None
        self._is_started = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: ConfigError | None = None
        self._permits = Permits(0)
        self._running = Running()
        self.retired: list[Retired] = []
        """Configurations that others have replaced, and under which something still runs."""
        self._build = partial(
            build,
            hooks=hooks,
            transport=transport,
            access=access,
            moderation=moderation,
            alone=alone,
            mounted=app is not None,
        )
        try:
            loaded = load(config)
            self.config = loaded.config
            if access is not None and owner is not None:
                raise ConfigError("access= says who a request is from, so owner= must be left out")
            self.services = self._build(loaded)
            self._permits = Permits(self.config.limits.in_flight)
            self._set_stack(loop_services(self.services))
        except ConfigError as error:
            if app is None:
                raise
            self._failure = error

    def _set_stack(self, own: LoopServices) -> None:
        """Compose the layers on the services of the event loop that runs them."""
        self.loop_services = own
        self._stack = stack_of(self.services, own, owner=self._owner, permits=self._permits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._failure is not None:
            await report_failure(f"imagegate: {self._failure}", scope, receive, send)
            raise ConfigError(str(self._failure))  # anew each time: a traceback grows with every frame it passes
        try:
            self._enter_loop()
        except RuntimeError as error:
            await report_failure(str(error), scope, receive, send)
            raise
        if not self._is_started:
            self._start()
        if scope["type"] == "http":
            if AZURE in scope["path"] and (azure := openai_scope(scope, self.config.prefix)) is not None:
                scope = azure
            if endpoint := endpoint_of(scope, self.config.prefix) or self._usage(scope):
                running = self._running
                running.count += 1
                try:
                    await self._stack.observe(endpoint, scope, receive, send)
                finally:
                    running.count -= 1
                    if running is not self._running:  # another configuration has taken its place
                        running.wake()
                return
            if self.services.images.serves(scope):
                await self.services.images.serve(scope, receive, send)
                return
            if (console := self.services.console_app) is not None and is_console_path(scope):
                await console(scope, receive, send)
                return
        elif scope["type"] == "lifespan":
            send = before_shutdown(send, self.aclose)
        await self.app(scope, receive, send)

    def _usage(self, scope: Scope) -> Endpoint | None:
        is_ours = self.loop_services.spending is not None and scope["method"] == "GET"
        return "usage" if is_ours and route_path(scope) == f"{self.config.prefix}/usage" else None

    @staticmethod
    def load(config: Config | Mapping[str, Any] | str | PathLike[str] | None) -> LoadedConfig:
        """Read a configuration for `reload`, with the files that it names; may be called in a thread.

        Raises:
            ConfigError: the configuration cannot be used.
        """
        return load(config)

    def reload(self, config: LoadedConfig | Config | Mapping[str, Any] | str | PathLike[str] | None) -> None:
        """Answer new requests by another configuration; what runs goes on as it began. Call it in the event loop.

        Files are read in place, unless `load` has read them: ``gateway.reload(await asyncio.to_thread(gateway.load,
        "imagegate.toml"))`` keeps the event loop from waiting for a disk.

        Upstreams, routes, models, policies, keys and limits can change. Tasks, idempotency keys, stored images and
        budgets, and the breakers and limits of upstreams that are as before go on.

        Raises:
            ConfigError: the configuration cannot be used, or differs in what only a restart can change; nothing has
                changed then.
        """
        if self._failure is not None:
            raise ConfigError(str(self._failure))
        self._enter_loop()
        loaded = config if isinstance(config, LoadedConfig) else load(config)
        found = loaded.config
        check_reload(self.config, found)
        services = self._build(loaded, replaced=self.services)
        own = loop_services(services, replaced=self.loop_services)
        if services.console is not None:
            services.console.reconfigure(load=picture_loader(found, services.images), access=services.access)
        self.retired.append(Retired(self.services, self.loop_services, self._running, self.retired.remove))
        self.config, self.services, self._running = found, services, Running()
        own.calls.background = own.background
        self._set_stack(own)
        self._is_started = False
        self._start()

    def _enter_loop(self) -> None:
        """Bind locks, tasks and connections to the running event loop.

        A loop that has ended is succeeded by the next one: test clients have one for each request.

        Raises:
            RuntimeError: another loop that uses the gateway still runs; or the running one is not asyncio's.
        """
        loop = running_loop()
        if loop is self._loop:
            return
        if self._loop is not None:
            if self._loop.is_running():
                raise RuntimeError(
                    "This ImageGateway is in use in another event loop, which still runs. Make one for each loop."
                )
            self._is_started = False
            self.retired.clear()
            self._permits = Permits(self.config.limits.in_flight, is_draining=self.is_draining)
            self.services.enter_loop()
            self._set_stack(loop_services(self.services, self.loop_services))
        self._loop = loop

    def _start(self) -> None:
        """Start background work: at the application's start-up, or with the first request of any kind."""
        if self._failure is None and not self.is_draining:
            self._is_started = True
            self.loop_services.start()
            self.services.images.store.health.start()

    def drain(self) -> None:
        """Answer new requests with 503 from now on. What runs goes on, until `aclose` ends it."""
        if self._drained_from is None:
            self._drained_from = time.monotonic()
            self._permits.is_draining = True

    async def readiness(self) -> Readiness:
        """Return the document of ``/readyz``. A bucket is probed at the first call."""
        health = self.services.images.store.health
        await health.look()
        status = "ready" if health.state == "usable" else f"store {health.state}"
        status = "draining" if self.is_draining else status
        return {"status": status, "store": health.state}

    def openapi(self, *, mount: str = "", metrics: bool = False) -> dict[str, Any]:
        """Return the OpenAPI document of the gateway's endpoints; `imagegate.openapi.merge` adds it to a host's.

        Args:
            mount: path at which the application has mounted the gateway.
            metrics: ``/metrics`` is served in front of it.

        Raises:
            ConfigError: the configuration cannot be used.
        """
        from imagegate.openapi.document import document  # used seldom, and imports much

        if self._failure is not None:
            raise ConfigError(str(self._failure))
        return document(
            self.config,
            mount=mount,
            keyed=self.services.access is not None,
            usage=self.loop_services.spending is not None,
            health=isinstance(self.app, NotFound),
            metrics=metrics,
        )

    @property
    def is_draining(self) -> bool:
        return self._drained_from is not None

    @property
    def _grace_left(self) -> float:
        return self._grace - (time.monotonic() - (self._drained_from or 0.0))

    async def aclose(self) -> None:
        """Wait for background work, then close the connections to providers.

        The application's lifespan calls it where there is one.
        """
        self.drain()
        if self._failure is None:
            self._enter_loop()
            cancelled = 0
            for retired in tuple(self.retired):
                cancelled += await retired.finish(self._grace_left)
            self.retired.clear()
            cancelled += await self.loop_services.background.finish(self._grace_left)
            if cancelled:
                get_logger().warning("shutdown: cancelled background tasks after the grace period", count=cancelled)
            await self.loop_services.aclose()
            await self.services.aclose()
        self._is_started = False
        self._drained_from = None  # an application may be started again
        self._permits.is_draining = False

    async def __aenter__(self) -> Self:
        if self._failure is None:
            self._enter_loop()
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncGenerator[None]:
        """Run with an application that mounts the gateway: ``Starlette(lifespan=gateway.lifespan)``."""
        async with self:
            yield
