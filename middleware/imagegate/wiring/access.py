"""Who may use a gateway: its authenticator, moderation hooks and the guard against web pages."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlsplit

from imagegate.access.authenticator import Authenticator
from imagegate.access.host import HostPrincipals, PrincipalSource
from imagegate.access.stored_keys import StoredKeys
from imagegate.asgi.browser_guard import BrowserGuard
from imagegate.config.callables import function_of, object_of
from imagegate.config.principals import principals_of
from imagegate.config.schema import Config
from imagegate.moderation.moderator import Moderator


def authenticator_of(config: Config, source: PrincipalSource | None) -> Authenticator | None:
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


def moderator_of(config: Config, hooks: object | None) -> Moderator | None:
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


def browser_guard(config: Config, *, mounted: bool, has_source: bool = False) -> BrowserGuard | None:
    """Return the guard against requests from web pages of other origins; None: clients need a key, which no page has.

    Args:
        mounted: an application is mounted behind the gateway.
        has_source: a function says who requests are from, perhaps by cookies, which browsers add.
    """
    keyed = bool(config.access.keys or config.access.store) and not has_source
    if keyed and not config.access.allowed_hosts:
        return None
    return BrowserGuard(
        keyed=keyed,
        mounted=mounted,
        origins=config.access.allowed_origins,
        hosts=config.access.allowed_hosts,
        own_host=urlsplit(config.delivery.public_url).hostname or "",
    )
