"""Tasks of a provider: waiting for one to end, asking how it gets on, and cancelling it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec

from imagegate.adapter import UpstreamRequest
from imagegate.errors import UpstreamError
from imagegate.protocol.headers import seconds_asked
from imagegate.protocol.messages import HeldMemory, ImageReply
from imagegate.protocol.provider_errors import uncertain
from imagegate.protocol.replies import UpstreamReply, may_be_read
from imagegate.protocol.reply_errors import NO_IMAGE
from imagegate.protocol.reply_tasks import PendingTask
from imagegate.streaming.image_sinks import PictureSink
from imagegate.streaming.reply_reader import ReplyConsumer
from imagegate.telemetry.progress import Progress
from imagegate.tracing import operation
from imagegate.upstream.account import Account
from imagegate.upstream.sending import (
    decode,
    discard,
    forget,
    is_for_questions,
    scrub,
    send_request,
    with_full_links,
)

_SLOWEST_POLL: Final = 10.0
_POLL_GROWTH: Final = 1.5
_LOOK_UPS: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each question for a task whose request may have been lost."""

_NOTHING_THERE: Final = frozenset({404, 405, 410})
_ASK_AGAIN: Final = (408, 425, 429, 503)
"""Statuses of a question that says nothing of the task; some providers name them in a 200."""

Headers = Callable[[], Awaitable[list[tuple[str, str]]]]
"""Returns the header fields of a request, with a token that has not ended."""


async def wait_for_task(
    upstream: Account,
    task: PendingTask,
    *,
    headers: Headers,
    progress: Progress,
    consumer: ReplyConsumer | None,
    held: HeldMemory | None = None,
) -> ImageReply:
    """Ask for a task until it ends. Questions cost nothing, so one that fails is simply asked again.

    Only the provider's word that the task has ended is an answer; everything else leaves open what was made.
    """
    with operation("poll", account=upstream, task_id=task.id[:256]) as traced:
        before = progress.polls
        try:
            return await _until_over(upstream, task, headers, progress, consumer, held)
        finally:
            traced.note(polls=progress.polls - before)


async def _until_over(
    upstream: Account,
    task: PendingTask,
    headers: Headers,
    progress: Progress,
    consumer: ReplyConsumer | None,
    held: HeldMemory | None,
) -> ImageReply:
    pause = upstream.poll_interval
    at_once = task.is_over
    consumer = _without_relay(consumer)
    try:
        async with asyncio.timeout(upstream.deadline):
            while True:
                if not at_once:
                    await asyncio.sleep(pause)
                    pause = min(pause * _POLL_GROWTH, max(_SLOWEST_POLL, upstream.poll_interval))
                at_once = False
                progress.polls += 1
                reply = await _ask(upstream, task, headers, consumer, held)
                if reply is None:
                    continue
                if reply.status in _ASK_AGAIN or reply.status >= 500:
                    _check_end(upstream, reply, task)
                    pause = max(pause, _retry_after(reply))
                    forget(reply, held)
                    continue
                try:
                    result = decode(upstream, reply, task)
                except UpstreamError as failure:
                    if failure.ends_task or failure.status not in _ASK_AGAIN:
                        raise
                    pause = max(pause, min(failure.retry_after or 0.0, 60.0))
                    forget(reply, held)
                    continue
                if isinstance(result, ImageReply):
                    return result
                forget(reply, held)
                at_once = result.is_over and not task.is_over
                task = _next(task, result)
    except TimeoutError:
        error: UpstreamError = uncertain(
            f"The provider's task was not ready after {upstream.deadline:g} s.", timed_out=True
        )
    except UpstreamError as failure:
        _note_readings(failure, upstream, task.poll_url)
        error = failure if failure.ends_task or failure.code == NO_IMAGE else _lost(failure)
    error.details["upstream_task_id"] = task.id[:256]
    raise error


def _check_end(upstream: Account, reply: UpstreamReply, task: PendingTask) -> None:
    """Raise what a reply with the status of an outage says of a task that has ended: BFL and fal answer failures so."""
    try:
        decode(upstream, reply, task)
    except UpstreamError as error:
        if error.ends_task:
            raise


def _next(task: PendingTask, answer: PendingTask) -> PendingTask:
    """Return what is asked for next."""
    if answer.poll_url:
        return msgspec.structs.replace(answer, cancel_url=answer.cancel_url or task.cancel_url)
    return msgspec.structs.replace(task, progress=answer.progress, is_over=answer.is_over)


def _without_relay(consumer: ReplyConsumer | None) -> ReplyConsumer | None:
    """Return what takes the pictures of a task: what it has made is never passed on as it is."""
    return None if consumer is None else msgspec.structs.replace(consumer, relay=False, events=False)


async def find_job(
    upstream: Account,
    job_id: str,
    *,
    headers: Headers,
    lost: UpstreamError,
    consumer: ReplyConsumer | None = None,
    held: HeldMemory | None = None,
) -> ImageReply | PendingTask:
    """Look up a task by the id that its request gave it, because the reply to the request was lost.

    The request may still be on its way, so that a provider that does not know the task yet is asked again, within the
    time that a task may take.

    Raises:
        UpstreamError: `lost`, or the provider's word that the task has ended without a picture.
    """
    task = PendingTask(id=job_id)
    with suppress(TimeoutError):
        async with asyncio.timeout(upstream.deadline):
            for pause in _LOOK_UPS:
                await asyncio.sleep(pause)
                reply = await _ask(upstream, task, headers, _without_relay(consumer), held)
                if reply is None:
                    continue
                try:
                    return decode(upstream, reply, task)
                except UpstreamError as error:
                    forget(reply, held)
                    if error.ends_task:
                        raise
    raise lost


async def _ask(
    upstream: Account, task: PendingTask, headers: Headers, consumer: ReplyConsumer | None, held: HeldMemory | None
) -> UpstreamReply | None:
    """One question; None where there was no answer that can be read."""
    request, link = _question_about(upstream, task), task.poll_url or ""
    first = _address(upstream, request, link)  # one that may not be asked is no failure that passes
    try:
        reply = await _asked(upstream, request, first, link, await headers(), consumer, held)
    except UpstreamError:
        return None
    if reply is None or reply.status >= 300 or may_be_read(reply):
        return reply
    forget(reply, held)
    return None


def _address(upstream: Account, request: UpstreamRequest, link: str) -> str:
    """Return where a question goes. Raises `UpstreamError` for a link to another host."""
    return upstream.own_url(link) if link else upstream.url(request.path)


async def _asked(
    upstream: Account,
    request: UpstreamRequest,
    first: str,
    link: str,
    headers: list[tuple[str, str]],
    consumer: ReplyConsumer | None,
    held: HeldMemory | None,
) -> UpstreamReply | None:
    """Return the answer of the address that a link leads to; where nothing is there, of another one that it may mean.

    Raises as `send_request`.
    """
    reply = await send_request(upstream, request, headers, url=first, consumer=consumer, held=held)
    if not link or reply is None or reply.status not in _NOTHING_THERE:
        return reply
    for url in upstream.other_readings(link):
        other = await send_request(upstream, request, headers, url=url, consumer=consumer, held=held)
        if other is None or other.status not in _NOTHING_THERE:
            forget(reply, held)
            return other
        forget(other, held)
    return reply


def _note_readings(error: UpstreamError, upstream: Account, link: str | None) -> None:
    """Say in the error of a task that was not found where it was looked for, if there was more than one place."""
    if not link or error.status not in _NOTHING_THERE or not (others := upstream.other_readings(link)):
        return
    urls = (upstream.own_url(link), *others)
    places = " and at ".join(f"'{url.removeprefix(upstream.origin).partition('?')[0]}'" for url in urls)
    error.message = f"{error.message} Its link may mean several addresses; it was looked for at {places}."


def _question_about(upstream: Account, task: PendingTask) -> UpstreamRequest:
    """Raise `UpstreamUncertain` where the adapter would ask in a way that may do something."""
    request = upstream.adapter.poll(task)
    if request.method == "GET":
        return request
    if request.method == "POST" and is_for_questions(upstream, task.poll_url or request.path):
        return request
    raise uncertain("The provider's task cannot be asked for by a GET request.")


def _retry_after(reply: UpstreamReply) -> float:
    """Return the seconds that the provider asks to wait, a minute at most."""
    return min(seconds_asked(reply.headers, now=time.time()) or 0.0, 60.0)


def _lost(error: UpstreamError) -> UpstreamError:
    """Return the error for a request that its provider accepted, may have charged for, and cannot report on."""
    lost = uncertain(f"The provider lost the task: {error.message}")
    lost.code = "task_lost"
    lost.details, lost.made, lost.is_whole = error.details, error.made, error.is_whole
    return lost


async def ask_task(
    upstream: Account,
    task: PendingTask,
    *,
    authorization: str | None,
    sink: Callable[[], PictureSink] | None = None,
    held: HeldMemory | None = None,
) -> ImageReply | PendingTask:
    """Ask once how a task is getting on, and fetch its result where it is over.

    Args:
        sink: returns what takes pictures of a large reply; None: such a reply is an error.
        held: counts the reply.

    Raises:
        UpstreamError: it ended without pictures (``ends_task``), or there is no answer.
    """
    consumer = None if sink is None else ReplyConsumer(send=discard, sink=sink)
    answer = await _question(upstream, _question_about(upstream, task), task, authorization, consumer, held)
    if isinstance(answer, PendingTask) and answer.is_over:
        over = _next(task, answer)
        answer = await _question(upstream, _question_about(upstream, over), over, authorization, consumer, held)
    return answer


async def cancel_task(
    upstream: Account, task: PendingTask, *, authorization: str | None
) -> ImageReply | PendingTask | None:
    """Ask the provider to give a task up; None: it has no way to be asked. Raises as `ask_task`."""
    request = upstream.adapter.cancel(task)
    return None if request is None else await _question(upstream, request, task, authorization)


async def _question(
    upstream: Account,
    request: UpstreamRequest,
    task: PendingTask,
    authorization: str | None,
    consumer: ReplyConsumer | None = None,
    held: HeldMemory | None = None,
) -> ImageReply | PendingTask:
    try:
        with operation("poll", account=upstream, task_id=task.id[:256], polls=1) as traced:
            link = request.url or task.poll_url or ""
            headers = await upstream.headers(authorization, traced.headers)
            first = _address(upstream, request, link)
            reply = await _asked(upstream, request, first, link, headers, consumer, held)
            if reply is None:
                raise AssertionError("only a consumer can have taken it")
            result = decode(upstream, reply, task)
            return with_full_links(result, upstream) if isinstance(result, ImageReply) else result
    except UpstreamError as error:
        _note_readings(error, upstream, request.url or task.poll_url)
        scrub(error, upstream, authorization)
        raise
