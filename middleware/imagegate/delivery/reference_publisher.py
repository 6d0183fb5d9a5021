"""References from one form into another: a file becomes a link, a link becomes a file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.types import Scope

from imagegate.delivery.converter import ImageConverter
from imagegate.errors import Overloaded, RequestError
from imagegate.http.guarded_fetch import FetchBusy, Fetcher, FetchFailed, FetchRefused
from imagegate.protocol.data_urls import DataURL
from imagegate.protocol.messages import Exchange, Link
from imagegate.spool.budget import Budget
from imagegate.spool.upload import Upload
from imagegate.telemetry.progress import PROGRESS_KEY, Progress
from imagegate.upstream.account import Account
from imagegate.upstream.conversation import upload_file

_LOOKUP: Final = 5.0
"""Seconds for the lookup of a name."""


class ReferenceConverter:
    """Converts references. Files that it opens are added to the caller's list, which closes them.

    Args:
        accounts: of the providers, some of which have an upload API.
        delivery: the store, for providers that have none.
        fetcher: reads links.
        budget: room for what is read.
        public_url: of the store, from the scope of a request.
    """

    def __init__(
        self,
        *,
        accounts: Mapping[str, Account],
        delivery: ImageConverter,
        fetcher: Fetcher,
        budget: Budget,
        public_url: Callable[[Scope], str],
    ) -> None:
        self._accounts = accounts
        self._delivery = delivery
        self._fetcher = fetcher
        self._budget = budget
        self._public_url = public_url

    async def to_link(self, upload: Upload, exchange: Exchange, scope: Scope) -> str:
        """Return a link to a file that the candidate can load: through its upload API, else through the store.

        Raises:
            UpstreamError: the upload API refused it.
            StorageError: the store did not take it.
        """
        account = self._accounts[exchange.target.upstream] if exchange.target else None
        rule = exchange.reference_rule
        through = account if account is not None and rule is not None and rule.upload else None
        name = through.name if through else ""
        async with upload.publishing:  # the parts of a split request want the same link
            if name not in upload.links:
                if through:
                    through = through.with_key_of(exchange.upstream_keys)
                    link = await upload_file(through, upload, authorization=exchange.authorization)
                else:
                    delivery = self._delivery.for_client(exchange.store_identity)
                    link = await delivery.publish(upload, self._public_url(scope))
                    progress: Progress = scope[PROGRESS_KEY]
                    progress.stored_images += 1
                upload.links[name] = link
        return upload.links[name]

    async def to_upload(self, link: Link, opened: list[Upload], progress: Progress) -> Upload:
        """Return the file behind a link. Raises `RequestError` where it cannot be had."""
        name = urlsplit(link.url).path.rpartition("/")[2][:128] or "upload"
        upload = self._opened(link.member, name, "", opened)
        try:
            async with self._fetcher.open(link.url) as stream:
                async for piece in stream:
                    await upload.write(piece)
            progress.link_fetches += 1
        except FetchRefused as error:
            progress.fetch_refusals += 1
            raise RequestError(
                f"The link may not be fetched: {error}.", param=link.member, code="invalid_url"
            ) from error
        except FetchBusy as error:
            raise Overloaded(f"The link was not fetched: {error}.", headers=[(b"retry-after", b"5")]) from error
        except FetchFailed as error:
            raise RequestError(
                f"The link could not be fetched: {error}.", param=link.member, code="invalid_image_url"
            ) from error
        return await self._complete(upload)

    async def check(self, member: str, url: str, progress: Progress) -> None:
        """Raise `RequestError` where a client's link leads to a network that is not public, so that it goes nowhere.

        A name that cannot be looked up here is the provider's to look up.
        """
        try:
            async with asyncio.timeout(_LOOKUP):
                await self._fetcher.check(url)
        except FetchRefused as error:
            progress.fetch_refusals += 1
            raise RequestError(f"The link may not be used: {error}.", param=member, code="invalid_url") from error
        except (FetchFailed, TimeoutError):
            return

    async def hold(self, member: str, inline: DataURL, opened: list[Upload]) -> Upload:
        """Return the content of a data URL as a file."""
        upload = self._opened(member, "upload", inline.media_type, opened)
        await upload.write(inline.data)
        return await self._complete(upload)

    def _opened(self, part: str, name: str, declared: str, opened: list[Upload]) -> Upload:
        upload = Upload(part, name, declared, budget=self._budget)
        opened.append(upload)
        return upload

    @staticmethod
    async def _complete(upload: Upload) -> Upload:
        await upload.complete()
        if upload.facts is None:
            raise RequestError(
                "What the link leads to is no image that can be read.", param=upload.part, code="invalid_image_file"
            )
        return upload
