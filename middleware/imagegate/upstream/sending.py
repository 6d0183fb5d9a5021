"""One request to a provider and its reply: what conversations and questions about tasks have in common."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterable
from typing import Final
from urllib.parse import urlsplit

import msgspec

from imagegate.adapter import UpstreamRequest
from imagegate.errors import UpstreamError, UpstreamUnreachable
from imagegate.http import BodyTooLarge, Interrupted, NotSent, Response
from imagegate.protocol.messages import ImageReply, ReplyImage
from imagegate.protocol.provider_errors import uncertain
from imagegate.protocol.replies import PendingTask, UpstreamReply, absolute_link
from imagegate.protocol.request_encoding import FormBody
from imagegate.spool.body_chunks import form_chunks
from imagegate.streaming.reply_reader import ReplyConsumer, images_with_pictures, take, unfinished, with_pictures
from imagegate.telemetry.progress import Progress
from imagegate.upstream.account import Account

_SHORTEST_SECRET: Final = 8
_KEY_LIKE: Final = r"\bsk-[a-z0-9_-]{6,}"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)


async def send_request(
    upstream: Account,
    request: UpstreamRequest,
    headers: list[tuple[str, str]],
    *,
    url: str = "",
    taker: ReplyConsumer | None = None,
    progress: Progress | None = None,
) -> UpstreamReply | None:
    """Send a request once; None: `taker` has got all of the reply."""
    content, more = content_of(request)
    response: Response | None = None
    try:
        response = await upstream.client.send(
            request.method,
            url or upstream.url(request.path),
            headers=[*headers, *more],
            content=content,
            timeouts=upstream.timeouts,
        )
        request_id = response.headers.get("x-request-id", "")
        if progress is not None and _REQUEST_ID.fullmatch(request_id) and "sk-" not in request_id:
            progress.upstream_request_id = request_id
        members = upstream.adapter.picture_members
        return await take(response, taker, limit=upstream.reply_limit, members=members)
    except NotSent as error:
        raise UpstreamUnreachable(f"The provider cannot be reached: {error}.") from error
    except Interrupted as error:
        raise unfinished(error) from error
    except BodyTooLarge as error:
        raise uncertain(f"The provider's reply is too large: {error}.") from error
    finally:
        if response is not None:
            await response.aclose()


async def whole_reply(upstream: Account, request: UpstreamRequest, headers: list[tuple[str, str]]) -> UpstreamReply:
    """A reply that nobody takes in parts."""
    reply = await send_request(upstream, request, headers)
    if reply is None:
        raise AssertionError("only a taker can have taken it")
    return reply


def content_of(request: UpstreamRequest) -> tuple[bytes | AsyncIterable[bytes] | None, list[tuple[str, str]]]:
    """The body and the headers that describe it; a form is made while it is sent."""
    if not request.parts:
        return request.body, [("content-type", request.content_type)] if request.content_type else []
    form = FormBody(request.parts, request.live)
    headers = [("content-type", form.content_type)]
    if form.length is not None:
        headers.append(("content-length", str(form.length)))
    return form_chunks(form), headers


def decode(upstream: Account, reply: UpstreamReply) -> ImageReply | PendingTask:
    """Let the adapter read a reply, and add the pictures that came in apart."""
    try:
        result = upstream.adapter.decode(reply, now=int(time.time()))
    except UpstreamError as error:
        error.made = images_with_pictures(error.made, reply.pictures)
        raise
    return with_pictures(result, reply.pictures) if isinstance(result, ImageReply) else result


def with_full_links(reply: ImageReply, upstream: Account) -> ImageReply:
    """The same reply with full links; a link that is none of http is no picture."""
    if not any(image.url for image in reply.images):
        return reply
    images: list[ReplyImage] = []
    for image in reply.images:
        if image.url is not None:
            image = msgspec.structs.replace(image, url=absolute_link(image.url, upstream.origin))
        images.append(image)
    return msgspec.structs.replace(reply, images=tuple(images))


def scrub(error: UpstreamError, upstream: Account, authorization: str | None) -> None:
    """Take keys and addresses out of an error.

    Providers quote keys and addresses in their texts; clients do not get to see them.
    """
    parts = urlsplit(upstream.base_url)
    key = upstream.api_key or (authorization or "").rpartition(" ")[2]
    known = (key, parts.netloc, parts.hostname or "", *upstream.client.secrets, *upstream.base.secrets)
    secrets = [secret for secret in known if len(secret) >= _SHORTEST_SECRET]
    pattern = re.compile("|".join([*map(re.escape, secrets), _KEY_LIKE]), re.IGNORECASE)

    def clean(text: str) -> str:
        return pattern.sub("[...]", text)

    error.message = clean(error.message)
    error.type = clean(error.type)
    error.code = clean(error.code) if error.code else None
    error.param = clean(error.param) if error.param else None
    error.details = {name: clean(value) if isinstance(value, str) else value for name, value in error.details.items()}
