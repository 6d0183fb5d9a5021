"""The layers of a gateway, on its services."""

from __future__ import annotations

from typing import Any

from imagegate.asgi.in_flight import Pace, Permits
from imagegate.ingest.form_reader import FormLimits
from imagegate.ingest.request_reader import ReadLimits
from imagegate.layers import (
    Admit,
    Convert,
    Deliver,
    Fit,
    Idempotency,
    Moderate,
    Observe,
    Read,
    References,
    Route,
    Spend,
    TaskEndpoints,
    Tasks,
    Upstream,
    Usage,
)
from imagegate.layers.admit import OwnerOf
from imagegate.layers.models import Models
from imagegate.layers.rename import Rename
from imagegate.routing.retry import RetryPolicy
from imagegate.wiring.services import LoopServices, Services


def stack_of(services: Services, own: LoopServices, *, owner: OwnerOf | None, permits: Permits) -> Observe:
    """Compose the layers, innermost first, and return the outermost.

    Args:
        own: services of the event loop that runs them.
        owner: names the users of the host application.
        permits: of concurrent requests.
    """
    config, images = services.config, services.images
    limits, policy, delivery, prefix = config.limits, config.policy, config.delivery, config.prefix
    accounts = tuple(own.accounts.values())
    layer: Any = Upstream(accounts=accounts, prefix=prefix)
    layer = References(layer, prefix=prefix, converter=own.references)
    layer = Fit(layer, prefix=prefix, policy=policy.fit, tolerance=policy.tolerance)
    layer = Route(
        layer,
        prefix=prefix,
        catalog=services.catalog,
        max_images=limits.images,
        policy=RetryPolicy(
            retries=policy.retries,
            backoff=policy.backoff,
            longest_wait=policy.longest_wait,
            queue_timeout=policy.queue_timeout,
            fall_back_on=frozenset(policy.fall_back_on),
        ),
        keyless=frozenset(account.name for account in accounts if not account.has_key),
        limiters=services.limiters,
        deadline=policy.deadline,
    )
    if policy.exact_size != "off" or policy.exact_format:
        layer = Convert(
            layer, prefix=prefix, delivery=images.delivery, size=policy.exact_size, formats=policy.exact_format
        )
    layer = Deliver(
        layer,
        prefix=prefix,
        delivery=images.delivery,
        public_url=images.public_url,
        default=delivery.default,
        heartbeat=delivery.heartbeat,
        stream_heartbeat=delivery.stream_heartbeat,
        inspector=services.inspector,
    )
    if own.spending is not None:
        layer = Spend(layer, prefix=prefix, spending=own.spending, background=own.background)
    looks_before = services.moderator is not None and services.moderator.looks_before
    if services.moderator is not None and looks_before:
        layer = Moderate(layer, prefix=prefix, moderator=services.moderator, fetcher=images.client_fetcher)
    layer = Tasks(layer, prefix=prefix, creation=own.tasks.creation, runner=own.tasks.runner)
    layer = Idempotency(
        layer,
        prefix=prefix,
        calls=own.calls,
        ttl=config.idempotency.ttl,
        derive=config.idempotency.derive,
        derive_window=config.idempotency.derive_window,
        hooks=services.hooks,
        link_base=images.link_base,
    )
    if policy.fit != "pass":
        layer = Rename(layer, prefix=prefix, n_member=services.catalog.n_member)
    layer = Read(
        layer,
        prefix=prefix,
        limits=ReadLimits(
            json_body=limits.json_body,
            prompt=limits.prompt,
            form=FormLimits(form=limits.form, file=limits.file, files=limits.files),
        ),
        budget=services.lasting.budget,
        memory=services.lasting.memory,
        # A key derived from the request is known when the whole body is, and a hook sees all of it.
        may_stream=None if config.idempotency.derive or looks_before else services.catalog.may_stream,
        find_model=services.catalog.resolve_for,
    )
    layer = Models(layer, prefix=prefix, catalog=services.catalog)
    if own.spending is not None:
        layer = Usage(layer, prefix=prefix, spending=own.spending, currency=config.prices.currency)
    layer = TaskEndpoints(layer, prefix=prefix, queries=own.tasks.queries, retry_after=config.tasks.poll_interval)
    layer = Admit(
        layer,
        prefix=prefix,
        access=services.access,
        json_limit=limits.json_body,
        form_limit=limits.form,
        in_flight=limits.in_flight,
        guard=services.guard,
        owner=owner,
        pace=Pace(limits.client_pace, limits.client_stall),
        permits=permits,
    )
    return Observe(layer, prefix=prefix, hooks=services.hooks, capture=services.capture)
