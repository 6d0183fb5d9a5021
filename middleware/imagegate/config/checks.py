"""What the types of a configuration cannot say."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from imagegate.access.stored_key import POSTGRES, SQLITE, STORED
from imagegate.asgi.browser_guard import ANY
from imagegate.config.callables import function_of, object_of
from imagegate.config.mistakes import KeyedError, keyed
from imagegate.config.model_contracts import adapter_of, base_url_of, contracts_of_upstream
from imagegate.config.network import check_fetch_proxy, check_network, has_key
from imagegate.config.principals import principals_of
from imagegate.config.routes import address_of
from imagegate.config.schema import (
    AccessConfig,
    Config,
    DeliveryConfig,
    ModerationConfig,
    PolicyConfig,
    PrincipalConfig,
    SpendingConfig,
    UpstreamConfig,
)
from imagegate.contracts.contract import Contract
from imagegate.contracts.documents import ContractError
from imagegate.errors import ConfigError
from imagegate.protocol import prices as price_data
from imagegate.protocol.base_urls import fault_of, read_base_url
from imagegate.protocol.names import did_you_mean
from imagegate.registry import load_adapter
from imagegate.stores.redis_client import is_redis_url

_SHORTEST_LEASE: Final = 0.5
"""Seconds, in a third of which a process can be sure to give a sign of life."""
_SHORTEST_SECRET: Final = 16
CLOUDS: Final = ("s3://", "gs://", "az://")
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9._\[\]:-]+")
_HOST: Final = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:.]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check(config: Config) -> None:
    """Check what types cannot say."""
    if not config.upstreams:
        raise ConfigError("There must be at least one [[upstreams]].")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", config.prefix):
        raise KeyedError(f"prefix: {config.prefix!r} is no path such as '/v1'", ("prefix",))
    check_delivery(config.delivery)
    if not config.policy.tolerance >= 0:
        raise KeyedError("policy.tolerance: must not be negative", ("policy", "tolerance"))
    _check_policy(config.policy)
    for name, value in msgspec.structs.asdict(config.limits).items():
        if not isinstance(value, bool) and value < 1:
            raise KeyedError(f"limits.{name}: must be at least 1", ("limits", name))
    _check_access(config.access)
    _check_upstream_keys(config)
    _check_moderation(config.moderation)
    if config.limits.memory < 3 * config.limits.json_body:  # two copies of one body are three quarters of it at most
        raise KeyedError("limits.memory: must be at least three times limits.json_body", ("limits", "memory"))
    _check_visibility(config)
    _check_spending(config.spending)
    _check_tasks(config)
    _check_extras(config)
    names: set[str] = set()
    for index, upstream in enumerate(config.upstreams):
        _check_upstream(config, upstream, index, names)
    keyless = {
        upstream.name: read_base_url(base_url_of(upstream)).url("/v1")
        for upstream in config.upstreams
        if not has_key(upstream)
    }
    for model, entries in config.routes.items():
        addresses = [address_of(entry) for entry in entries]
        for place, address in enumerate(addresses):
            name, slash, rest = address.partition("/")
            if not slash or not rest or name not in names:
                raise KeyedError(
                    f"routes.{model}: '{address}' must be 'upstream/model' with one of: {', '.join(sorted(names))}."
                    f"{did_you_mean(name, names)}",
                    ("routes", model, place),
                )
        origins = {keyless[name] for address in addresses if (name := address.partition("/")[0]) in keyless}
        if len(origins) > 1:
            raise KeyedError(
                f"routes.{model}: at most one of its upstreams can be without an api_key, "
                "or the client's key would go to several providers",
                ("routes", model),
            )
        if not addresses:
            raise KeyedError(f"routes.{model}: names no upstream", ("routes", model))


def _check_extras(config: Config) -> None:
    """Raise `KeyedError` where a package is missing that the configuration needs."""
    for section, store in (("tasks", config.tasks.store), ("idempotency", config.idempotency.store)):
        if is_redis_url(store) and find_spec("redis") is None:
            raise KeyedError(
                f"{section}.store: needs the extra 'redis': pip install 'imagegate[redis]'", (section, "store")
            )
    if store := config.access.store:
        if not store.startswith((SQLITE, POSTGRES)) or store in (SQLITE, POSTGRES):
            raise KeyedError(
                f"access.store: must be {SQLITE}FILE or {POSTGRES}USER:PASSWORD@HOST/DATABASE", ("access", "store")
            )
        if find_spec("sqlalchemy") is None or find_spec("alembic") is None:
            raise KeyedError("access.store: needs the extra 'keys': pip install 'imagegate[keys]'", ("access", "store"))
        if store.startswith(POSTGRES) and find_spec("psycopg") is None:
            raise KeyedError(
                "access.store: needs the extra 'postgres': pip install 'imagegate[postgres]'", ("access", "store")
            )
    policy = config.policy
    for name, is_on in (("exact_size", policy.exact_size != "off"), ("exact_format", policy.exact_format)):
        if is_on and find_spec("PIL") is None:
            raise KeyedError(
                f"policy.{name}: needs the extra 'convert': pip install 'imagegate[convert]'", ("policy", name)
            )
    if config.delivery.store.startswith(CLOUDS) and find_spec("obstore") is None:
        raise KeyedError(
            "delivery.store: needs the extra 'cloud': pip install 'imagegate[cloud]'", ("delivery", "store")
        )


def _check_access(access: AccessConfig) -> None:
    if access.names and len(access.names) != len(access.keys):
        raise KeyedError(f"access.names: must name all {len(access.keys)} keys", ("access", "names"))
    for place, name in enumerate(access.names):
        is_taken = name in access.names[:place] or name in access.keys or name.startswith(STORED)
        if not _NAME.fullmatch(name) or is_taken:
            raise KeyedError(
                f"access.names[{place}]: must be letters, digits, '.', '_' and '-', no other's name and no key, "
                f"and not begin with '{STORED}'",
                ("access", "names", place),
            )
    for place, key in enumerate(access.keys):
        if not re.fullmatch(r"[!-~]+", key):
            raise KeyedError(f"access.keys[{place}]: has characters that no key has, or none", ("access", "keys"))
    if access.callable:
        try:
            function_of(access.callable)
        except ConfigError as error:
            raise KeyedError(f"access.{error}", ("access", "callable")) from error
    for name in access.groups:
        if not _NAME.fullmatch(name):
            raise KeyedError(f"access.groups.{name}: must be letters, digits, '.', '_' and '-'", ("access", "groups"))
    for name, principal in access.principals.items():
        _check_principal(access, name, principal)
    for place, origin in enumerate(access.allowed_origins):
        if origin != ANY and not _ORIGIN.fullmatch(origin):
            raise KeyedError(
                f"access.allowed_origins[{place}]: {origin!r} is no origin such as 'https://app.example.com'",
                ("access", "allowed_origins"),
            )
    for place, host in enumerate(access.allowed_hosts):
        if host != ANY and not _HOST.fullmatch(host):
            raise KeyedError(
                f"access.allowed_hosts[{place}]: {host!r} is no host such as 'example.com' or '*.example.com'",
                ("access", "allowed_hosts"),
            )


def _check_principal(access: AccessConfig, name: str, principal: PrincipalConfig) -> None:
    path = ("access", "principals", name)
    names = access.named_keys()
    if name not in names:
        raise KeyedError(f"access.principals.{name}: access.names has no such name.{did_you_mean(name, names)}", path)
    for place, group in enumerate(principal.groups):
        if group not in access.groups:
            raise KeyedError(
                f"access.principals.{name}.groups[{place}]: access.groups has no such name."
                f"{did_you_mean(group, access.groups)}",
                (*path, "groups"),
            )
    try:
        principals_of(access)
    except ValueError as error:
        raise KeyedError(f"access.principals.{name}: {error}", path) from error


def _check_upstream_keys(config: Config) -> None:
    known = [upstream.name for upstream in config.upstreams]
    for name, principal in config.access.principals.items():
        for upstream in principal.upstream_keys:
            if upstream not in known:
                raise KeyedError(
                    f"access.principals.{name}.upstream_keys.{upstream}: there is no such upstream."
                    f"{did_you_mean(upstream, known)}",
                    ("access", "principals", name, "upstream_keys", upstream),
                )


def _check_moderation(moderation: ModerationConfig) -> None:
    if moderation.hooks:
        try:
            object_of(moderation.hooks, "hooks")
        except ConfigError as error:
            raise KeyedError(f"moderation.{error}", ("moderation", "hooks")) from error


def _check_spending(spending: SpendingConfig) -> None:
    if spending.lease < _SHORTEST_LEASE:
        raise KeyedError(
            f"spending.lease: must be at least {_SHORTEST_LEASE:g} s; what a process has reserved is held after it",
            ("spending", "lease"),
        )
    if not 0 <= spending.reserve < 10**9:
        raise KeyedError("spending.reserve: must not be negative", ("spending", "reserve"))
    if spending.rates not in ("", "memory://") and not is_redis_url(spending.rates):
        raise KeyedError("spending.rates: must be redis://HOST:PORT/DB or memory://", ("spending", "rates"))
    if is_redis_url(spending.rates) and find_spec("redis") is None:
        raise KeyedError(
            "spending.rates: needs the extra 'redis': pip install 'imagegate[redis]'", ("spending", "rates")
        )
    if (ledger := spending.ledger) == "memory://":
        return
    if not ledger.startswith((SQLITE, POSTGRES)) or ledger in (SQLITE, POSTGRES):
        raise KeyedError(
            f"spending.ledger: must be {SQLITE}FILE, {POSTGRES}USER@HOST/DATABASE or memory://", ("spending", "ledger")
        )
    extra, needed = ("postgres", "psycopg") if ledger.startswith(POSTGRES) else ("keys", "sqlalchemy")
    if find_spec(needed) is None:
        raise KeyedError(
            f"spending.ledger: needs the extra '{extra}': pip install 'imagegate[{extra}]'", ("spending", "ledger")
        )


def _check_visibility(config: Config) -> None:
    access, console, prices = config.access, config.console, config.prices
    for place, operator in enumerate(console.operators):
        if operator not in access.named_keys() and not access.callable and not access.store:
            raise KeyedError(f"console.operators[{place}]: access.names has no such name", ("console", "operators"))
    if not 1 <= console.exchanges <= 10_000:
        raise KeyedError("console.exchanges: must be from 1 to 10000", ("console", "exchanges"))
    if config.metrics.key and not re.fullmatch(r"[!-~]+", config.metrics.key):
        raise KeyedError("metrics.key: has characters that no key has", ("metrics", "key"))
    if not re.fullmatch(r"[A-Z]{3}", prices.currency):
        raise KeyedError(f"prices.currency: {prices.currency!r} is no code such as 'USD'", ("prices", "currency"))
    for model, price in prices.models.items():
        if fault := price_data.fault_of(price):
            raise KeyedError(f"prices.models.{model}: {fault}", ("prices", "models", model))


def _check_policy(policy: PolicyConfig) -> None:
    for name in ("retries", "breaker_failures"):
        if not 0 <= getattr(policy, name) <= 100:
            raise KeyedError(f"policy.{name}: must be from 0 to 100", ("policy", name))
    wrong = [status for status in policy.fall_back_on if not 401 <= status <= 499]
    if wrong:
        raise KeyedError(f"policy.fall_back_on: {wrong[0]} is not from 401 to 499", ("policy", "fall_back_on"))


def check_delivery(delivery: DeliveryConfig) -> None:
    """Check where pictures go. Raises `KeyedError`."""
    if delivery.link_secret and len(delivery.link_secret) < _SHORTEST_SECRET:
        raise KeyedError(
            f"delivery.link_secret: must have at least {_SHORTEST_SECRET} characters", ("delivery", "link_secret")
        )
    if delivery.max_bytes is not None and delivery.max_bytes < 1:
        raise KeyedError("delivery.max_bytes: must be at least 1", ("delivery", "max_bytes"))
    try:
        check_fetch_proxy(delivery)
    except ConfigError as error:
        raise KeyedError(f"delivery.{error}", ("delivery", "fetch_proxy")) from error
    from imagegate.config.store_factory import open_store  # which reads this module's structs

    try:
        open_store(delivery)  # writes nothing and connects to nothing
    except ConfigError as error:
        raise KeyedError(str(error), tuple(str(error).partition(":")[0].split("."))) from error


def _check_tasks(config: Config) -> None:
    for section, store in (("tasks", config.tasks.store), ("idempotency", config.idempotency.store or "memory://")):
        path = (section, "store")
        if store != "memory://" and not is_redis_url(store):
            raise KeyedError(f"{section}.store: must be memory:// or redis://[:password@]host:port/db", path)
        if store != "memory://" and config.delivery.store.startswith("memory:"):
            raise KeyedError(f"{section}.store: redis:// needs a delivery.store that all processes share", path)
    for section, name, value in (
        ("tasks", "in_flight", config.tasks.in_flight),
        ("tasks", "callback_attempts", config.tasks.callback_attempts),
        ("idempotency", "max_bytes", config.idempotency.max_bytes),
    ):
        if value < 1:
            raise KeyedError(f"{section}.{name}: must be at least 1", (section, name))
    for name, secret in (("secret", config.tasks.secret), ("callback_secret", config.tasks.callback_secret)):
        if secret and len(secret) < _SHORTEST_SECRET:
            raise KeyedError(f"tasks.{name}: must have at least {_SHORTEST_SECRET} characters", ("tasks", name))
    kept = config.tasks.secret or config.delivery.link_secret or config.delivery.store.startswith("file:")
    if config.tasks.store != "memory://" and not kept:
        raise KeyedError("tasks.store: redis:// needs a tasks.secret, the same in all processes", ("tasks", "store"))


def _check_upstream(config: Config, upstream: UpstreamConfig, index: int, names: set[str]) -> None:
    def fail(key: str, message: str) -> KeyedError:
        return KeyedError(f"upstreams[{index}].{key}: {message}", ("upstreams", index, key))

    if not _NAME.fullmatch(upstream.name):
        raise fail("name", f"{upstream.name!r} must be letters, digits, '.', '_' and '-'")
    if upstream.name in names:
        raise fail("name", f"there are two upstreams called '{upstream.name}'")
    names.add(upstream.name)
    try:
        adapter = load_adapter(upstream.adapter_name)
    except ConfigError as error:
        raise fail("adapter" if upstream.adapter else "name", str(error)) from error
    try:
        adapter = adapter_of(upstream)
        adapter.check()
    except ConfigError as error:
        key, _, message = str(error).partition(": ")
        raise fail(key, message) from error
    if not upstream.base_url and not adapter.base_url:
        raise fail("base_url", f"the adapter '{upstream.adapter_name}' has no address of its own")
    if upstream.base_url and (fault := fault_of(upstream.base_url, tuple(getattr(adapter, "paths", {}).values()))):
        raise fail("base_url", fault)
    if upstream.api_key is not None and not re.fullmatch(r"[!-~]+", upstream.api_key):
        if not upstream.api_key:
            raise fail("api_key", "is empty; leave it out to send the client's own key upstream")
        raise fail("api_key", "has characters that no key has")
    if upstream.credential is not None:
        if upstream.api_key is not None:
            raise fail("credential", "there is an api_key already")
        if bool(upstream.credential.command) == bool(upstream.credential.callable):
            raise fail("credential", "must have one of command and callable")
        if upstream.credential.callable:
            try:
                function_of(upstream.credential.callable)
            except ConfigError as error:
                raise fail("credential", str(error)) from error
    for key in ("max_in_flight", "requests_per_minute"):
        value = getattr(upstream, key)
        if value is not None and value < 1:
            raise fail(key, "must be at least 1")
    if (config.access.keys or config.access.store) and not has_key(upstream):
        given = "keys" if config.access.keys else "store"
        raise fail("name", f"access.{given} is set, so this upstream needs an api_key of its own")
    try:
        check_network(upstream)
    except ConfigError as error:
        key, _, message = str(error).partition(": ")
        raise fail(key, message) from error
    try:
        contracts_of_upstream(upstream)
    except ContractError as error:
        if error.model in upstream.models:
            place = ("upstreams", index, "models", error.model)
            raise keyed(error.reason, error.table, Contract, above=place) from error
        inner = keyed(error.reason, error.table, Contract, above=("models", error.model))
        raise fail("contracts", f"{Path(upstream.contracts).name}: {inner}") from error
    except ConfigError as error:
        raise fail("contracts" if upstream.contracts else "models", str(error)) from error
