"""What outlives a request: tasks, kept answers, and where they are kept. Put together from the configuration."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.types import Scope

from imagegate.asgi.background import Background
from imagegate.asgi.browser_guard import BrowserGuard
from imagegate.config.model_contracts import adapter_of, base_url_of
from imagegate.config.network import Clients
from imagegate.config.schema import Config
from imagegate.delivery.converter import ImageConverter
from imagegate.errors import ModelNotFound
from imagegate.http import HTTPClient, Timeouts
from imagegate.http.guarded_fetch import Fetcher
from imagegate.idempotency.base import ReplayStore
from imagegate.idempotency.coalescing import KeyedCalls
from imagegate.idempotency.journal import Journal
from imagegate.idempotency.memory import MemoryReplays
from imagegate.idempotency.redis import RedisReplays
from imagegate.routing.catalog import Catalog
from imagegate.spool.budget import Budget
from imagegate.spool.memory import Memory
from imagegate.stores import Store
from imagegate.stores.blobs import Blobs, FileBlobs
from imagegate.stores.redis_client import RedisClient
from imagegate.stores.secret_file import SECRET_BYTES, kept_secret
from imagegate.stores.sweeping import Sweeper
from imagegate.tasks.base import TaskStore
from imagegate.tasks.ids import TaskIds
from imagegate.tasks.manager import TaskManager
from imagegate.tasks.memory import MemoryTaskStore
from imagegate.tasks.providers import ProviderTasks
from imagegate.tasks.queries import TaskQueries
from imagegate.tasks.redis import RedisTaskStore
from imagegate.tasks.webhooks import Webhooks
from imagegate.telemetry.hooks import Hooks
from imagegate.upstream.account import Account
from imagegate.upstream.credentials import credential_of

_SECRET_FILE: Final = ".task-secret"  # noqa: S105 - a file name
_BLOBS: Final = ".blobs"
_KEYS: Final = ".keys"


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


class Keeping:
    """Tasks and kept answers of one gateway.

    Args:
        background: runs them; to be finished before `aclose`.
        before: of the same gateway in an event loop that has ended; what it held in memory is taken over.

    Raises:
        ConfigError: a store needs a package that is not installed.
    """

    def __init__(
        self,
        config: Config,
        *,
        store: Store,
        client: HTTPClient,
        accounts: Mapping[str, Account],
        delivery: ImageConverter,
        fetcher: Fetcher,
        budget: Budget,
        memory: Memory,
        background: Background,
        hooks: Hooks,
        public_url: Callable[[Scope], str],
        catalog: Catalog,
        before: Keeping | None = None,
    ) -> None:
        tasks, idempotency = config.tasks, config.idempotency
        self._blobs: Blobs = _blobs(config) if before is None else before._blobs
        self._ids: TaskIds = TaskIds(_task_secret(config), ttl=tasks.ttl) if before is None else before._ids
        ids = self._ids
        task_store: TaskStore | None = None if before is None or before.desk.store.is_shared else before.desk.store
        self.desk: TaskManager = TaskManager(
            store=task_store or _task_store(config, partial(hooks.record_unreadable, "task")),
            ids=ids,
            providers=ProviderTasks(accounts, delivery, ids, memory),
            webhooks=Webhooks(fetcher, secret=tasks.callback_secret, attempts=tasks.callback_attempts),
            blobs=self._blobs,
            budget=budget,
            background=background,
            hooks=hooks,
            in_flight=tasks.in_flight,
            lease=tasks.lease,
            retry_after=tasks.poll_interval,
            needs_client_key=partial(_needs_client_key, catalog, accounts),
            public_url=public_url,
            prefix=config.prefix,
        )
        self.queries = TaskQueries(self.desk, retry_after=tasks.poll_interval, public_url=public_url)
        if (address := idempotency.store or tasks.store) != "memory://":
            self._replays: ReplayStore = RedisReplays(
                RedisClient(address), lease=tasks.lease, on_unreadable=partial(hooks.record_unreadable, "reply")
            )
        elif before is not None:
            self._replays = before._replays
        else:
            self._replays = MemoryReplays(self._blobs, max_bytes=idempotency.max_bytes, journal=_journal(config))
        self._sweeper = Sweeper((store.sweep, self._blobs.sweep))
        self.calls = KeyedCalls(self._replays, self._blobs, background, lease=tasks.lease)

    def start(self) -> None:
        """Begin what is done without a request; call where an event loop runs."""
        self.desk.start()
        self.calls.start()
        self._sweeper.start()

    async def aclose(self) -> None:
        """To be called when nothing runs in the background any more."""
        await self._sweeper.aclose()
        await self.calls.aclose()
        await self.desk.aclose()
        await self._blobs.aclose()


def _needs_client_key(catalog: Catalog, accounts: Mapping[str, Account], model: str) -> bool:
    """Return whether no candidate for a public model has a key of its own."""
    try:
        return not any(accounts[target.upstream].has_key for target in catalog.resolve(model))
    except ModelNotFound:
        return False  # nothing will be sent


def browser_guard(config: Config, *, mounted: bool) -> BrowserGuard:
    """Return what keeps web pages from elsewhere out, as the configuration says.

    Args:
        mounted: whether an application stands behind the gateway.
    """
    return BrowserGuard(
        keyed=bool(config.access.keys),
        mounted=mounted,
        origins=config.access.allowed_origins,
        hosts=config.access.allowed_hosts,
        own_host=urlsplit(config.delivery.public_url).hostname or "",
    )


def _task_store(config: Config, on_unreadable: Callable[[str], None]) -> TaskStore:
    tasks = config.tasks
    if tasks.store == "memory://":
        return MemoryTaskStore(ttl=tasks.ttl)
    return RedisTaskStore(RedisClient(tasks.store), ttl=tasks.ttl, lease=tasks.lease, on_unreadable=on_unreadable)


def _blobs(config: Config) -> Blobs:
    """Beside the pictures, in a place of their own; without a shared store in a directory of this process."""
    scheme, _, rest = config.delivery.store.partition("://")
    ttl = max(config.tasks.ttl, config.idempotency.ttl)
    if scheme == "memory":
        return FileBlobs(None, ttl=ttl)
    if scheme == "file":
        return FileBlobs(Path(rest) / _BLOBS, ttl=ttl)
    from imagegate.config.cloud_store import open_private_blobs  # needs an extra

    return open_private_blobs(config.delivery, ttl=ttl)


def _journal(config: Config) -> Journal | None:
    """Marks of what was sent, beside the pictures of a directory; elsewhere there is no place for them."""
    scheme, _, rest = config.delivery.store.partition("://")
    if scheme != "file":
        return None
    idempotency = config.idempotency
    return Journal(Path(rest) / _KEYS, ttl=max(idempotency.ttl, idempotency.derive_window))


def _task_secret(config: Config) -> Callable[[], bytes]:
    """What signs ids: as configured, made from the links' secret, kept in the store's directory, or of this process."""
    if config.tasks.secret:
        return config.tasks.secret.encode
    if config.delivery.link_secret:
        return lambda: hmac.digest(config.delivery.link_secret.encode(), b"imagegate tasks", hashlib.sha256)
    scheme, _, rest = config.delivery.store.partition("://")
    if scheme == "file":
        return lambda: kept_secret(Path(rest) / _SECRET_FILE)
    return lambda: secrets.token_bytes(SECRET_BYTES)
