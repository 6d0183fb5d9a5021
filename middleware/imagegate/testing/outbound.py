"""The request that a provider gets for what a client asks, without sending it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from imagegate.adapter import Adapter, FileID, FileRef, ImageRequest, Link, Reference, UpstreamRequest
from imagegate.contract import Contract, Operation, ReferenceForm, ReferenceRule, load_contracts
from imagegate.contracts.contract import find_contract
from imagegate.fitting.fit import fit
from imagegate.http import HTTPClient
from imagegate.testing.fake_upstream import Seen
from imagegate.upstream.account import Account
from imagegate.upstream.sending import content_of, fields_of

KEY: Final = "sk-test-key"
JOB_ID: Final = "00000000-0000-4000-8000-000000000001"


def outbound(
    adapter: Adapter,
    model: str,
    *,
    operation: Operation = "generations",
    images: Sequence[Reference] = (),
    mask: Reference | None = None,
    base_url: str = "",
    api_key: str | None = KEY,
    **fields: Any,
) -> Seen:
    """Return what goes out for a request: fitted to the model's contract, encoded, and with the key.

    Args:
        images: `MemoryFile`s, or links where the contract takes them; they take the form that the contract names.
        fields: members of the request beside ``model``.

    Raises:
        RequestError: the contract does not take the request.
    """
    contract = find_contract(load_contracts(adapter.contracts()), model)
    request = ImageRequest(
        operation=operation, fields={"model": model, **fields}, images=tuple(images), mask=mask, job_id=JOB_ID
    )
    if contract is not None:
        request, _ = fit(request, contract, random=lambda low, _: low)
        own = contract.by_operation[operation]
        request = with_references(request, own.references if own else None)
    return rendered(adapter, adapter.encode(request), base_url=base_url, api_key=api_key)


def rendered(adapter: Adapter, request: UpstreamRequest, *, base_url: str = "", api_key: str | None = KEY) -> Seen:
    """Return an adapter's request as its provider gets it."""
    return asyncio.run(render(adapter, request, base_url=base_url, api_key=api_key))


async def render(adapter: Adapter, request: UpstreamRequest, *, base_url: str = "", api_key: str | None = KEY) -> Seen:
    """Do what `rendered` does, on the event loop that runs: for many requests, one of their own takes longest."""
    account = Account(
        name=adapter.name,
        adapter=adapter,
        base_url=base_url or adapter.base_url or "http://provider.test",
        client=HTTPClient(),
        api_key=api_key,
    )

    content, more = content_of(request)
    body = b"".join([chunk async for chunk in content]) if isinstance(content, AsyncIterable) else content or b""
    headers = fields_of(request, await account.headers(None), more)
    url = account.url(request.path)
    parts = urlsplit(url)
    return Seen(
        method=request.method,
        url=url,
        path=parts.path,
        query=tuple(parse_qsl(parts.query, keep_blank_values=True)),
        headers=dict(headers),
        body=body,
    )


def with_references(
    request: ImageRequest, rule: ReferenceRule | None, form: ReferenceForm | None = None
) -> ImageRequest:
    """Return a request with its references in a form of its contract, as the gateway hands it to the adapter.

    Args:
        form: one of the contract's; default: the one that the gateway would choose for files.
    """
    if rule is None or not request.references:
        return request
    form = form or next(each for each in ("files", "inline", "uploads", "links", "objects") if each in rule.forms)
    if form in ("files", "inline"):
        return request
    names = [_name(reference) for reference in request.images]
    mask = None if request.mask is None else _name(request.mask)
    if form == "links":
        target: Mapping[str, Any] = {
            rule.fields[0]: names,
            **({rule.mask_field: mask} if mask and rule.mask_field else {}),
        }
        fitted = request.with_fields({**request.fields, **target})
        return msgspec.structs.replace(fitted, images=(), mask=None)
    kind: Any = FileID if form == "uploads" else Link
    return msgspec.structs.replace(request, images=tuple(map(kind, names)), mask=None if mask is None else kind(mask))


def _name(reference: Reference) -> str:
    if isinstance(reference, FileRef):
        return f"https://references.test/{reference.part}-{reference.filename}"
    return reference.url if isinstance(reference, Link) else reference.id


def contracts_of(adapter: Adapter) -> Mapping[str, Contract]:
    """Return an adapter's contracts by model."""
    return load_contracts(adapter.contracts())
