"""A paid request, from sending it to the pictures; and the upload of a file that it refers to."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from urllib.parse import quote

import msgspec

from imagegate.adapter import UpstreamRequest
from imagegate.errors import UpstreamError, UpstreamUnreachable
from imagegate.protocol.messages import HeldMemory, ImageReply
from imagegate.protocol.replies import UpstreamReply
from imagegate.protocol.reply_tasks import PendingTask
from imagegate.protocol.trace_context import trace_headers
from imagegate.spool.upload import Upload
from imagegate.streaming.reply_reader import ReplyConsumer
from imagegate.telemetry.progress import Progress
from imagegate.tracing import operation
from imagegate.upstream.account import Account
from imagegate.upstream.polling import find_job, is_for_questions, wait_for_task
from imagegate.upstream.sending import decode, forget, scrub, send_request, whole_reply, with_full_links


async def converse(
    upstream: Account,
    request: UpstreamRequest,
    *,
    authorization: str | None,
    progress: Progress,
    consumer: ReplyConsumer | None = None,
    on_task: Callable[[PendingTask], Awaitable[bool]] | None = None,
    held: HeldMemory | None = None,
    trace: Sequence[tuple[str, str]] = (),
) -> ImageReply | None:
    """Send a request once, and follow the task that it may become.

    Args:
        consumer: gets what the layers above take before the reply is complete.
        on_task: is called with the task; returns whether it will be polled elsewhere.
        held: counts the reply that is returned.
        trace: fields of W3C Trace Context that go upstream; none: those of the exchange do.

    Returns:
        The reply; None where `consumer` has got all of it, or `on_task` has taken the task.

    Raises:
        UpstreamError: classified by what may have been made, its text free of keys and hosts.
        StorageError: `consumer` did not take a picture.
    """
    if not trace and progress.traceparent:
        trace = trace_headers(progress.traceparent, progress.tracestate)
    headers = partial(upstream.headers, authorization, trace)
    started = time.perf_counter()
    reply: UpstreamReply | None = None
    try:
        if upstream.adapter.question_suffix and is_for_questions(upstream, request.path):
            raise UpstreamUnreachable("The adapter would pay at an address for questions, which may be asked again.")
        progress.attempts += 1
        try:
            reply = await send_request(
                upstream, request, await headers(), consumer=consumer, progress=progress, held=held
            )
            if reply is None:
                return None
            result = decode(upstream, reply)
        except UpstreamError as error:
            if not request.job_id or error.outcome != "uncertain":
                raise
            forget(reply, held)
            reply = None
            result = await find_job(upstream, request.job_id, headers=headers, lost=error, consumer=consumer, held=held)
        if isinstance(result, PendingTask):
            if request.task_path and not result.poll_url:
                path = request.task_path.replace("{id}", quote(result.id, safe=""))
                result = msgspec.structs.replace(result, poll_url=path)
            progress.upstream_task_id = result.id[:256]
            if on_task is not None and await on_task(result):
                return None
            forget(reply, held)
            reply = None
            result = await wait_for_task(
                upstream, result, headers=headers, progress=progress, consumer=consumer, held=held
            )
        return with_full_links(result, upstream)
    except UpstreamError as error:
        forget(reply, held)
        scrub(error, upstream, authorization)
        raise
    finally:
        progress.upstream_seconds += time.perf_counter() - started


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
