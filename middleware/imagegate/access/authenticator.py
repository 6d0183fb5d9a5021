"""Who a request is from, by a gateway's sources in their order: keys of the configuration, stored keys, the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.types import Scope

from imagegate.access.host import AccessUnavailable, HostPrincipals
from imagegate.access.principal import Principal
from imagegate.access.stored_key import STORED
from imagegate.access.stored_keys import StoredKeys
from imagegate.asgi.api_keys import APIKeys, invalid_key, key_in, missing_key
from imagegate.asgi.helpers import header
from imagegate.errors import AuthenticationError
from imagegate.logger import get_logger

_LONGEST_NAME: Final = 128
"""Characters of a name that records and log lines have."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request is from, and what records call them."""

    principal: Principal
    key_name: str = ""
    """Of keys."""
    user: str = ""
    """Of the host's principals."""
    owner: str = ""
    """Whose tasks and idempotency keys they have; empty: those of their ``Authorization``."""

    @property
    def operator_name(self) -> str:
        """What the configuration calls them where it names operators."""
        return self.key_name or self.principal.id


class Authenticator:
    """Finds out who requests are from.

    Args:
        keys: of the configuration, by name.
        principals: what the configuration says of them; default: that they may do anything.
        stored: looks up keys that were made at run time.
        host: asks the host application.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        principals: Mapping[str, Principal] | None = None,
        *,
        stored: StoredKeys | None = None,
        host: HostPrincipals | None = None,
    ) -> None:
        self._keys = APIKeys(keys)
        known = principals or {}
        self._identities = {
            name: Identity(principal=known.get(name) or Principal(id=name), key_name=name) for name in keys
        }
        self._stored = stored
        self._host = host

    def __bool__(self) -> bool:
        return bool(self._keys) or self._stored is not None or self._host is not None

    def known(self, scope: Scope) -> Identity | None:
        """Return who sent a request where no waiting is needed for it; None: `find` has to be asked."""
        key = key_in(header(scope, b"authorization"))
        if not key:
            return None
        if (name := self._keys.find(key)) is not None:
            return self._identities[name]
        holder = None if self._stored is None else self._stored.known(key)
        return None if holder is None else _holder(holder)

    async def find(self, scope: Scope) -> Identity:
        """Return who sent a request.

        Raises:
            AuthenticationError: the credentials are missing or unknown.
            AccessUnavailable: that cannot be found out at the moment.
        """
        if found := self.known(scope):
            return found
        key = key_in(header(scope, b"authorization"))
        if self._stored is not None and key and (holder := await self._stored.find(key)) is not None:
            return _holder(holder)
        principal = None if self._host is None else await self._host.find(scope)
        if principal is None:
            raise self._refusal(header(scope, b"authorization"))
        if principal.id in self._identities or principal.id.startswith(STORED):
            get_logger().error("the access function returned a Principal with the id of a key")
            raise AccessUnavailable
        return Identity(principal=principal, user=principal.name[:_LONGEST_NAME], owner=principal.id)

    def _refusal(self, authorization: bytes | None) -> AuthenticationError:
        # Which credentials the host takes is its own affair.
        is_missing = authorization is None if self._host is not None else not key_in(authorization)
        return missing_key() if is_missing else invalid_key()

    def enter_loop(self) -> None:
        """Serve another event loop."""
        if self._stored is not None:
            self._stored.enter_loop()

    def close(self) -> None:
        """Let go of threads."""
        if self._stored is not None:
            self._stored.close()
        if self._host is not None:
            self._host.close()


def _holder(principal: Principal) -> Identity:
    return Identity(principal=principal, key_name=principal.name[:_LONGEST_NAME], owner=principal.id)
