"""One request to a provider and its reply."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterable, Sequence
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import msgspec
from starlette.types import Message

from imagegate.adapter import UpstreamRequest
from imagegate.errors import ImagegateError, ModerationBlocked, UpstreamError, UpstreamUnreachable
from imagegate.http import BodyTooLarge, Interrupted, NotSent, Request, Response
from imagegate.logger import get_logger
from imagegate.protocol.base_urls import request_url
from imagegate.protocol.links import absolute_link, clean_link, is_full, is_plain_link
from imagegate.protocol.messages import HeldMemory, ImageReply, ReplyImage
from imagegate.protocol.provider_errors import uncertain
from imagegate.protocol.replies import UpstreamReply, is_ambiguous, named_task
from imagegate.protocol.reply_encoding import length_of
from imagegate.protocol.reply_errors import NO_IMAGE
from imagegate.protocol.reply_pictures import images_with_pictures, with_pictures
from imagegate.protocol.reply_tasks import PendingTask
from imagegate.protocol.request_encoding import FormBody, document_parts
from imagegate.spool.body_chunks import form_chunks, reply_chunks
from imagegate.streaming.event_stream import unfinished
from imagegate.streaming.reply_reader import PLAIN_LIMIT, ReplyConsumer, take
from imagegate.telemetry.progress import Progress
from imagegate.upstream.account import Account
from imagegate.upstream.hidden_members import hiding, without_hidden

_SHORTEST_SECRET: Final = 8
_KEY_LIKE: Final = r"\bsk-[a-z0-9_-]{6,}"
_REDIRECTS: Final = 4
"""Requests for one question."""
_FOLLOWED: Final = frozenset({307, 308})
_FOLLOWED_QUESTIONS: Final = frozenset({301, 302, 303, 307, 308})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)
_VERDICTS: Final = frozenset({200, 400, 422})
"""Statuses of an answer about a task in which a refusal for its content is about the task, not about the question."""


class PaidRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that costs money, and what belongs to it."""

    upstream: Account
    request: UpstreamRequest
    authorization: str | None
    """The client's."""
    progress: Progress
    consumer: ReplyConsumer | None = None
    """Gets what the layers above take before the reply is complete."""
    held: HeldMemory | None = None
    """Counts the reply that is returned."""
    trace: Sequence[tuple[str, str]] = ()
    """Fields of W3C Trace Context that go upstream."""


async def ask(paid: PaidRequest) -> ImageReply | PendingTask | None:
    """Send a paid request once.

    Returns:
        The pictures, or the task that will have them; None where its consumer has got all of the reply.

    Raises:
        UpstreamError: classified by what may have been made, its text free of keys and hosts.
        StorageError: the consumer did not take a picture.
    """
    upstream, request, progress, held = paid.upstream, paid.request, paid.progress, paid.held
    started = time.perf_counter()
    reply: UpstreamReply | None = None
    try:
        if upstream.adapter.question_suffix and is_for_questions(upstream, request.path):
            raise UpstreamUnreachable("The adapter would pay at an address for questions, which may be asked again.")
        progress.attempts += 1
        fixed = None if paid.trace else upstream.fixed_headers
        headers = fixed or await upstream.headers(paid.authorization, paid.trace)
        reply = await send_request(upstream, request, headers, consumer=paid.consumer, progress=progress, held=held)
        if reply is None:
            return None
        result = decode(upstream, reply)
        if isinstance(result, PendingTask):
            forget(reply, held)
            return result
        return with_full_links(result, upstream)
    except UpstreamError as error:
        forget(reply, held)
        reply = None  # the error leads to this frame
        scrub(error, upstream, paid.authorization)
        raise
    finally:
        progress.upstream_seconds += time.perf_counter() - started


def is_for_questions(upstream: Account, path: str) -> bool:
    """Return whether a path is one at which the provider is asked for tasks by POST."""
    suffix = upstream.adapter.question_suffix
    return bool(suffix) and urlsplit(path).path.endswith(suffix)


async def send_request(
    upstream: Account,
    request: UpstreamRequest,
    headers: Sequence[tuple[str, str]],
    *,
    url: str = "",
    consumer: ReplyConsumer | None = None,
    progress: Progress | None = None,
    held: HeldMemory | None = None,
    limit: int | None = None,
) -> UpstreamReply | None:
    """Send a request once; None: `consumer` has got all of the reply.

    Args:
        held: counts the body of the reply; `forget` gives it back.
        limit: bytes of the reply; None: the account's.
    """
    if consumer is not None and not upstream.adapter.relays:
        consumer = msgspec.structs.replace(consumer, relay=False)
    if consumer is not None and (hidden := upstream.adapter.hidden_members):
        # What is passed on as it is would have them.
        consumer = msgspec.structs.replace(consumer, relay=False, send=hiding(consumer.send, hidden))
    response: Response | None = None
    try:
        response = await _response(upstream, request, headers, url or request_url(upstream.base_url, request.path))
        request_id = response.headers.get("x-request-id", "")
        if response.status_code == 401 and upstream.credential is not None:
            upstream.credential.refused()
        if progress is not None and _REQUEST_ID.fullmatch(request_id) and "sk-" not in request_id:
            progress.upstream_request_id = request_id
        members = upstream.adapter.picture_members
        return await take(response, consumer, limit=limit or upstream.reply_limit, members=members, held=held)
    except NotSent as error:
        raise UpstreamUnreachable(f"The provider cannot be reached: {error}.") from error
    except Interrupted as error:
        if progress is not None:
            progress.stale_connections += error.was_kept
        raise unfinished(error) from error
    except BodyTooLarge as error:
        raise uncertain(f"The provider's reply is too large: {error}.") from error
    finally:
        if response is not None:
            await response.body.aclose()


def forget(reply: UpstreamReply | None, held: HeldMemory | None) -> None:
    """Give back what a reply holds in memory: it is not needed any more."""
    if held is not None and reply is not None:
        held.give_back(len(reply.body))


async def _response(
    upstream: Account, request: UpstreamRequest, headers: Sequence[tuple[str, str]], url: str
) -> Response:
    """Send a request and follow redirects that stay at the origin. Raises `NotSent` and `Interrupted`.

    A complete 307 or 308 says that nothing was made, so that the request may go to the other address, once; questions,
    which cost nothing, follow every redirect.
    """
    is_question = request.method == "GET"
    for left in reversed(range(_REDIRECTS if is_question else 2)):
        content, more = content_of(request)
        fields = fields_of(request, headers, more) if request.headers else [*headers, *more]
        response = await upstream.client.transmit(Request(request.method, url, fields, content, upstream.timeouts))
        followed = _FOLLOWED_QUESTIONS if is_question else _FOLLOWED
        if not left or response.status_code not in followed or request.live is not None:
            return response
        try:
            target = urljoin(url, clean_link(response.headers["location"]))
            parts = urlsplit(target)
        except (KeyError, ValueError):
            return response
        if f"{parts.scheme}://{parts.netloc}" != upstream.origin or target == url:
            return response
        await response.aclose()
        url = target
    raise AssertionError("the last turn returns")


async def discard(_: Message) -> None:
    """Send nothing: for consumers of which only the sink is used."""


async def whole_reply(upstream: Account, request: UpstreamRequest, headers: list[tuple[str, str]]) -> UpstreamReply:
    """Return a reply that carries no pictures."""
    reply = await send_request(upstream, request, headers, limit=PLAIN_LIMIT)
    if reply is None:
        raise AssertionError("only a consumer can have taken it")
    return reply


def fields_of(
    request: UpstreamRequest, headers: Sequence[tuple[str, str]], more: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return the header fields of a request: the account's, the adapter's own, and those that describe the body."""
    own = {name for name, _ in request.headers}
    return [*(field for field in headers if field[0] not in own), *request.headers, *more]


def content_of(request: UpstreamRequest) -> tuple[bytes | AsyncIterable[bytes] | None, list[tuple[str, str]]]:
    """Return the body and the headers that describe it; a form is made while it is sent."""
    if request.document is not None:
        return _content_of_document(request.document)
    if not request.parts:
        return request.body, [("content-type", request.content_type)] if request.content_type else []
    form = FormBody(request.parts, request.live)
    return form_chunks(form), [("content-type", form.content_type), ("content-length", str(form.length))]


def _content_of_document(document: Any) -> tuple[bytes | AsyncIterable[bytes], list[tuple[str, str]]]:
    parts = document_parts(document)
    headers = [("content-type", "application/json")]
    if len(parts) == 1 and isinstance(parts[0], bytes):
        return parts[0], headers
    return reply_chunks(parts), [*headers, ("content-length", str(length_of(parts)))]


def decode(upstream: Account, reply: UpstreamReply, task: PendingTask | None = None) -> ImageReply | PendingTask:
    """Let the adapter read a reply, and add the pictures that came in apart.

    Args:
        task: that was asked for.

    Raises:
        UpstreamError: never one that says less than the reply does about what may have been made.
    """
    adapter, now = upstream.adapter, int(time.time())
    try:
        result = adapter.decode(reply, now=now) if task is None else adapter.decode_task(task, reply, now=now)
    except UpstreamError as error:
        if task is None and adapter.always_tasks and error.code == NO_IMAGE and (named := named_task(reply)):
            return named  # ModelScope says of a task that it accepted that it succeeded
        error.made = images_with_pictures(error.made, reply.pictures)
        if task is not None and isinstance(error, ModerationBlocked) and reply.status in _VERDICTS:
            error.ends_task = True
        if error.outcome != "uncertain" and (error.nothing_sent or is_ambiguous(reply.status, reply.body)):
            doubt = uncertain(error.message, timed_out=reply.status in (504, 524))
            doubt.made, doubt.is_whole, doubt.details = error.made, error.is_whole, error.details
            raise doubt from error
        raise
    except ImagegateError:
        raise
    except Exception as error:
        get_logger().exception("adapter failed", upstream=upstream.name)
        raise uncertain("The provider's reply cannot be read.") from error
    if isinstance(result, PendingTask):
        return result
    if not result.images:
        raise uncertain("The provider's reply contains no image.")
    if adapter.hidden_members:
        result = without_hidden(result, adapter.hidden_members)
    return with_pictures(result, reply.pictures) if reply.pictures else result


def with_full_links(reply: ImageReply, upstream: Account) -> ImageReply:
    """Return the same reply with full links; a link with another scheme than http or https is not an image."""
    links = [image.url for image in reply.images if image.url is not None]
    if not any(links) or all(map(is_plain_link, links)):
        return reply
    images: list[ReplyImage] = []
    for image in reply.images:
        if image.url is not None:
            is_link = is_full(image.url) or upstream.adapter.keyed_results
            written = image.written or ("" if is_link else image.url)
            image = msgspec.structs.replace(image, url=_full_link(image.url, upstream), written=written)
        images.append(image)
    return msgspec.structs.replace(reply, images=tuple(images))


def _full_link(link: str, upstream: Account) -> str:
    if upstream.adapter.keyed_results and link.startswith("/") and not link.startswith("//"):
        return upstream.own_url(link)  # below `base_url`, as every path of an adapter
    return absolute_link(link, upstream.origin)


def scrub(error: UpstreamError, upstream: Account, authorization: str | None) -> None:
    """Take keys and addresses out of an error.

    Providers quote keys and addresses in their texts; clients do not get to see them.
    """
    parts = urlsplit(upstream.base_url)
    key = (authorization or "").rpartition(" ")[2]
    known = (key, parts.netloc, parts.hostname or "", *upstream.secrets)
    secrets = [secret for secret in known if len(secret) >= _SHORTEST_SECRET]
    pattern = re.compile("|".join([*map(re.escape, secrets), _KEY_LIKE]), re.IGNORECASE)

    def clean(text: str) -> str:
        return pattern.sub("[...]", text)

    error.message = clean(error.message)
    error.type = clean(error.type)
    error.code = clean(error.code) if error.code else None
    error.param = clean(error.param) if error.param else None
    error.details = {name: clean(value) if isinstance(value, str) else value for name, value in error.details.items()}
