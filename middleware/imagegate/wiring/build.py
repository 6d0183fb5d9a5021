"""The services of a gateway, from its configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from starlette.types import Scope

from imagegate.access.authenticator import Authenticator
from imagegate.access.host import PrincipalSource
from imagegate.asgi.browser_guard import BrowserGuard
from imagegate.config.loaded import LoadedConfig
from imagegate.config.model_contracts import base_url_of, warnings_of
from imagegate.config.network import Clients
from imagegate.config.schema import Config
from imagegate.delivery.images_endpoint import PictureService
from imagegate.logger import get_logger
from imagegate.moderation.inspector import Inspector
from imagegate.protocol.base_urls import read_base_url
from imagegate.routing.catalog import Catalog
from imagegate.spool.memory import Memory, Share
from imagegate.telemetry.capture import Capture
from imagegate.telemetry.console import IN_FLIGHT, Console, LoadPicture, refuse_console
from imagegate.telemetry.hooks import Hook, Hooks
from imagegate.telemetry.log import LogHook
from imagegate.telemetry.metric_labels import Names
from imagegate.telemetry.progress import cost_of
from imagegate.wiring.access import authenticator_of, browser_guard, moderator_of
from imagegate.wiring.lasting import lasting_services
from imagegate.wiring.services import Services
from imagegate.wiring.upstreams import limiter_of

if TYPE_CHECKING:
    from imagegate.http import Transport


def build(
    loaded: LoadedConfig,
    *,
    hooks: Sequence[Hook] | None = None,
    transport: Transport | None = None,
    access: PrincipalSource | None = None,
    moderation: object | None = None,
    alone: bool = False,
    mounted: bool = False,
    replaced: Services | None = None,
) -> Services:
    """Return the services of a gateway; nothing is connected to yet, and no file is read that `loaded` has.

    Args:
        hooks: are notified of every exchange; None: one log line each.
        transport: sends the requests to upstreams; None: connections of the gateway's own.
        access: returns who a request is from; None: the function that the configuration names, if any.
        moderation: has hooks; None: those that the configuration names, if any.
        alone: no application is served but the gateway, so that with keys the console is on by default.
        mounted: an application is mounted behind the gateway.
        replaced: of the configuration before, whose stores, room and counts go on.

    Raises:
        ConfigError: the configuration cannot be used.
    """

    def note_surplus(upstream: str) -> None:
        get_logger().warning("upstream sent a reply before the request: connections are not reused", upstream=upstream)
        all_hooks.surplus_received(upstream)

    config, contracts, prices = loaded.config, loaded.contracts, loaded.prices
    lasting = lasting_services(config) if replaced is None else replaced.lasting
    clients = Clients(config, transport=transport, on_surplus=note_surplus, foreign=lasting.foreign)
    catalog = Catalog(contracts, config.routes)
    images = PictureService(
        config.delivery,
        client=lasting.foreign,
        budget=lasting.budget,
        max_image=config.limits.image,
        origins={base_url_of(upstream): clients.plain(upstream.name) for upstream in config.upstreams},
        store=lasting.store,
    )
    authenticator = authenticator_of(config, access)
    moderator = moderator_of(config, moderation)
    inspector = Inspector(moderator, images.fetcher) if moderator is not None and moderator.looks_after else None
    has_source = access is not None or bool(config.access.callable)
    guard = browser_guard(config, mounted=mounted, has_source=has_source)
    has_console = alone if config.console.enabled is None else config.console.enabled
    is_open = authenticator is not None if config.console.enabled is None else config.console.enabled
    console = None
    if has_console and is_open:
        console = replaced.console if replaced is not None else None
        console = console or _console(config, images, guard, lasting.memory, authenticator)
    capture: Callable[[], Capture] | None = console.capture if console else None
    if capture is None and (config.log.prompts or config.log.links):
        capture = partial(Capture, room=Share(lasting.memory, IN_FLIGHT))
    own_hooks = (LogHook(config.log),) if hooks is None else tuple(hooks)
    all_hooks = Hooks(
        own_hooks if console is None else (*own_hooks, console),
        routes=config.routes,
        cost=partial(cost_of, prices=prices),
        currency=config.prices.currency,
    )
    all_hooks.configured(Names.of(config, contracts))
    if replaced is None:
        images.store.health.listen(all_hooks.store_changed)
        all_hooks.memory_watched(lambda: lasting.memory.held)
    limiters = {upstream.name: limiter_of(config, upstream, all_hooks, replaced) for upstream in config.upstreams}
    for name, limiter in limiters.items():
        if limiter.state != "closed":
            all_hooks.breaker_changed(name, limiter.state)
    services = Services(
        config=config,
        lasting=lasting,
        clients=clients,
        catalog=catalog,
        images=images,
        moderator=moderator,
        inspector=inspector,
        access=authenticator,
        has_source=has_source,
        guard=guard,
        console=console,
        console_app=console or (refuse_console if has_console else None),
        hooks=all_hooks,
        capture=capture,
        limiters=limiters,
        prices=prices,
    )
    for warning in warnings_of(config, contracts, has_access=authenticator is not None):
        get_logger().warning(warning)
    return services


def picture_loader(config: Config, images: PictureService) -> LoadPicture:
    """Return what reads the links of answers for the console."""
    origins = {upstream.name: (read_base_url(base_url_of(upstream)).origin,) for upstream in config.upstreams}

    async def load(link: str, upstream: str, scope: Scope) -> bytes | None:
        return await images.read(link, scope, trusted_origins=origins.get(upstream, ()))

    return load


def _console(
    config: Config, images: PictureService, guard: BrowserGuard | None, memory: Memory, access: Authenticator | None
) -> Console:
    return Console(
        load=picture_loader(config, images),
        access=access,
        operators=config.console.operators,
        exchanges=config.console.exchanges,
        prefix=config.prefix,
        guard=guard,
        room=Share(memory, IN_FLIGHT),
    )
