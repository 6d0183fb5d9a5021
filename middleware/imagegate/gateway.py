"""ImageGateway: the whole stack as one ASGI middleware."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Self

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.azure_paths import AZURE, openai_scope
from imagegate.asgi.background import Background
from imagegate.asgi.helpers import before_shutdown, report_failure, running_loop
from imagegate.asgi.not_found import NotFound, Readiness
from imagegate.asgi.pace import Pace
from imagegate.config.loader import read_config
from imagegate.config.model_contracts import base_url_of, contracts_of, warnings_of
from imagegate.config.network import Clients
from imagegate.config.schema import Config, UpstreamConfig
from imagegate.delivery.images_endpoint import PictureService
from imagegate.delivery.reference_publisher import ReferenceConverter
from imagegate.errors import ConfigError
from imagegate.ingest.form_reader import FormLimits
from imagegate.ingest.request_reader import ReadLimits
from imagegate.layers import (
    Admit,
    Deliver,
    Fit,
    Idempotency,
    Observe,
    Read,
    References,
    Route,
    TaskEndpoints,
    Tasks,
    Upstream,
)
from imagegate.layers.admit import OwnerOf
from imagegate.layers.base import endpoint_of
from imagegate.layers.models import Models
from imagegate.logger import get_logger
from imagegate.routing.catalog import Catalog
from imagegate.routing.circuit_breaker import Breaker
from imagegate.routing.limiter import UpstreamLimiter
from imagegate.routing.retry import RetryPolicy
from imagegate.spool.budget import UPLOADS_SHARE, Budget
from imagegate.spool.memory import Memory, Share
from imagegate.telemetry.capture import Capture
from imagegate.telemetry.console import IN_FLIGHT, Console, is_console_path, refuse_console
from imagegate.telemetry.cost import cost_of
from imagegate.telemetry.hooks import Hook, Hooks
from imagegate.telemetry.log import LogHook
from imagegate.telemetry.metric_labels import Names
from imagegate.wiring import Keeping, accounts_of, browser_guard

if TYPE_CHECKING:
    from imagegate.http import Transport

_KEPT_FILES: Final = 64 * 1024 * 1024
"""Bytes on disk, beside those that uploads hold."""


class ImageGateway:
    """Answers the OpenAI Images API through the configured providers; everything else is the application's.

    ``app.add_middleware(ImageGateway, config="imagegate.toml")`` mounts it in FastAPI or Starlette. It also stands
    alone (`app` left out), and below ``Mount``, whose parent must then run `lifespan` or ``async with gateway``.

    Args:
        app: gets every request that is not for the gateway.
        config: a `Config`, a mapping such as a parsed TOML file, or the path of one, all checked alike; None: providers
            whose ``<NAME>_API_KEY`` is set.
        hooks: told about every exchange; default: one log line each.
        alone: nothing else is served here, so that a gateway with keys has its console where the configuration does
            not say.
        transport: sends the requests to all upstreams in place of the gateway's own connections, over HTTP/2 for
            example; not closed by the gateway. Links that clients and providers name never go through it.
        owner: returns the name of the user whom the host application knows a request to be of, from the ASGI scope, or
            awaits it; None for no user. Tasks, idempotency keys and stored images then belong to that user, not to the
            ``Authorization`` header, which may be refreshed; records and log lines have the name as `user`.
        grace: seconds, from `drain` on, in which what the gateway runs by itself may end.

    Raises:
        ConfigError: the configuration cannot be used. In front of an application this is told at its start-up instead,
            because servers take an exception there for a missing lifespan and start all the same.
    """

    def __init__(
        self,
        app: ASGIApp | None = None,
        *,
        config: Config | Mapping[str, Any] | str | PathLike[str] | None = None,
        hooks: Sequence[Hook] | None = None,
        alone: bool = False,
        transport: Transport | None = None,
        owner: OwnerOf | None = None,
        grace: float = 60.0,
    ) -> None:
        self.app: ASGIApp = NotFound(self.readiness) if app is None else app
        self._grace = grace
        self._owner = owner
        self._drained_from: float | None = None
        self._is_started = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.background = Background()
        self._keeping: Keeping | None = None
        self._failure: ConfigError | None = None
        self._transport = transport
        try:
            self._set_up(read_config(config), hooks, alone=alone)
        except ConfigError as error:
            if app is None:
                raise
            self._failure = error

    def _set_up(self, config: Config, hooks: Sequence[Hook] | None, *, alone: bool) -> None:
        self.config = config
        self._clients = Clients(config, transport=self._transport, on_surplus=self._note_surplus)
        contracts = contracts_of(config)
        self.catalog = Catalog(contracts, config.routes)
        self._memory = Memory(config.limits.memory)
        self._budget = Budget(
            total=config.limits.spool,
            memory=config.limits.spool_memory,
            kept=_KEPT_FILES,
            uploads=UPLOADS_SHARE,
            shared=self._memory,
        )
        self._pictures = PictureService(
            config.delivery,
            client=self._clients.foreign,
            budget=self._budget,
            max_image=config.limits.image,
            origins={base_url_of(upstream): self._clients.plain(upstream.name) for upstream in config.upstreams},
        )
        hooks = (LogHook(config.log),) if hooks is None else tuple(hooks)
        self.guard = browser_guard(config, mounted=not isinstance(self.app, NotFound))
        is_open = bool(config.access.keys) if config.console.enabled is None else config.console.enabled
        has_console = alone if config.console.enabled is None else config.console.enabled
        self._console = self._new_console() if has_console and is_open else None
        self._console_app: ASGIApp | None = self._console or (refuse_console if has_console else None)
        self._hooks = Hooks(
            hooks if self._console is None else (*hooks, self._console),
            routes=config.routes,
            cost=partial(cost_of, prices=config.prices) if config.prices.models else None,
            currency=config.prices.currency,
        )
        self._hooks.configured(Names.of(config))
        self._pictures.store.health.listen(self._hooks.store_changed)
        memory = self._memory
        self._hooks.memory_watched(lambda: memory.held)
        self._gates = {upstream.name: self._gate(upstream) for upstream in config.upstreams}
        self._stack = self._compose()
        for warning in warnings_of(config, contracts):
            get_logger().warning(warning)

    def _compose(self) -> Observe:
        """The layers, innermost first."""
        config = self.config
        limits, policy, delivery, prefix = config.limits, config.policy, config.delivery, config.prefix
        pictures = self._pictures
        accounts = accounts_of(config, self._clients)
        self._origins = {account.name: (account.origin,) for account in accounts}
        by_name = {account.name: account for account in accounts}
        self._keeping = keeping = Keeping(
            config,
            store=pictures.store,
            client=self._clients.foreign,
            accounts=by_name,
            delivery=pictures.delivery,
            fetcher=pictures.client_fetcher,
            budget=self._budget,
            memory=self._memory,
            background=self.background,
            hooks=self._hooks,
            public_url=pictures.public_url,
            catalog=self.catalog,
            before=self._keeping,
        )
        bridge = ReferenceConverter(
            accounts=by_name,
            delivery=pictures.delivery,
            fetcher=pictures.client_fetcher,
            budget=self._budget,
            public_url=pictures.public_url,
        )
        layer: Any = Upstream(accounts=accounts, prefix=prefix)
        layer = References(layer, prefix=prefix, bridge=bridge)
        layer = Fit(layer, prefix=prefix, policy=policy.fit, tolerance=policy.tolerance)
        layer = Route(
            layer,
            prefix=prefix,
            catalog=self.catalog,
            max_images=limits.images,
            policy=RetryPolicy(
                retries=policy.retries,
                backoff=policy.backoff,
                longest_wait=policy.longest_wait,
                queue_timeout=policy.queue_timeout,
                fall_back_on=frozenset(policy.fall_back_on),
            ),
            keyless=frozenset(account.name for account in accounts if not account.has_key),
            gates=self._gates,
            deadline=policy.deadline,
        )
        layer = Deliver(
            layer,
            prefix=prefix,
            delivery=pictures.delivery,
            public_url=pictures.public_url,
            default=delivery.default,
            heartbeat=delivery.heartbeat,
            stream_heartbeat=delivery.stream_heartbeat,
        )
        layer = Tasks(layer, prefix=prefix, desk=keeping.desk)
        idempotency = config.idempotency
        layer = Idempotency(
            layer,
            prefix=prefix,
            calls=keeping.calls,
            ttl=idempotency.ttl,
            derive=idempotency.derive,
            derive_window=idempotency.derive_window,
            hooks=self._hooks,
            link_base=pictures.link_base,
        )
        read = ReadLimits(
            json_body=limits.json_body,
            prompt=limits.prompt,
            form=FormLimits(form=limits.form, file=limits.file, files=limits.files),
        )
        # Which key a request without one has is known when the whole body is.
        may_stream = None if idempotency.derive else self.catalog.may_stream
        layer = Read(layer, prefix=prefix, limits=read, budget=self._budget, memory=self._memory, may_stream=may_stream)
        layer = Models(layer, prefix=prefix, catalog=self.catalog)
        layer = TaskEndpoints(layer, prefix=prefix, queries=keeping.queries, retry_after=config.tasks.poll_interval)
        layer = Admit(
            layer,
            prefix=prefix,
            keys=config.access.named_keys(),
            json_limit=limits.json_body,
            form_limit=limits.form,
            in_flight=limits.in_flight,
            guard=self.guard,
            owner=self._owner,
            is_draining=lambda: self._drained_from is not None,
            pace=Pace(limits.client_pace, limits.client_stall),
        )
        capture: Callable[[], Capture] | None = self._console.capture if self._console else None
        if capture is None and (config.log.prompts or config.log.links):
            capture = partial(Capture, room=Share(self._memory, IN_FLIGHT))
        return Observe(layer, prefix=prefix, hooks=self._hooks, capture=capture)

    def _new_console(self) -> Console:
        config = self.config
        return Console(
            load=self._load_picture,
            keys=config.access.named_keys(),
            operators=config.console.operators,
            exchanges=config.console.exchanges,
            prefix=config.prefix,
            guard=self.guard,
            room=Share(self._memory, IN_FLIGHT),
        )

    async def _load_picture(self, link: str, upstream: str, scope: Scope) -> bytes | None:
        """A picture of an answer, for the console: from our own store, or from the provider through the guard."""
        return await self._pictures.read(link, scope, trusted_origins=self._origins.get(upstream, ()))

    def _gate(self, upstream: UpstreamConfig) -> UpstreamLimiter:
        policy = self.config.policy
        return UpstreamLimiter(
            Breaker(failures=policy.breaker_failures, pause=policy.breaker_pause),
            max_in_flight=upstream.max_in_flight,
            requests_per_minute=upstream.requests_per_minute,
            changed=partial(self._hooks.breaker_changed, upstream.name),
        )

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
            if endpoint := endpoint_of(scope, self.config.prefix):
                await self._stack.observe(endpoint, scope, receive, send)
                return
            if self._pictures.serves(scope):
                await self._pictures.serve(scope, receive, send)
                return
            if self._console_app is not None and is_console_path(scope):
                await self._console_app(scope, receive, send)
                return
        elif scope["type"] == "lifespan":
            send = before_shutdown(send, self.aclose)
        await self.app(scope, receive, send)

    def _enter_loop(self) -> None:
        """Belong to the running event loop, to which locks, tasks and connections are bound.

        A loop that has ended is succeeded by the next one, as test clients have one for each request.

        Raises:
            RuntimeError: another loop, in which the gateway is used, still runs; or the running one is not asyncio's.
        """
        loop = running_loop()
        if loop is self._loop:
            return
        if self._loop is not None:
            if self._loop.is_running():
                raise RuntimeError(
                    "This ImageGateway is in use in another event loop, which still runs. Make one for each loop."
                )
            self.background = Background()
            self._is_started = False
            for gate in self._gates.values():
                gate.enter_loop()
            if self._console is not None:
                self._console.enter_loop()
            self._stack = self._compose()
        self._loop = loop

    def _start(self) -> None:
        """Begin what a gateway does by itself: at its application's start-up, or with its first request of any kind."""
        if self._failure is None and self._keeping is not None and not self.is_draining:
            self._is_started = True
            self._keeping.start()
            self._pictures.store.health.start()

    def _note_surplus(self, upstream: str) -> None:
        get_logger().warning("upstream sent a reply before the request: connections are not reused", upstream=upstream)
        self._hooks.surplus_received(upstream)

    def drain(self) -> None:
        """No new work from now on: it is answered 503. What runs goes on, until `aclose` ends it."""
        if self._drained_from is None:
            self._drained_from = time.monotonic()

    async def readiness(self) -> Readiness:
        """Return what ``/readyz`` answers: whether the gateway can do its work. A bucket is probed the first time."""
        health = self._pictures.store.health
        await health.look()
        status = "ready" if health.state == "usable" else f"store {health.state}"
        status = "draining" if self.is_draining else status
        return {"status": status, "store": health.state}

    @property
    def is_draining(self) -> bool:
        return self._drained_from is not None

    async def aclose(self) -> None:
        """Waits for what the gateway runs by itself, then closes the connections to providers.

        The application's lifespan does it where there is one.
        """
        if self._failure is None:
            self._enter_loop()
        self.drain()
        spent = time.monotonic() - (self._drained_from or 0.0)
        if cancelled := await self.background.finish(self._grace - spent):
            get_logger().warning("work was cut short by the end of the gateway", count=cancelled)
        if self._failure is None and self._keeping is not None:
            await self._keeping.aclose()
            await self._clients.aclose()
            await self._pictures.aclose()
        self._is_started = False
        self._drained_from = None  # an application may be started again

    async def __aenter__(self) -> Self:
        if self._failure is None:
            self._enter_loop()
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncGenerator[None]:
        """For the lifespan of an application that mounts the gateway: ``Starlette(lifespan=gateway.lifespan)``."""
        async with self:
            yield
