"""A store with its image endpoint, its public URL, and the client for untrusted links."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from imagegate.asgi.in_process import ask
from imagegate.config.schema import DeliveryConfig
from imagegate.config.store_factory import open_store
from imagegate.delivery.converter import ImageConverter
from imagegate.http import HTTPClient
from imagegate.http.guarded_fetch import Fetcher, FetchFailed, FetchRefused
from imagegate.spool.budget import Budget
from imagegate.stores import ServedStore
from imagegate.stores.base import Store
from imagegate.stores.serving import IMAGES_PATH, ServeImages, is_signed_link


class PictureService:
    """The services of `Deliver`, built from a configuration.

    Args:
        client: reads foreign links; not closed here.
        budget: room for pictures on their way; None: as much as a layer used by itself may have.
        max_image: bytes of one picture that is read from a link.
        origins: what sends requests to the origins of upstreams, where it is not `client`.
        store: keeps the images; None: the one that the configuration names.

    Raises:
        ConfigError: there is no such store.
    """

    def __init__(
        self,
        delivery: DeliveryConfig,
        *,
        client: HTTPClient,
        budget: Budget | None = None,
        max_image: int = 64 * 1024**2,
        origins: Mapping[str, HTTPClient] | None = None,
        store: Store | None = None,
    ) -> None:
        self._public_url = delivery.public_url
        self.store = store or open_store(delivery)
        self._endpoint = ServeImages(self.store) if isinstance(self.store, ServedStore) else None
        fetcher = partial(
            Fetcher,
            client,
            allow=delivery.fetch_allow,
            max_bytes=max_image,
            origins=origins,
            proxy_guards=bool(delivery.fetch_proxy),
        )
        self.fetcher = fetcher()
        """For links of providers."""
        self.client_fetcher = fetcher()
        """For links of clients, whose lookups keep no provider's waiting."""
        self.delivery = ImageConverter(self.store, self.fetcher, budget)

    def serves(self, scope: Scope) -> bool:
        """Return whether an HTTP request is for an image of the store, which the gateway serves itself."""
        return self._endpoint is not None and is_signed_link(scope)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve such a request."""
        if self._endpoint is not None:
            await self._endpoint(scope, receive, send)

    def public_url(self, scope: Scope) -> str:
        """Return the public URL of the store: as configured, else from the request."""
        if self._public_url:
            return self._public_url
        connection = HTTPConnection(scope)
        root = scope.get("root_path", "").rstrip("/")
        return f"{connection.url.scheme}://{connection.url.netloc}{root}{IMAGES_PATH}"

    def link_base(self, scope: Scope) -> str:
        """Return what the links in an answer take from the request: its public URL, or nothing."""
        return self.public_url(scope) if self._endpoint is not None and not self._public_url else ""

    async def read(self, link: str, scope: Scope, *, trusted_origins: Collection[str] = ()) -> bytes | None:
        """Return the image behind a link, from the gateway's store or through the guard; None: unavailable."""
        if self._endpoint is not None and link.startswith(f"{self.public_url(scope).rstrip('/')}/"):
            parts = urlsplit(link)
            path = IMAGES_PATH + parts.path.rpartition("/")[2]
            answered = await ask(self._endpoint, "GET", path, query=parts.query.encode())
            return answered.body if answered.status == 200 else None
        try:
            return (await self.fetcher.read(link, trusted_origins=trusted_origins)).content
        except (FetchRefused, FetchFailed):
            return None

    async def aclose(self) -> None:
        await self.store.aclose()
