"""The gateway's tasks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from imagegate.asgi.background import Background
from imagegate.config.principals import principals_of
from imagegate.spending.service import Spending
from imagegate.tasks.context import TaskContext
from imagegate.tasks.creation import TaskCreation
from imagegate.tasks.factory import open_task_store
from imagegate.tasks.manager import TaskManager
from imagegate.tasks.providers import ProviderTasks
from imagegate.tasks.queries import TaskQueries
from imagegate.tasks.runner import TaskRunner
from imagegate.tasks.settlement import settle_task
from imagegate.tasks.take_over import TakeOver
from imagegate.tasks.webhook_queue import WebhookQueue
from imagegate.tasks.webhooks import Webhooks
from imagegate.upstream.account import Account
from imagegate.wiring.services import LoopServices, Services
from imagegate.wiring.upstreams import needs_client_key


def tasks_of(
    services: Services,
    accounts: Mapping[str, Account],
    background: Background,
    spending: Spending | None,
    before: LoopServices | None,
    replaced: LoopServices | None,
) -> TaskManager:
    config, hooks, images, lasting = services.config, services.hooks, services.images, services.lasting
    principals = principals_of(config.access)
    tasks = config.tasks
    if replaced is not None:
        store = replaced.tasks.store
    elif before is not None and not before.tasks.store.is_shared:
        store = before.tasks.store
    else:
        store = open_task_store(config, partial(hooks.record_unreadable, "task"))
    providers = ProviderTasks(accounts, images.delivery, lasting.ids, lasting.memory, inspector=services.inspector)
    webhooks = Webhooks(images.client_fetcher, secret=tasks.callback_secret, attempts=tasks.callback_attempts)
    queue = WebhookQueue(store, webhooks, hooks) if replaced is None else replaced.tasks.webhooks
    runner = TaskRunner(
        store=store,
        providers=providers,
        webhooks=queue,
        background=background,
        hooks=hooks,
        settle=None if spending is None else partial(settle_task, spending),
        runs=None if replaced is None else replaced.tasks.runner.runs,
    )
    context = TaskContext(
        runner=runner,
        store=store,
        ids=lasting.ids,
        providers=providers,
        retry_after=tasks.poll_interval,
        public_url=images.public_url,
        prefix=config.prefix,
    )
    creation = TaskCreation(
        context,
        webhooks=webhooks,
        blobs=lasting.blobs,
        hooks=hooks,
        in_flight=tasks.in_flight,
        has_budget=(lambda _: False) if spending is None else spending.has_budget,
        knows_keys=lambda principal: principal is not None and principals.get(principal.id) is not None,
        needs_client_key=partial(needs_client_key, services.catalog, accounts),
    )
    take_over = TakeOver(
        runner,
        store=store,
        providers=providers,
        webhooks=queue,
        blobs=lasting.blobs,
        budget=lasting.budget,
        lease=tasks.lease,
        known=principals.get,
    )
    return TaskManager(
        store=store, runner=runner, creation=creation, queries=TaskQueries(context), take_over=take_over, webhooks=queue
    )
