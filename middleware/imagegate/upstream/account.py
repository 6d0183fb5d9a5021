"""One provider account: who it is, where it is, and the headers that it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

from imagegate import __version__
from imagegate.adapter import Adapter, Authentication
from imagegate.http import HTTPClient, Timeouts
from imagegate.protocol.base_urls import BaseURL, read_base_url, request_url
from imagegate.protocol.provider_errors import uncertain
from imagegate.upstream.credentials import Credential

REDACTED: Final = "[redacted]"
USER_AGENT: Final = f"imagegate/{__version__}"
_HEADERS: Final = (("accept", "application/json"), ("accept-encoding", "identity"), ("user-agent", USER_AGENT))


class Account(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A provider account, and how long to wait for it."""

    name: str
    adapter: Adapter
    base_url: str
    """As configured: scheme, host, and perhaps a path and a query."""
    client: HTTPClient
    """Sends the requests."""
    api_key: str | None = None
    credential: Credential | None = None
    """In place of `api_key`."""
    timeouts: Timeouts = Timeouts()
    poll_interval: float = 2.0
    """Seconds before a task is asked for the first time; later questions are further apart."""
    deadline: float = 300.0
    """Seconds that a task may take."""
    reply_limit: int = 512 * 1024**2
    """Bytes of a reply."""

    @cached_property
    def has_key(self) -> bool:
        """Whether the upstream has a key of its own, here or in a header of the configuration, or needs none."""
        authentication = self.adapter.authentication
        has_own = bool(self.api_key) or self.credential is not None
        return has_own or not authentication.required or authentication.header in self.client.added_headers

    def with_key_of(self, keys: Mapping[str, str]) -> Account:
        """Return this account, or the same with a client's own key for it in place of what the configuration has.

        Args:
            keys: upstream -> key.
        """
        key = keys.get(self.name)
        if key is None:
            return self
        client = self.client.without(self.adapter.authentication.header)
        return msgspec.structs.replace(self, api_key=key, credential=None, client=client)

    @cached_property
    def base(self) -> BaseURL:
        """`base_url` in parts."""
        return read_base_url(self.base_url)

    @cached_property
    def origin(self) -> str:
        """Scheme and host of `base_url`."""
        return self.base.origin

    def url(self, path: str) -> str:
        """Return the full URL of an adapter's path."""
        return request_url(self.base_url, path)

    def own_url(self, link: str) -> str:
        """Return the full URL of a provider's link to a task or a result; relative ones are taken from the origin.

        Raises:
            UpstreamUncertain: it leads to another origin, where the key must not go.
        """
        try:
            if link.startswith("/") and not link.startswith("//") and not self.base.follows(link):
                return self.url(link)
            url = urljoin(f"{self.origin}/", link)
            parts = urlsplit(url)
            own = f"{parts.scheme}://{parts.netloc}" == self.origin or self._is_task_host(parts)
        except ValueError:
            own, url = False, ""
        if not own:
            raise uncertain("The provider's task has an address that cannot be used.")
        return self.base.with_query(url)

    def other_readings(self, link: str) -> Sequence[str]:
        """Return what else a link without a host may mean: a place below `base_url`, or one at the origin."""
        base = self.base.path
        if not base or not link or link.startswith("//") or urlsplit(link).scheme:
            return ()
        path = link if link.startswith("/") else f"/{link}"
        readings = (self.url(path), f"{self.origin}{path}", f"{self.origin}{path.removeprefix(base)}")
        own = self.own_url(link)
        return [url for url in dict.fromkeys(map(self.base.with_query, readings)) if url != own]

    def _is_task_host(self, parts: SplitResult) -> bool:
        """Return whether a URL leads to another host of the provider; none is that of a proxy in front of it."""
        is_direct = self.base_url == self.adapter.base_url or self._is_listed(urlsplit(self.origin))
        return is_direct and self._is_listed(parts)

    def _is_listed(self, parts: SplitResult) -> bool:
        return (parts.scheme == "https" and parts.netloc == parts.hostname) and any(
            parts.netloc == host or (host.startswith("*.") and parts.netloc.endswith(host[1:]))
            for host in self.adapter.task_hosts
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """What is sent to the provider and must not be shown."""
        token = self.credential.secret if self.credential else ""
        return (self.api_key or "", token, *self.client.secrets, *self.base.secrets)

    @cached_property
    def fixed_headers(self) -> Sequence[tuple[str, str]] | None:
        """What `headers` returns for each request, but for its trace; None: it depends on the client, or on a token."""
        if self.credential is not None:
            return None
        if self.api_key:
            return (*_HEADERS, self._authentication.field(self.api_key))
        return None if self._authentication.required else _HEADERS

    async def headers(self, authorization: str | None, trace: Sequence[tuple[str, str]] = ()) -> list[tuple[str, str]]:
        """Return what a provider needs: of the client's nothing goes upstream but its key, where there is no other.

        Args:
            authorization: the client's.
            trace: fields of W3C Trace Context of the request.

        Raises:
            UpstreamUnreachable: there is no valid token.
        """
        if self.fixed_headers is not None:
            return [*self.fixed_headers, *trace]
        fields = list(_HEADERS)
        if self.credential is not None and (token := await self.credential.token()):
            fields.append(self._authentication.field(token))
        elif authorization and self._authentication.required:
            fields.append(self._authentication.field_of_client(authorization))
        return [*fields, *trace]

    def shown_headers(self, authorization: str | None) -> list[tuple[str, str]]:
        """Return the same without the key."""
        authentication = self._authentication
        if not (self.api_key or self.credential or (authorization and authentication.required)):
            return list(_HEADERS)
        return [*_HEADERS, (authentication.header, f"{authentication.scheme} {REDACTED}".lstrip())]

    @cached_property
    def _authentication(self) -> Authentication:
        for_tokens = self.adapter.token_authentication
        return for_tokens if self.credential is not None and for_tokens is not None else self.adapter.authentication
