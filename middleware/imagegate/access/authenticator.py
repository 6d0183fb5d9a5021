"""Who a request is from, by the sources of a gateway in their order: keys of the configuration, then the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.types import Scope

from imagegate.access.host import AccessUnavailable, HostPrincipals
from imagegate.access.principal import Principal
from imagegate.asgi.api_keys import APIKeys, invalid_key, key_in, missing_key
from imagegate.asgi.helpers import header
from imagegate.errors import AuthenticationError
from imagegate.logger import get_logger

STORED: Final = "key_"
"""What the ids of stored keys begin with, and those of no other principal."""
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
        host: asks the host application.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        principals: Mapping[str, Principal] | None = None,
        *,
        host: HostPrincipals | None = None,
    ) -> None:
        self._keys = APIKeys(keys)
        known = principals or {}
        self._identities = {
            name: Identity(principal=known.get(name) or Principal(id=name), key_name=name) for name in keys
        }
        self._host = host

    def __bool__(self) -> bool:
        return bool(self._keys) or self._host is not None

    def known(self, scope: Scope) -> Identity | None:
        """Return who sent a request where no waiting is needed for it; None: `find` has to be asked."""
        key = key_in(header(scope, b"authorization"))
        name = self._keys.find(key) if key else None
        return None if name is None else self._identities[name]

    async def find(self, scope: Scope) -> Identity:
        """Return who sent a request.

        Raises:
            AuthenticationError: nobody that is known.
            AccessUnavailable: that cannot be found out at the moment.
        """
        if found := self.known(scope):
            return found
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

    def close(self) -> None:
        """Let go of threads."""
        if self._host is not None:
            self._host.close()
