"""One provider account: sending to it, and waiting for its tasks."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from functools import cached_property
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import msgspec

from imagegate import __version__
from imagegate.adapter import Adapter, FilePart, TextPart, UpstreamRequest
from imagegate.errors import UpstreamError, UpstreamUnreachable
from imagegate.http import BodyTooLarge, HTTPClient, Interrupted, NotSent, Response, Timeouts, close
from imagegate.protocol.headers import seconds_asked
from imagegate.protocol.messages import ImageReply, ReplyImage
from imagegate.protocol.provider_errors import uncertain
from imagegate.protocol.replies import PendingTask, UpstreamReply, absolute_link
from imagegate.protocol.request_encoding import FormBody
from imagegate.spool.body_chunks import form_chunks, sha256_of
from imagegate.spool.upload import Upload
from imagegate.streaming.reply_reader import ReplyConsumer, images_with_pictures, take, unfinished, with_pictures
from imagegate.telemetry.progress import Progress

USER_AGENT: Final = f"imagegate/{__version__}"
_HEADERS: Final = (("accept", "application/json"), ("accept-encoding", "identity"), ("user-agent", USER_AGENT))
_SLOWEST_POLL: Final = 10.0
_POLL_GROWTH: Final = 1.5
_SHORTEST_SECRET: Final = 8
_KEY_LIKE: Final = r"\bsk-[a-z0-9_-]{6,}"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)


class Account(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A provider account, and how long to wait for it."""

    name: str
    adapter: Adapter
    base_url: str
    """What adapters' paths are appended to: scheme, host and perhaps a path, without a slash at its end."""
    api_key: str | None = None
    timeouts: Timeouts = Timeouts()
    poll_interval: float = 2.0
    """Seconds before a task is asked for the first time; later questions are further apart."""
    deadline: float = 300.0
    """Seconds that a task may take."""
    reply_limit: int = 512 * 1024**2
    """Bytes of a reply."""

    @cached_property
    def origin(self) -> str:
        """Scheme and host of `base_url`."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    def url(self, path: str) -> str:
        """The full URL of an adapter's path."""
        return self.base_url + path

    def poll_url(self, link: str) -> str:
        """The full URL of a link to a task, as the provider gave it; relative ones are taken from the origin.

        Raises:
            UpstreamUncertain: it leads to another origin, where our key must not go.
        """
        try:
            base_path = urlsplit(self.base_url).path
            if link.startswith("/") and not link.startswith(("//", f"{base_path}/")):
                return self.base_url + link
            url = urljoin(f"{self.origin}/", link)
            parts = urlsplit(url)
            same = f"{parts.scheme}://{parts.netloc}" == self.origin
        except ValueError:
            same, url = False, ""
        if not same:
            raise uncertain("The provider's task has an address that cannot be used.")
        return url

    def headers(self, authorization: str | None) -> list[tuple[str, str]]:
        """Only what a provider needs: nothing of the client's goes upstream but its key, where there is no other."""
        headers = list(_HEADERS)
        if key := f"Bearer {self.api_key}" if self.api_key else authorization:
            headers.append(("authorization", key))
        return headers


async def converse(
    client: HTTPClient,
    upstream: Account,
    request: UpstreamRequest,
    *,
    authorization: str | None,
    progress: Progress,
    taker: ReplyConsumer | None = None,
    on_task: Callable[[PendingTask], Awaitable[bool]] | None = None,
) -> ImageReply | None:
    """Sends a request once, and follows the task that it may become.

    Args:
        taker: gets what the layers above take before the reply is complete.
        on_task: is told of the task, and says whether it will be asked for elsewhere.

    Returns:
        The reply; None where `taker` has got all of it, or `on_task` has taken the task.

    Raises:
        UpstreamError: classified by what may have been made, its text free of keys and hosts.
        StorageError: `taker` did not take a picture.
    """
    headers = upstream.headers(authorization)
    if progress.traceparent:
        headers.append(("traceparent", progress.traceparent))
    started = time.perf_counter()
    try:
        progress.attempts += 1
        reply = await _send(client, upstream, request, headers, taker=taker, progress=progress)
        if reply is None:
            return None
        result = _decode(upstream, reply)
        if isinstance(result, PendingTask):
            progress.upstream_task_id = result.id[:256]
            if on_task is not None and await on_task(result):
                return None
            result = await _wait(client, upstream, result, headers=headers, progress=progress, taker=taker)
        return _absolute(result, upstream)
    except UpstreamError as error:
        _scrub(error, upstream, authorization)
        raise
    finally:
        progress.upstream_seconds += time.perf_counter() - started


async def upload_file(client: HTTPClient, upstream: Account, upload: Upload, *, authorization: str | None) -> str:
    """Hands a file to the provider's upload API and returns the link to it. Uploading costs nothing.

    Raises:
        UpstreamError: it was not taken.
    """
    request = upstream.adapter.encode_upload(upload)
    try:
        reply = await _whole(client, upstream, request, upstream.headers(authorization))
        return upstream.adapter.decode_upload(reply)
    except UpstreamError as error:
        _scrub(error, upstream, authorization)
        error.message = f"The provider did not take the reference image: {error.message}"
        error.costs_nothing()
        raise


def _decode(upstream: Account, reply: UpstreamReply) -> ImageReply | PendingTask:
    """What the adapter reads, with the pictures that came in apart."""
    try:
        result = upstream.adapter.decode(reply, now=int(time.time()))
    except UpstreamError as error:
        error.made = images_with_pictures(error.made, reply.pictures)
        raise
    return with_pictures(result, reply.pictures) if isinstance(result, ImageReply) else result


async def _whole(
    client: HTTPClient, upstream: Account, request: UpstreamRequest, headers: list[tuple[str, str]]
) -> UpstreamReply:
    """A reply that nobody takes in parts."""
    reply = await _send(client, upstream, request, headers)
    if reply is None:
        raise AssertionError("only a taker can have taken it")
    return reply


async def _send(
    client: HTTPClient,
    upstream: Account,
    request: UpstreamRequest,
    headers: list[tuple[str, str]],
    *,
    url: str = "",
    taker: ReplyConsumer | None = None,
    progress: Progress | None = None,
) -> UpstreamReply | None:
    content, more = _content(request)
    response: Response | None = None
    try:
        response = await client.send(
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
            await close(response)


def _content(request: UpstreamRequest) -> tuple[bytes | AsyncIterable[bytes] | None, list[tuple[str, str]]]:
    """The body and the headers that describe it; a form is made while it is sent."""
    if not request.parts:
        return request.body, [("content-type", request.content_type)] if request.content_type else []
    form = FormBody(request.parts, request.live)
    headers = [("content-type", form.content_type)]
    if form.length is not None:
        headers.append(("content-length", str(form.length)))
    return form_chunks(form), headers


async def _wait(
    client: HTTPClient,
    upstream: Account,
    task: PendingTask,
    *,
    headers: list[tuple[str, str]],
    progress: Progress,
    taker: ReplyConsumer | None,
) -> ImageReply:
    """Asks for a task until it ends. Questions cost nothing, so one that fails is simply asked again.

    Only the provider's word that the task has ended is an answer; everything else leaves open what was made.
    """
    pause = upstream.poll_interval
    if taker is not None:  # what a task has made is never passed on as it is
        taker = msgspec.structs.replace(taker, relay=False, events=False)
    try:
        async with asyncio.timeout(upstream.deadline):
            while True:
                await asyncio.sleep(pause)
                pause = min(pause * _POLL_GROWTH, max(_SLOWEST_POLL, upstream.poll_interval))
                progress.polls += 1
                reply = await _ask(client, upstream, task, headers, taker)
                if reply is None:
                    continue
                if reply.status in (408, 425, 429) or reply.status >= 500:
                    pause = max(pause, _retry_after(reply))
                    continue
                result = _decode(upstream, reply)
                if isinstance(result, ImageReply):
                    return result
                task = result if result.poll_url else msgspec.structs.replace(task, progress=result.progress)
    except TimeoutError:
        error: UpstreamError = uncertain(
            f"The provider's task was not ready after {upstream.deadline:g} s.", timed_out=True
        )
    except UpstreamError as failure:
        error = failure if failure.ends_task else _lost(failure)
    error.details["upstream_task_id"] = task.id[:256]
    raise error


async def _ask(
    client: HTTPClient,
    upstream: Account,
    task: PendingTask,
    headers: list[tuple[str, str]],
    taker: ReplyConsumer | None,
) -> UpstreamReply | None:
    """One question; None where there was no answer that can be read."""
    request = upstream.adapter.poll(task)
    url = upstream.poll_url(task.poll_url) if task.poll_url else upstream.url(request.path)
    try:
        reply = await _send(client, upstream, request, headers, url=url, taker=taker)
    except UpstreamError:
        return None
    return reply if reply is None or reply.status >= 400 or reply.body.lstrip()[:1] == b"{" else None


def _retry_after(reply: UpstreamReply) -> float:
    """Seconds that the provider asks to wait, a minute at most."""
    return min(seconds_asked(reply.headers, now=time.time()) or 0.0, 60.0)


def _lost(error: UpstreamError) -> UpstreamError:
    """The provider took the request, and perhaps the money, and cannot say what became of it."""
    lost = uncertain(f"The provider lost the task: {error.message}")
    lost.code = "task_lost"
    lost.details, lost.made = error.details, error.made
    return lost


def _absolute(reply: ImageReply, upstream: Account) -> ImageReply:
    """The same reply with full links; a link that is none of http is no picture."""
    if not any(image.url for image in reply.images):
        return reply
    images: list[ReplyImage] = []
    for image in reply.images:
        if image.url is not None:
            image = msgspec.structs.replace(image, url=absolute_link(image.url, upstream.origin))
        images.append(image)
    return msgspec.structs.replace(reply, images=tuple(images))


def _scrub(error: UpstreamError, upstream: Account, authorization: str | None) -> None:
    """Providers quote keys and addresses in their texts; clients do not get to see them."""
    parts = urlsplit(upstream.base_url)
    key = upstream.api_key or (authorization or "").rpartition(" ")[2]
    secrets = [secret for secret in (key, parts.netloc, parts.hostname or "") if len(secret) >= _SHORTEST_SECRET]
    pattern = re.compile("|".join([*map(re.escape, secrets), _KEY_LIKE]), re.IGNORECASE)

    def clean(text: str) -> str:
        return pattern.sub("[...]", text)

    error.message = clean(error.message)
    error.type = clean(error.type)
    error.code = clean(error.code) if error.code else None
    error.param = clean(error.param) if error.param else None
    error.details = {name: clean(value) if isinstance(value, str) else value for name, value in error.details.items()}


async def ask_task(
    client: HTTPClient, upstream: Account, task: PendingTask, *, authorization: str | None
) -> ImageReply | PendingTask:
    """Asks once how a task is getting on.

    Raises:
        UpstreamError: it ended without pictures (``ends_task``), or there is no answer.
    """
    request = upstream.adapter.poll(task)
    return await _question(client, upstream, request, task.poll_url, authorization)


async def cancel_task(
    client: HTTPClient, upstream: Account, task: PendingTask, *, authorization: str | None
) -> ImageReply | PendingTask | None:
    """Asks the provider to give a task up; None: it has no way to be asked. Raises as `ask_task`."""
    request = upstream.adapter.cancel(task)
    return None if request is None else await _question(client, upstream, request, task.poll_url, authorization)


async def _question(
    client: HTTPClient, upstream: Account, request: UpstreamRequest, link: str | None, authorization: str | None
) -> ImageReply | PendingTask:
    try:
        url = upstream.poll_url(link) if link else upstream.url(request.path)
        reply = await _send(client, upstream, request, upstream.headers(authorization), url=url)
        if reply is None:
            raise AssertionError("only a taker can have taken it")
        result = _decode(upstream, reply)
        return _absolute(result, upstream) if isinstance(result, ImageReply) else result
    except UpstreamError as error:
        _scrub(error, upstream, authorization)
        raise


async def explanation(
    upstream: Account, request: UpstreamRequest, *, authorization: str | None, changes: Any
) -> dict[str, Any]:
    """What would be sent, for people: keys are not shown, files are told by name, type, size and SHA-256."""
    _, more = _content(request)
    headers = {
        name: "Bearer [redacted]" if name == "authorization" else value
        for name, value in [*upstream.headers(authorization), *more]
    }
    body: Any = msgspec.json.decode(request.body) if request.body else None
    if request.parts:
        body = [await _shown(part) for part in request.parts]
    return {
        "upstream": upstream.name,
        "method": request.method,
        "url": upstream.url(request.path),
        "headers": headers,
        "body": body,
        "changes": changes,
    }


async def _shown(part: TextPart | FilePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"name": part.name, "value": part.value}
    return {
        "name": part.name,
        "filename": part.upload.filename,
        "type": part.upload.media_type,
        "size": part.upload.size,
        "sha256": await sha256_of(part.upload),
    }
