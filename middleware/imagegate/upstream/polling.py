"""Tasks of a provider: waiting for one to end, asking how it gets on, and cancelling it."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from imagegate.adapter import UpstreamRequest
from imagegate.errors import UpstreamError
from imagegate.protocol.headers import seconds_asked
from imagegate.protocol.messages import ImageReply
from imagegate.protocol.provider_errors import uncertain
from imagegate.protocol.replies import PendingTask, UpstreamReply
from imagegate.streaming.reply_reader import ReplyConsumer
from imagegate.telemetry.progress import Progress
from imagegate.upstream.account import Account
from imagegate.upstream.sending import decode, scrub, send_request, with_full_links

_SLOWEST_POLL: Final = 10.0
_POLL_GROWTH: Final = 1.5


async def wait_for_task(
    upstream: Account,
    task: PendingTask,
    *,
    headers: list[tuple[str, str]],
    progress: Progress,
    taker: ReplyConsumer | None,
) -> ImageReply:
    """Ask for a task until it ends. Questions cost nothing, so one that fails is simply asked again.

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
                reply = await _ask(upstream, task, headers, taker)
                if reply is None:
                    continue
                if reply.status in (408, 425, 429) or reply.status >= 500:
                    pause = max(pause, _retry_after(reply))
                    continue
                result = decode(upstream, reply)
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
    upstream: Account,
    task: PendingTask,
    headers: list[tuple[str, str]],
    taker: ReplyConsumer | None,
) -> UpstreamReply | None:
    """One question; None where there was no answer that can be read."""
    request = upstream.adapter.poll(task)
    url = upstream.poll_url(task.poll_url) if task.poll_url else upstream.url(request.path)
    try:
        reply = await send_request(upstream, request, headers, url=url, taker=taker)
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


async def ask_task(upstream: Account, task: PendingTask, *, authorization: str | None) -> ImageReply | PendingTask:
    """Ask once how a task is getting on.

    Raises:
        UpstreamError: it ended without pictures (``ends_task``), or there is no answer.
    """
    request = upstream.adapter.poll(task)
    return await _question(upstream, request, task.poll_url, authorization)


async def cancel_task(
    upstream: Account, task: PendingTask, *, authorization: str | None
) -> ImageReply | PendingTask | None:
    """Ask the provider to give a task up; None: it has no way to be asked. Raises as `ask_task`."""
    request = upstream.adapter.cancel(task)
    return None if request is None else await _question(upstream, request, task.poll_url, authorization)


async def _question(
    upstream: Account, request: UpstreamRequest, link: str | None, authorization: str | None
) -> ImageReply | PendingTask:
    try:
        url = upstream.poll_url(link) if link else upstream.url(request.path)
        reply = await send_request(upstream, request, upstream.headers(authorization), url=url)
        if reply is None:
            raise AssertionError("only a taker can have taken it")
        result = decode(upstream, reply)
        return with_full_links(result, upstream) if isinstance(result, ImageReply) else result
    except UpstreamError as error:
        scrub(error, upstream, authorization)
        raise
