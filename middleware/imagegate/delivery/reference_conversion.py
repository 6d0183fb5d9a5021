"""Converts the references of one request into the form that a contract requires."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from starlette.types import Scope

from imagegate.contracts.changes import Change
from imagegate.contracts.reference_rule import ReferenceRule
from imagegate.delivery.reference_publisher import ReferenceConverter
from imagegate.errors import RequestError
from imagegate.fitting.masks import black_and_white
from imagegate.fitting.reference_rules import added_size, check_uploads, chosen_form
from imagegate.protocol.data_urls import DataURL
from imagegate.protocol.messages import Exchange, FileID, FileRef, ImageRequest, Link, LinkedFile, Reference, member_of
from imagegate.protocol.references import LINK_FIELDS, LIST_MEMBERS, check_length, check_link, data_url
from imagegate.spool.body_chunks import sha256_of
from imagegate.spool.upload import Upload
from imagegate.telemetry.progress import PROGRESS_KEY, Progress


class ReferenceConversion:
    """Convert the references of one exchange.

    Args:
        converter: performs the conversions; None: requests that need one are rejected.
        scope: of the request.
        exchange: with the candidate whose contract applies.
        opened: gets the files that are opened, which the caller closes.
    """

    def __init__(
        self, converter: ReferenceConverter | None, scope: Scope, exchange: Exchange, opened: list[Upload]
    ) -> None:
        self._converter = converter
        self._scope = scope
        self._exchange = exchange
        self._opened = opened

    async def links_of_members(self, request: ImageRequest) -> ImageRequest:
        """Return the request with the data URLs in its link members replaced by links to stored files."""
        fields = dict(request.fields)
        for name in (*LIST_MEMBERS, "mask_url"):
            value = fields.get(name)
            if isinstance(value, str):
                fields[name] = await self._link_of_member(name, value)
            elif isinstance(value, list):
                check_length(name, value)
                fields[name] = [await self._link_of_member(name, url) for url in value]
        return request if fields == request.fields else request.with_fields(fields)

    async def check_members(self, request: ImageRequest) -> None:
        """Check the links in a request that goes on as it is."""
        for name in LINK_FIELDS.intersection(request.fields):
            value = request.fields[name]
            for url in value if isinstance(value, list) else (value,):
                if isinstance(url, str) and url[:64].lstrip().lower().startswith(("http://", "https://")):
                    await self._guard(name, url)

    async def _guard(self, member: str, url: str) -> None:
        """Keep links into private networks from providers; explaining looks nothing up."""
        if self._converter is not None and not self._exchange.explain:
            await self._converter.check(member, url, self._scope[PROGRESS_KEY])

    async def _link_of_member(self, name: str, url: Any) -> Any:
        inline = data_url(name, url) if isinstance(url, str) else None
        if inline is None:
            check_link(name, url)
            await self._guard(name, url)
            return url
        converter = self._need_converter(name)
        upload = await converter.hold(name, inline, self._opened)
        return await converter.to_link(upload, self._exchange, self._scope)

    async def convert(self, request: ImageRequest, rule: ReferenceRule) -> ImageRequest:
        """Return the request with its images and mask in the form that the contract requires."""
        if rule.mask_polarity != "alpha" and request.mask is not None:
            drawn = await self._drawn_mask(request.mask, rule.mask_polarity, two_valued=rule.mask_two_valued)
            request = msgspec.structs.replace(request, mask=drawn)
        form = chosen_form(request, rule)
        if form in ("files", "inline", "uploads"):
            images = [await self._file(image) for image in request.images]
            mask = await self._file(request.mask) if request.mask is not None else None
            fetched = msgspec.structs.replace(request, images=tuple(images), mask=mask)
            fetched = self._checked(request, fetched, rule)
            return await self._uploaded(fetched) if form == "uploads" else fetched
        if form == "objects" and "inline" in rule.forms:
            for reference in request.references:
                if isinstance(reference, Link):
                    await self._guard(reference.member, reference.url)
            return request
        links = [await self._link(image) for image in request.images]
        mask_link = await self._link(request.mask) if request.mask is not None else None
        if form == "objects":  # written out with the body
            body = request.body_rule
            names = body.images if body is not None and body.images else "images"
            mask_name = body.mask if body is not None and body.mask else "mask"
            self._record_renames(request, names if isinstance(names, str) else names[0], mask_name)
            images = [_reference(link) for link in links]
            mask = None if mask_link is None else _reference(mask_link)
            return msgspec.structs.replace(request, body=None, images=tuple(images), mask=mask)
        fields = dict(request.fields)
        target = rule.fields[0]
        before = fields.get(target, [])
        fields[target] = [*([before] if isinstance(before, str) else before), *links]
        if mask_link is not None and rule.mask_field:
            fields[rule.mask_field] = mask_link
        self._record_renames(request, target, rule.mask_field)
        fitted = request.with_fields(fields)
        return msgspec.structs.replace(fitted, images=(), mask=None)

    async def _uploaded(self, request: ImageRequest) -> ImageRequest:
        """Return the request with the provider's ids in the places of its files."""
        images = [FileID(str(await self._link(image)), "image") for image in request.images]
        mask = None if request.mask is None else FileID(str(await self._link(request.mask)), "mask")
        return msgspec.structs.replace(request, images=tuple(images), mask=mask)

    def _record_renames(self, request: ImageRequest, images: str, mask: str | None) -> None:
        """Record the members that have another name at the provider."""
        progress: Progress = self._scope[PROGRESS_KEY]
        renamed = dict.fromkeys((member_of(image), images) for image in request.images)
        if request.mask is not None and mask is not None:
            renamed[member_of(request.mask), mask] = None
        progress.reference_changes += tuple(Change(name, "renamed", to=own) for name, own in renamed if name != own)

    def _checked(self, request: ImageRequest, fetched: ImageRequest, rule: ReferenceRule) -> ImageRequest:
        """Validate fetched files like uploaded ones, and return the request."""
        target = self._exchange.target
        contract = target.contract.by_operation[self._exchange.operation] if target and target.contract else None
        if contract is None or fetched.references == request.references or self._exchange.explain:
            return fetched
        progress: Progress = self._scope[PROGRESS_KEY]
        check_uploads(fetched, rule)
        if size := added_size(fetched, contract, rule):
            progress.reference_changes += (Change("size", "added", to=size),)
            fetched = fetched.with_fields({**fetched.fields, "size": size})
        return fetched

    async def _file(self, reference: Reference) -> Reference:
        if isinstance(reference, FileID):
            raise RequestError("This model does not accept file ids. Send the file or a link.", param=reference.member)
        if isinstance(reference, FileRef):
            return reference
        if self._exchange.explain:
            return LinkedFile(reference)
        return await self._need_converter(reference.member).to_upload(
            reference, self._opened, self._scope[PROGRESS_KEY]
        )

    async def _drawn_mask(
        self, reference: Reference, changed: Literal["white", "black"], *, two_valued: bool
    ) -> Reference:
        mask = await self._file(reference)
        if not isinstance(mask, Upload):
            return mask  # explaining
        progress: Progress = self._scope[PROGRESS_KEY]
        progress.reference_changes += (Change("mask", "mapped", "transparent", changed),)
        drawn = await asyncio.to_thread(black_and_white, await mask.read(), changed=changed, two_valued=two_valued)
        return await self._need_converter("mask").hold("mask", DataURL("image/png", drawn), self._opened)

    async def _link(self, reference: Reference) -> Any:
        if isinstance(reference, Link):
            await self._guard(reference.member, reference.url)
            return reference.url
        if isinstance(reference, FileID):
            return reference
        if isinstance(reference, LinkedFile):
            return reference.url
        if self._exchange.explain:
            digest = await sha256_of(reference)
            return f"(link to {reference.filename}, {reference.media_type}, {reference.size} bytes, sha256 {digest})"
        if not isinstance(reference, Upload):
            raise AssertionError("files of requests are uploads")
        return await self._need_converter(reference.part).to_link(reference, self._exchange, self._scope)

    def _need_converter(self, param: str) -> ReferenceConverter:
        if self._converter is None:
            raise RequestError(
                "Reference conversion is not configured, and the model does not accept this form.", param=param
            )
        return self._converter


def _reference(link: Any) -> Link | FileID:
    return link if isinstance(link, FileID) else Link(link)
