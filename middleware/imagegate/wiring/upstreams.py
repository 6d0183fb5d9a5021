"""Accounts of upstreams, and their limits."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from imagegate.config.model_contracts import adapter_of, base_url_of
from imagegate.config.network import Clients
from imagegate.config.schema import Config, UpstreamConfig
from imagegate.errors import ModelNotFound
from imagegate.http import Timeouts
from imagegate.routing.catalog import Catalog
from imagegate.routing.circuit_breaker import Breaker
from imagegate.routing.limiter import UpstreamLimiter
from imagegate.routing.shared_limits import SharedLimits
from imagegate.stores.redis_client import RedisClient
from imagegate.telemetry.hooks import Hooks
from imagegate.upstream.account import Account
from imagegate.upstream.credentials import credential_of
from imagegate.wiring.services import Services


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


def share_limits(services: Services, limits: SharedLimits | None = None) -> SharedLimits | None:
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


def limiter_of(config: Config, upstream: UpstreamConfig, hooks: Hooks, replaced: Services | None) -> UpstreamLimiter:
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


def needs_client_key(catalog: Catalog, accounts: Mapping[str, Account], model: str) -> bool:
    """Return whether no candidate for a public model has a key of its own."""
    try:
        return not any(accounts[target.upstream].has_key for target in catalog.resolve(model))
    except ModelNotFound:
        return False  # nothing will be sent
