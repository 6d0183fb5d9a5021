"""What a paid request may need beside its reply: its task, which may have to be looked for, and uploads."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from urllib.parse import quote

import msgspec

from imagegate.errors import UpstreamError
from imagegate.protocol.messages import ImageReply
from imagegate.protocol.reply_tasks import PendingTask
from imagegate.spool.upload import Upload
from imagegate.tracing import operation
from imagegate.upstream.account import Account
from imagegate.upstream.polling import find_job, wait_for_task
from imagegate.upstream.sending import PaidRequest, ask, scrub, whole_reply, with_full_links


async def ask_or_find(paid: PaidRequest) -> ImageReply | PendingTask | None:
    """Send a paid request once, as `ask` does; where its reply was lost, look for its task by `UpstreamRequest.job_id`.

    Raises as `ask`, also where the provider does not know the task.
    """
    upstream = paid.upstream
    try:
        return await ask(paid)
    except UpstreamError as lost:  # not kept for longer: it leads to this frame
        if lost.outcome != "uncertain":
            raise
        with _timed(paid):
            found = await find_job(
                upstream,
                paid.request.job_id,
                headers=partial(upstream.headers, paid.authorization, paid.trace),
                lost=lost,
                consumer=paid.consumer,
                held=paid.held,
            )
            return with_full_links(found, upstream) if isinstance(found, ImageReply) else found


async def follow(
    paid: PaidRequest, task: PendingTask, on_task: Callable[[PendingTask], Awaitable[bool]] | None = None
) -> ImageReply | None:
    """Wait for the task that a request has become. Raises as `ask`.

    Args:
        on_task: is called with the task first; returns whether it will be polled elsewhere.

    Returns:
        The pictures; None where the task is polled elsewhere.
    """
    upstream, path = paid.upstream, paid.request.task_path
    if path and not task.poll_url:
        task = msgspec.structs.replace(task, poll_url=path.replace("{id}", quote(task.id, safe="")))
    paid.progress.upstream_task_id = task.id[:256]
    with _timed(paid):
        if on_task is not None and await on_task(task):
            paid.progress.is_handed_over = True
            return None
        reply = await wait_for_task(
            upstream,
            task,
            headers=partial(upstream.headers, paid.authorization, paid.trace),
            progress=paid.progress,
            consumer=paid.consumer,
            held=paid.held,
        )
        return with_full_links(reply, upstream)


@contextmanager
def _timed(paid: PaidRequest) -> Generator[None]:
    """Count the seconds of a block, and take keys and addresses out of its errors."""
    started = time.perf_counter()
    try:
        yield
    except UpstreamError as error:
        scrub(error, paid.upstream, paid.authorization)
        raise
    finally:
        paid.progress.upstream_seconds += time.perf_counter() - started


async def upload_file(upstream: Account, upload: Upload, *, authorization: str | None) -> str:
    """Hand a file to the provider's upload API and return the link to it. Uploading costs nothing.

    Raises:
        UpstreamError: it was not taken.
    """
    request = upstream.adapter.encode_upload(upload)
    try:
        with operation("upload", account=upstream) as traced:
            headers = await upstream.headers(authorization, traced.headers)
            reply = await whole_reply(upstream, request, headers)
            return upstream.adapter.decode_upload(reply)
    except UpstreamError as error:
        scrub(error, upstream, authorization)
        error.message = f"The provider did not take the reference image: {error.message}"
        error.costs_nothing()
        raise
