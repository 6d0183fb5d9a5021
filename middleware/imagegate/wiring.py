"""Builds the services that the layers of a gateway share, from its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Scope

from imagegate.access.authenticator import Authenticator
from imagegate.access.host import HostPrincipals, PrincipalSource
from imagegate.access.stored_keys import StoredKeys
from imagegate.asgi.background import Background
from imagegate.asgi.browser_guard import BrowserGuard
from imagegate.config.callables import function_of, object_of
from imagegate.config.model_contracts import adapter_of, base_url_of, contracts_of, warnings_of
from imagegate.config.network import Clients
from imagegate.config.price_table import PriceTable, price_table
from imagegate.config.principals import principals_of
from imagegate.config.schema import Config, UpstreamConfig
from imagegate.config.store_factory import open_blobs
from imagegate.delivery.images_endpoint import PictureService
from imagegate.delivery.reference_publisher import ReferenceConverter
from imagegate.errors import ModelNotFound
from imagegate.http import Timeouts
from imagegate.idempotency.base import ReplayStore
from imagegate.idempotency.coalescing import KeyedCalls
from imagegate.idempotency.factory import open_replay_store
from imagegate.idempotency.memory import MemoryReplays
from imagegate.logger import get_logger
from imagegate.moderation.inspector import Inspector
from imagegate.moderation.moderator import Moderator
from imagegate.protocol.base_urls import read_base_url
from imagegate.routing.catalog import Catalog
from imagegate.routing.circuit_breaker import Breaker
from imagegate.routing.limiter import UpstreamLimiter
from imagegate.routing.shared_limits import SharedLimits
from imagegate.spending.factory import is_needed, open_spending
from imagegate.spending.service import Spending
from imagegate.spool.budget import UPLOADS_SHARE, Budget
from imagegate.spool.memory import Memory, Share
from imagegate.stores.blobs import Blobs
from imagegate.stores.redis_client import RedisClient
from imagegate.stores.sweeping import Sweeper
from imagegate.tasks.creation import TaskCreation
from imagegate.tasks.factory import open_task_store, task_secret
from imagegate.tasks.ids import TaskIds
from imagegate.tasks.manager import TaskManager
from imagegate.tasks.providers import ProviderTasks
from imagegate.tasks.queries import TaskQueries
from imagegate.tasks.runner import TaskRunner
from imagegate.tasks.settlement import settle_task
from imagegate.tasks.take_over import TakeOver
from imagegate.tasks.webhook_queue import WebhookQueue
from imagegate.tasks.webhooks import Webhooks
from imagegate.telemetry.capture import Capture
from imagegate.telemetry.console import IN_FLIGHT, Console, LoadPicture, refuse_console
from imagegate.telemetry.cost import cost_of
from imagegate.telemetry.hooks import Hook, Hooks
from imagegate.telemetry.log import LogHook
from imagegate.telemetry.metric_labels import Names
from imagegate.upstream.account import Account
from imagegate.upstream.credentials import credential_of

if TYPE_CHECKING:
    from imagegate.http import Transport

_KEPT_FILES: Final = 64 * 1024 * 1024
"""Bytes on disk, beside those that uploads hold."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the layers of one gateway share, whichever event loop it runs in."""

    config: Config
    clients: Clients
    catalog: Catalog
    memory: Memory
    budget: Budget
    images: PictureService
    moderator: Moderator | None
    """The application's hooks; None: it has none."""
    inspector: Inspector | None
    """Shows images to one of them; None: there is none for images."""
    access: Authenticator | None
    has_source: bool
    """Whether principals may come from elsewhere than the configuration."""
    """Authenticates requests; None: the gateway is open to every client that reaches it."""
    guard: BrowserGuard
    console: Console | None
    console_app: ASGIApp | None
    """Answers below the path of the console: the console, or a refusal; None: the application behind the gateway."""
    hooks: Hooks
    capture: Callable[[], Capture] | None
    """Makes what records the bodies of an exchange; None: they are not recorded."""
    limiters: Mapping[str, UpstreamLimiter]
    blobs: Blobs
    ids: TaskIds
    prices: PriceTable

    def enter_loop(self, before: LoopServices) -> LoopServices:
        """Return the services for another event loop, which take over what was held in memory."""
        for limiter in self.limiters.values():
            limiter.enter_loop()
        if self.console is not None:
            self.console.enter_loop()
        if self.access is not None:
            self.access.enter_loop()
        return loop_services(self, before)

    async def aclose(self) -> None:
        """Close stores and connections."""
        await self.blobs.aclose()
        await self.clients.aclose()
        await self.images.aclose()
        if self.access is not None:
            self.access.close()


@dataclass(frozen=True, kw_only=True)
class LoopServices:
    """Services whose locks, tasks and connections belong to one event loop."""

    background: Background
    accounts: Mapping[str, Account]
    references: ReferenceConverter
    tasks: TaskManager
    replays: ReplayStore
    calls: KeyedCalls
    sweeper: Sweeper
    shared_limits: SharedLimits | None
    """Of upstreams, in Redis; None: they are this process's own."""
    spending: Spending | None
    """Limits and budgets; None: nothing can have any."""

    def start(self) -> None:
        """Start what runs without a request. Requires a running event loop."""
        self.tasks.start()
        self.calls.start()
        self.sweeper.start()
        if self.spending is not None:
            self.spending.start()
        if self.shared_limits is not None:
            self.shared_limits.start()

    async def aclose(self) -> None:
        """Close them, after `background` has finished."""
        await self.sweeper.aclose()
        await self.calls.aclose()
        await self.tasks.aclose()
        if self.spending is not None:
            await self.spending.aclose()
        if self.shared_limits is not None:
            await self.shared_limits.aclose()


def build(
    config: Config,
    *,
    hooks: Sequence[Hook] | None = None,
    transport: Transport | None = None,
    access: PrincipalSource | None = None,
    moderation: object | None = None,
    alone: bool = False,
    mounted: bool = False,
    replaced: Services | None = None,
) -> Services:
    """Return the services of a gateway; nothing is connected to yet.

    Args:
        hooks: are notified of every exchange; None: one log line each.
        transport: sends the requests to upstreams; None: connections of the gateway's own.
        access: returns who a request is from; None: the function that the configuration names, if any.
        moderation: has hooks; None: those that the configuration names, if any.
        alone: no application is served but the gateway, so that with keys the console is on by default.
        mounted: an application stands behind the gateway.
        replaced: of the configuration before, whose stores, room and counts go on.

    Raises:
        ConfigError: the configuration cannot be used.
    """

    def note_surplus(upstream: str) -> None:
        get_logger().warning("upstream sent a reply before the request: connections are not reused", upstream=upstream)
        all_hooks.surplus_received(upstream)

    clients = Clients(
        config, transport=transport, on_surplus=note_surplus, before=replaced.clients if replaced else None
    )
    contracts = contracts_of(config)
    catalog = Catalog(contracts, config.routes)
    prices = price_table(config)
    memory = replaced.memory if replaced else Memory(config.limits.memory)
    budget = (
        replaced.budget
        if replaced
        else Budget(
            total=config.limits.spool,
            memory=config.limits.spool_memory,
            kept=_KEPT_FILES,
            uploads=UPLOADS_SHARE,
            shared=memory,
        )
    )
    images = PictureService(
        config.delivery,
        client=clients.foreign,
        budget=budget,
        max_image=config.limits.image,
        origins={base_url_of(upstream): clients.plain(upstream.name) for upstream in config.upstreams},
        store=replaced.images.store if replaced else None,
    )
    authenticator = _authenticator(config, access)
    moderator = _moderator(config, moderation)
    inspector = Inspector(moderator, images.fetcher) if moderator is not None and moderator.looks_after else None
    has_source = access is not None or bool(config.access.callable)
    guard = browser_guard(config, mounted=mounted, has_source=has_source)
    has_console = alone if config.console.enabled is None else config.console.enabled
    is_open = authenticator is not None if config.console.enabled is None else config.console.enabled
    console = None
    if has_console and is_open:
        console = replaced.console if replaced is not None else None
        console = console or _console(config, images, guard, memory, authenticator)
    capture: Callable[[], Capture] | None = console.capture if console else None
    if capture is None and (config.log.prompts or config.log.links):
        capture = partial(Capture, room=Share(memory, IN_FLIGHT))
    own_hooks = (LogHook(config.log),) if hooks is None else tuple(hooks)
    all_hooks = Hooks(
        own_hooks if console is None else (*own_hooks, console),
        routes=config.routes,
        cost=partial(cost_of, prices=prices),
        currency=config.prices.currency,
    )
    all_hooks.configured(Names.of(config))
    if replaced is None:
        images.store.health.listen(all_hooks.store_changed)
        all_hooks.memory_watched(lambda: memory.held)
    limiters = {upstream.name: _limiter(config, upstream, all_hooks, replaced) for upstream in config.upstreams}
    for name, limiter in limiters.items():
        if limiter.state != "closed":
            all_hooks.breaker_changed(name, limiter.state)
    services = Services(
        config=config,
        clients=clients,
        catalog=catalog,
        memory=memory,
        budget=budget,
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
        blobs=replaced.blobs if replaced else open_blobs(config),
        ids=replaced.ids if replaced else TaskIds(task_secret(config), ttl=config.tasks.ttl),
        prices=prices,
    )
    for warning in warnings_of(config, contracts, has_access=authenticator is not None):
        get_logger().warning(warning)
    return services


def loop_services(
    services: Services, before: LoopServices | None = None, replaced: LoopServices | None = None
) -> LoopServices:
    """Return the services for one event loop.

    Args:
        before: those of the same gateway in an event loop that has ended; what they hold in memory is kept.
        replaced: those of the configuration before in this event loop, whose stores, tasks and calls go on.

    Raises:
        ConfigError: a store needs a package that is not installed.
    """
    config, hooks, images = services.config, services.hooks, services.images
    background = Background()
    accounts = {account.name: account for account in accounts_of(config, services.clients)}
    spending: Spending | None = None
    counted = replaced.spending if replaced is not None else None
    if counted is not None or is_needed(config, has_source=services.has_source):
        spending = open_spending(
            config,
            catalog=services.catalog,
            prices=services.prices,
            pays=lambda upstream: accounts[upstream].has_key,
            hooks=hooks,
            before=before.spending if before is not None else None,
            replaced=counted,
        )
        if services.console is not None:
            services.console.figures = partial(spending.month, config.prices.currency)
    if replaced is not None:
        replays: ReplayStore = replaced.replays
    elif before is not None and isinstance(before.replays, MemoryReplays):
        replays = before.replays
    else:
        replays = open_replay_store(config, services.blobs, partial(hooks.record_unreadable, "reply"))
    return LoopServices(
        background=background,
        accounts=accounts,
        references=ReferenceConverter(
            accounts=accounts,
            delivery=images.delivery,
            fetcher=images.client_fetcher,
            budget=services.budget,
            public_url=images.public_url,
        ),
        tasks=_tasks(services, accounts, background, spending, before, replaced),
        replays=replays,
        calls=replaced.calls if replaced else KeyedCalls(replays, services.blobs, background, lease=config.tasks.lease),
        sweeper=replaced.sweeper if replaced else Sweeper((images.store.sweep, services.blobs.sweep)),
        spending=spending,
        shared_limits=_share_limits(services, replaced.shared_limits if replaced else None),
    )


def _tasks(
    services: Services,
    accounts: Mapping[str, Account],
    background: Background,
    spending: Spending | None,
    before: LoopServices | None,
    replaced: LoopServices | None,
) -> TaskManager:
    config, hooks, images, ids = services.config, services.hooks, services.images, services.ids
    tasks = config.tasks
    if replaced is not None:
        store = replaced.tasks.store
    elif before is not None and not before.tasks.store.is_shared:
        store = before.tasks.store
    else:
        store = open_task_store(config, partial(hooks.record_unreadable, "task"))
    providers = ProviderTasks(accounts, images.delivery, ids, services.memory, inspector=services.inspector)
    webhooks = Webhooks(images.client_fetcher, secret=tasks.callback_secret, attempts=tasks.callback_attempts)
    queue = WebhookQueue(store, webhooks, hooks) if replaced is None else replaced.tasks.webhooks
    runner = TaskRunner(
        store=store,
        providers=providers,
        webhooks=queue,
        background=background,
        hooks=hooks,
        on_followed=None if spending is None else partial(settle_task, spending),
        runs=None if replaced is None else replaced.tasks.runner.runs,
    )
    creation = TaskCreation(
        runner,
        store=store,
        ids=ids,
        providers=providers,
        webhooks=webhooks,
        blobs=services.blobs,
        hooks=hooks,
        in_flight=tasks.in_flight,
        retry_after=tasks.poll_interval,
        has_budget=(lambda _: False) if spending is None else spending.has_budget,
        needs_client_key=partial(_needs_client_key, services.catalog, accounts),
        public_url=images.public_url,
        prefix=config.prefix,
    )
    queries = TaskQueries(
        runner,
        store=store,
        ids=ids,
        providers=providers,
        retry_after=tasks.poll_interval,
        public_url=images.public_url,
        prefix=config.prefix,
    )
    take_over = TakeOver(
        runner,
        store=store,
        providers=providers,
        webhooks=queue,
        blobs=services.blobs,
        budget=services.budget,
        lease=tasks.lease,
    )
    return TaskManager(
        store=store, runner=runner, creation=creation, queries=queries, take_over=take_over, webhooks=queue
    )


def accounts_of(config: Config, clients: Clients) -> list[Account]:
    """Return the accounts of all upstreams, each with the client that reaches it."""
    return [
        Account(
            name=upstream.name,
            adapter=adapter_of(upstream),
            base_url=base_url_of(upstream),
            api_key=upstream.api_key,
            credential=credential_of(upstream.credential) if upstream.credential else None,
            timeouts=Timeouts(connect=upstream.connect_timeout, read=upstream.read_timeout),
            poll_interval=config.tasks.poll_interval,
            deadline=config.tasks.deadline,
            reply_limit=config.limits.reply_body,
            client=clients.of(upstream.name),
        )
        for upstream in config.upstreams
    ]


def _authenticator(config: Config, source: PrincipalSource | None) -> Authenticator | None:
    """Return what authenticates requests; None: every client that reaches the gateway may use it."""
    access = config.access
    if source is None and access.callable:
        source = cast("PrincipalSource", function_of(access.callable))
    host = None
    if source is not None:
        host = HostPrincipals(source, timeout=access.timeout, at_once=config.limits.in_flight)
    stored = None
    if access.store:
        from imagegate.access.key_table import KeyTable  # needs an extra

        table = KeyTable.at(access.store)
        stored = StoredKeys(table.look_up, lifetime=access.cache, groups=access.groups, close=table.close)
    found = Authenticator(access.named_keys(), principals_of(access), stored=stored, host=host)
    return found if found else None


def _moderator(config: Config, hooks: object | None) -> Moderator | None:
    """Raise `ConfigError` where there is something that has no hooks."""
    moderation = config.moderation
    if hooks is None and moderation.hooks:
        hooks = object_of(moderation.hooks, "moderation.hooks")
    if hooks is None:
        return None
    if isinstance(hooks, type):
        hooks = hooks()
    fails_open = moderation.on_failure == "allow"
    return Moderator(hooks, timeout=moderation.timeout, fails_open=fails_open, max_prompt=config.limits.prompt)


def browser_guard(config: Config, *, mounted: bool, has_source: bool = False) -> BrowserGuard:
    """Return the guard against requests from web pages of other origins, as configured.

    Args:
        mounted: an application stands behind the gateway.
        has_source: a function says who requests are from, perhaps by cookies, which browsers add.
    """
    return BrowserGuard(
        keyed=bool(config.access.keys or config.access.store) and not has_source,
        mounted=mounted,
        origins=config.access.allowed_origins,
        hosts=config.access.allowed_hosts,
        own_host=urlsplit(config.delivery.public_url).hostname or "",
    )


def picture_loader(config: Config, images: PictureService) -> LoadPicture:
    """Return what reads the links of answers for the console."""
    origins = {upstream.name: (read_base_url(base_url_of(upstream)).origin,) for upstream in config.upstreams}

    async def load(link: str, upstream: str, scope: Scope) -> bytes | None:
        return await images.read(link, scope, trusted_origins=origins.get(upstream, ()))

    return load


def _console(
    config: Config, images: PictureService, guard: BrowserGuard, memory: Memory, access: Authenticator | None
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


def _share_limits(services: Services, limits: SharedLimits | None = None) -> SharedLimits | None:
    """Let the upstreams' limits and breakers be those of all processes, where tasks have a Redis.

    Args:
        limits: that are shared already.
    """
    config, hooks = services.config, services.hooks
    if config.tasks.store == "memory://":
        return None
    if limits is None:
        limits = SharedLimits(RedisClient(config.tasks.store), lease=config.tasks.lease, changed=hooks.breaker_changed)
    for name, limiter in services.limiters.items():
        if not limiter.is_shared:
            limiter.share(limits, name)
    return limits


def _limiter(config: Config, upstream: UpstreamConfig, hooks: Hooks, replaced: Services | None) -> UpstreamLimiter:
    """Return the limiter of an upstream: the one that counts already, where nothing about it has changed."""
    policy = config.policy
    if replaced is not None and upstream.name in replaced.limiters:
        old = next(each for each in replaced.config.upstreams if each.name == upstream.name)
        if _limits_of(old, replaced.config) == _limits_of(upstream, config):
            return replaced.limiters[upstream.name]
    return UpstreamLimiter(
        Breaker(failures=policy.breaker_failures, pause=policy.breaker_pause),
        max_in_flight=upstream.max_in_flight,
        requests_per_minute=upstream.requests_per_minute,
        changed=partial(hooks.breaker_changed, upstream.name),
    )


def _limits_of(upstream: UpstreamConfig, config: Config) -> tuple[object, ...]:
    policy = config.policy
    limits = upstream.max_in_flight, upstream.requests_per_minute
    return base_url_of(upstream), *limits, policy.breaker_failures, policy.breaker_pause


def _needs_client_key(catalog: Catalog, accounts: Mapping[str, Account], model: str) -> bool:
    """Return whether no candidate for a public model has a key of its own."""
    try:
        return not any(accounts[target.upstream].has_key for target in catalog.resolve(model))
    except ModelNotFound:
        return False  # nothing will be sent
