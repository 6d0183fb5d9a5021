"""ImageGateway: the whole stack as one ASGI middleware."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Self

import structlog
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagegate.bridge import Bridge
from imagegate.catalog import Catalog
from imagegate.config import Config, default_config, load_config
from imagegate.delivery import Delivery
from imagegate.errors import ConfigError
from imagegate.events import Hook, Hooks
from imagegate.fetch import Fetcher
from imagegate.forms import FormLimits
from imagegate.http import HTTPClient, Timeouts, Transport
from imagegate.layers import Admit, Deliver, Fit, Observe, Read, References, Route, Upstream
from imagegate.layers.base import endpoint_of
from imagegate.log import LogHook
from imagegate.models import Models
from imagegate.not_found import NotFound
from imagegate.reading import ReadLimits
from imagegate.registry import load_adapter
from imagegate.spool import Budget
from imagegate.stores import ServedStore, open_store
from imagegate.stores.serving import IMAGES_PATH, ServeImages, is_signed_link
from imagegate.upstream import Upstream as Account


class ImageGateway:
    """Answers the OpenAI Images API through the configured providers; everything else is the application's.

    ``app.add_middleware(ImageGateway, config="imagegate.toml")`` mounts it in FastAPI or Starlette. It also stands
    alone (`app` left out), and below ``Mount``, whose parent must then run `lifespan` or ``async with gateway``.

    Args:
        app: gets every request that is not for the gateway.
        config: a `Config`, or the path of a TOML file; None: providers whose ``<NAME>_API_KEY`` is set.
        hooks: told about every exchange; default: one log line each.
        transport: in place of the gateway's own HTTP client, for tests; not closed by the gateway.

    Raises:
        ConfigError: the configuration cannot be used. In front of an application this is told at its start-up instead,
            because servers take an exception there for a missing lifespan and start all the same.
    """

    def __init__(
        self,
        app: ASGIApp | None = None,
        *,
        config: Config | str | PathLike[str] | None = None,
        hooks: Sequence[Hook] | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.app: ASGIApp = NotFound() if app is None else app
        self._failure: ConfigError | None = None
        self._client = HTTPClient(transport=transport)
        try:
            self._set_up(_config(config), hooks)
        except ConfigError as error:
            if app is None:
                raise
            self._failure = error

    def _set_up(self, config: Config, hooks: Sequence[Hook] | None) -> None:
        self.config = config
        self.catalog = Catalog(config.contracts(), config.routes)
        self._store = open_store(config.delivery)
        self._budget = Budget(total=config.limits.spool, memory=config.limits.spool_memory)
        self._hooks = Hooks((LogHook(),) if hooks is None else hooks)
        self._stack: ASGIApp = self._compose()
        for warning in config.warnings():
            structlog.get_logger("imagegate").warning(warning)

    def _compose(self) -> ASGIApp:
        """The layers, innermost first."""
        config = self.config
        limits, policy, delivery, prefix = config.limits, config.policy, config.delivery, config.prefix
        self._images = ServeImages(self._store) if isinstance(self._store, ServedStore) else None
        fetcher = Fetcher(self._client, allow=delivery.fetch_allow, max_bytes=limits.image)
        accounts = self._accounts()
        deliverer = Delivery(self._store, fetcher, self._budget)
        bridge = Bridge(
            accounts={account.name: account for account in accounts},
            client=self._client,
            delivery=deliverer,
            fetcher=fetcher,
            budget=self._budget,
            public_url=self._public_url,
        )
        layer: Any = Upstream(accounts=accounts, client=self._client, prefix=prefix)
        layer = References(layer, prefix=prefix, bridge=bridge)
        layer = Fit(layer, prefix=prefix, policy=policy.fit, tolerance=policy.tolerance)
        layer = Route(layer, prefix=prefix, catalog=self.catalog, max_images=limits.images)
        layer = Deliver(
            layer,
            prefix=prefix,
            delivery=deliverer,
            public_url=self._public_url,
            default=delivery.default,
            heartbeat=delivery.heartbeat,
            stream_heartbeat=delivery.stream_heartbeat,
        )
        read = ReadLimits(
            json_body=limits.json_body,
            prompt=limits.prompt,
            form=FormLimits(form=limits.form, file=limits.file, files=limits.files),
        )
        layer = Read(layer, prefix=prefix, limits=read, budget=self._budget, may_stream=self.catalog.may_stream)
        layer = Models(layer, prefix=prefix, catalog=self.catalog)
        layer = Admit(
            layer,
            prefix=prefix,
            keys=config.access.keys,
            json_limit=limits.json_body,
            form_limit=limits.form,
            in_flight=limits.in_flight,
        )
        return Observe(layer, prefix=prefix, hooks=self._hooks)

    def _accounts(self) -> list[Account]:
        config = self.config
        return [
            Account(
                name=upstream.name,
                adapter=load_adapter(upstream.adapter_name),
                base_url=upstream.origin(),
                api_key=upstream.api_key,
                timeouts=Timeouts(connect=upstream.connect_timeout, read=upstream.read_timeout),
                poll_interval=config.tasks.poll_interval,
                deadline=config.tasks.deadline,
                reply_limit=config.limits.reply_body,
            )
            for upstream in config.upstreams
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._failure is not None:
            if scope["type"] != "lifespan":
                raise self._failure
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"imagegate: {self._failure}"})
            return
        if scope["type"] == "http":
            if endpoint_of(scope, self.config.prefix):
                await self._stack(scope, receive, send)
                return
            if self._images is not None and is_signed_link(scope):
                await self._images(scope, receive, send)
                return
        elif scope["type"] == "lifespan":
            send = self._closing(send)
        await self.app(scope, receive, send)

    def _closing(self, send: Send) -> Send:
        """The application's lifespan is ours too: when it ends, connections are closed before the server knows."""

        async def closing(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self.aclose()
            await send(message)

        return closing

    def _public_url(self, scope: Scope) -> str:
        """Of the store: as configured, else where this request came to."""
        if self.config.delivery.public_url:
            return self.config.delivery.public_url
        connection = HTTPConnection(scope)
        root = scope.get("root_path", "").rstrip("/")
        return f"{connection.url.scheme}://{connection.url.netloc}{root}{IMAGES_PATH}"

    async def aclose(self) -> None:
        """Closes the connections to providers. The application's lifespan does it where there is one."""
        await self._client.aclose()
        if self._failure is None:
            await self._store.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncGenerator[None]:
        """For the lifespan of an application that mounts the gateway: ``Starlette(lifespan=gateway.lifespan)``."""
        async with self:
            yield


def _config(config: Config | str | PathLike[str] | None) -> Config:
    if config is None:
        return default_config()
    return config if isinstance(config, Config) else load_config(Path(config))
