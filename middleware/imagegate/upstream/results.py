"""Pictures that only the gateway can load, because the provider's own origin wants the key for them."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable
from typing import Final

import msgspec

from imagegate.adapter import UpstreamRequest
from imagegate.errors import FetchError, UpstreamError
from imagegate.protocol.messages import ImageReply, ReplyImage
from imagegate.protocol.replies import WHOLE_BODY, UpstreamReply
from imagegate.streaming.image_sinks import PictureSink
from imagegate.streaming.reply_reader import ReplyConsumer
from imagegate.tracing import operation
from imagegate.upstream.account import Account
from imagegate.upstream.sending import discard, send_request

_ATTEMPTS: Final = 3
_PAUSE: Final = 1.0
"""Most seconds between two attempts. The picture is paid for, and loading it costs nothing."""


async def load_results(
    upstream: Account, reply: ImageReply, *, authorization: str | None, sink: Callable[[], PictureSink] | None
) -> ImageReply:
    """Return a reply of an adapter with `keyed_results` with its pictures; links to other origins get no key, and stay.

    Args:
        sink: returns what takes the pictures; None: they come as base64.

    Raises:
        FetchError: a picture could not be loaded.
        StorageError: the sink did not take it.
        UpstreamUnreachable: there is no valid token.
    """
    consumer = None if sink is None else ReplyConsumer(send=discard, sink=sink, is_picture=True)
    headers = await upstream.headers(authorization)
    images: list[ReplyImage] = []
    for image in reply.images:
        own = image.url is not None and _is_own(image.url, upstream)
        images.append(await _load(upstream, image, consumer, headers) if own else image)
    return msgspec.structs.replace(reply, images=tuple(images))


def _is_own(url: str, upstream: Account) -> bool:
    return url == upstream.origin or url.startswith(f"{upstream.origin}/")


async def _load(
    upstream: Account, image: ReplyImage, consumer: ReplyConsumer | None, headers: list[tuple[str, str]]
) -> ReplyImage:
    with operation("fetch", account=upstream):
        return await _load_own(upstream, image, consumer, headers)


async def _load_own(
    upstream: Account, image: ReplyImage, consumer: ReplyConsumer | None, headers: list[tuple[str, str]]
) -> ReplyImage:
    request = UpstreamRequest(method="GET", path="", headers=(("accept", "image/*"),))
    for attempt in range(_ATTEMPTS):
        if attempt:
            await asyncio.sleep(min(_PAUSE, upstream.poll_interval))
        try:
            reply = await send_request(upstream, request, headers, url=image.url or "", consumer=consumer)
        except UpstreamError:
            continue
        if reply is not None and reply.status == 200 and (picture := _picture_of(reply)):
            return msgspec.structs.replace(picture, fields=image.fields)
        if reply is None or reply.status < 500:
            break
    raise FetchError("The provider made the image, but it could not be loaded from there.")


def _picture_of(reply: UpstreamReply) -> ReplyImage | None:
    """Return the picture of a reply; None: it is empty."""
    if picture := reply.pictures.get(WHOLE_BODY):
        return ReplyImage(picture=picture)
    return ReplyImage(b64_json=b64encode(reply.body).decode()) if reply.body else None
