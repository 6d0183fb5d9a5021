"""One provider account: who it is, where it is, and the headers that it is sent."""

from __future__ import annotations

from functools import cached_property
from typing import Final
from urllib.parse import urljoin, urlsplit

import msgspec

from imagegate import __version__
from imagegate.adapter import Adapter
from imagegate.http import HTTPClient, Timeouts
from imagegate.protocol.base_urls import BaseURL, read_base_url
from imagegate.protocol.provider_errors import uncertain

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
    timeouts: Timeouts = Timeouts()
    poll_interval: float = 2.0
    """Seconds before a task is asked for the first time; later questions are further apart."""
    deadline: float = 300.0
    """Seconds that a task may take."""
    reply_limit: int = 512 * 1024**2
    """Bytes of a reply."""

    @property
    def has_key(self) -> bool:
        """Whether the upstream has a key of its own, in `api_key` or in a header that is sent with each request."""
        return bool(self.api_key) or "authorization" in self.client.added_headers

    @cached_property
    def base(self) -> BaseURL:
        """`base_url` in parts."""
        return read_base_url(self.base_url)

    @property
    def origin(self) -> str:
        """Scheme and host of `base_url`."""
        return self.base.origin

    def url(self, path: str) -> str:
        """The full URL of an adapter's path."""
        return self.base.url(path)

    def poll_url(self, link: str) -> str:
        """The full URL of a link to a task, as the provider gave it; relative ones are taken from the origin.

        Raises:
            UpstreamUncertain: it leads to another origin, where our key must not go.
        """
        try:
            if link.startswith("/") and not link.startswith("//") and not self.base.follows(link):
                return self.url(link)
            url = urljoin(f"{self.origin}/", link)
            parts = urlsplit(url)
            same = f"{parts.scheme}://{parts.netloc}" == self.origin
        except ValueError:
            same, url = False, ""
        if not same:
            raise uncertain("The provider's task has an address that cannot be used.")
        return self.base.with_query(url)

    def headers(self, authorization: str | None) -> list[tuple[str, str]]:
        """Only what a provider needs: nothing of the client's goes upstream but its key, where there is no other."""
        headers = list(_HEADERS)
        if key := f"Bearer {self.api_key}" if self.api_key else authorization:
            headers.append(("authorization", key))
        return headers
