"""The services of one event loop."""

from __future__ import annotations

from functools import partial

from imagegate.asgi.background import Background
from imagegate.delivery.reference_publisher import ReferenceConverter
from imagegate.idempotency.base import ReplayStore
from imagegate.idempotency.coalescing import KeyedCalls
from imagegate.idempotency.factory import open_replay_store
from imagegate.idempotency.memory import MemoryReplays
from imagegate.spending.factory import is_needed, open_spending
from imagegate.spending.service import Spending
from imagegate.stores.sweeping import Sweeper
from imagegate.wiring.services import LoopServices, Services
from imagegate.wiring.tasks import tasks_of
from imagegate.wiring.upstreams import accounts_of, share_limits


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
    config, hooks, images, lasting = services.config, services.hooks, services.images, services.lasting
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
        replays = open_replay_store(config, lasting.blobs, partial(hooks.record_unreadable, "reply"))
    return LoopServices(
        background=background,
        accounts=accounts,
        references=ReferenceConverter(
            accounts=accounts,
            delivery=images.delivery,
            fetcher=images.client_fetcher,
            budget=lasting.budget,
            public_url=images.public_url,
        ),
        tasks=tasks_of(services, accounts, background, spending, before, replaced),
        replays=replays,
        calls=replaced.calls if replaced else KeyedCalls(replays, lasting.blobs, background, lease=config.tasks.lease),
        sweeper=replaced.sweeper if replaced else Sweeper((images.store.sweep, lasting.blobs.sweep)),
        spending=spending,
        shared_limits=share_limits(services, replaced.shared_limits if replaced else None),
    )
