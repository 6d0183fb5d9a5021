"""Runs one call for all requests with the same idempotency key: concurrent ones join it, later ones get a replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Final

import msgspec
from starlette.types import Send

from imagegate.asgi.background import Background, is_cancelled
from imagegate.errors import ImagegateError
from imagegate.idempotency.base import Claim, ReplayStore, ReplaysUnavailable
from imagegate.idempotency.keys import Facts, KeptReply, KeyReused, described, error_reply, goes_inline, is_kept
from imagegate.idempotency.leases import Leases
from imagegate.idempotency.memory import MemoryReplays
from imagegate.idempotency.outcomes import no_longer_kept
from imagegate.idempotency.recording import Recording, recording_memory, send_pieces, start_of
from imagegate.logger import get_logger
from imagegate.protocol.provider_errors import uncertain
from imagegate.stores.blobs import Blobs, FileBlobs, whole
from imagegate.telemetry.progress import Progress

REPLAYED: Final = (b"idempotency-replayed", b"true")
_MEMORY: Final = 16 * 1024**2
"""Bytes of answers in flight that may be in memory; the rest is on disk."""
_FIRST_LOOK: Final = 0.1
_SLOWEST_LOOK: Final = 1.0
"""Seconds between two looks at what another process is doing."""
_DAY: Final = 86400.0
_KEPT: Final = 1024**3


class Call:
    """What requests with one key share.

    Args:
        progress: of the request that leads.
    """

    def __init__(self, claim: Claim, progress: Progress, recording: Recording) -> None:
        self.claim = claim
        self.started = perf_counter()
        self.error: ImagegateError | None = None
        self.progress = progress
        self.recording = recording
        self.marking = asyncio.Lock()
        """The parts of a split request are sent at the same time, and are one call all the same."""

    @property
    def sent(self) -> bool:
        """Whether a POST may have gone out."""
        return self.claim.sent


Work = Callable[[Call], Awaitable[None]]
"""Does the call, and sends the answer into its recording."""


class KeyedCalls:
    """Runs keyed calls to completion, even if all clients disconnect.

    Args:
        store: of answers, and of who is at work.
        blobs: for large answers.
        background: runs the calls.
        lease: seconds; renewed three times as often.
    """

    def __init__(self, store: ReplayStore, blobs: Blobs, background: Background, *, lease: float) -> None:
        self._store = store
        self._blobs = blobs
        self.background = background
        """Runs calls that begin from now on."""
        self._leases = Leases(store, lease=lease)
        self._memory = recording_memory(_MEMORY)
        self._calls: dict[str, Call] = {}

    def start(self) -> None:
        """Begin to renew leases; call where an event loop runs."""
        self._leases.start()

    async def answer(
        self,
        slot: str,
        fingerprint: str,
        work: Work,
        send: Send,
        progress: Progress,
        *,
        ttl: float,
        on_begin: Callable[[], None] = lambda: None,
        on_end: Callable[[Call], None] = lambda call: None,
    ) -> None:
        """Answer a request: from a call in flight or a recorded response, else by running `work`.

        Args:
            ttl: seconds that the answer is kept.
            on_begin: called where this request leads, before it gives way to others.
            on_end: called when the call that it leads has ended.

        Raises:
            KeyReused: the key belongs to another body.
            ImagegateError: the call ended so.
        """
        call = self._calls.get(slot)
        if call is not None and call.claim.fingerprint != fingerprint:
            raise KeyReused
        is_replay = call is not None and call.recording.is_readable  # and may not be kept yet
        if call is None:
            call = self._calls[slot] = Call(Claim(slot, fingerprint, ttl), progress, Recording(self._memory))
            self._leases.start()
            on_begin()
            self.background.start(self._lead(call, work)).add_done_callback(partial(_ended, on_end, call))
        else:
            progress.idempotent = "replayed" if is_replay else "joined"
        with call.recording.read():
            await self._follow(call, send, progress, *((REPLAYED,) if is_replay else ()))

    async def mark_sent(self, call: Call) -> None:
        """Call before a POST is sent. Raises where it must not be."""
        async with call.marking:
            try:
                is_ours = await self._store.mark_sent(call.claim)
            except ReplaysUnavailable:
                if call.sent:
                    return  # it is kept that one was sent, and this is one more of the same call
                raise
            if not is_ours:
                raise ReplaysUnavailable  # the lease expired and another process took the slot
            call.claim.sent = True

    async def aclose(self) -> None:
        """Call after the last call has ended."""
        await self._leases.aclose()
        await self._store.aclose()

    # Requests that wait for a response

    async def _follow(self, call: Call, send: Send, progress: Progress, *more: tuple[bytes, bytes]) -> None:
        """Hand the answer on while it comes, with some headers more."""
        leads = progress is call.progress
        try:
            await call.recording.begun()
        except _Replaced as replaced:
            await self._replay(replaced.reply, send, progress)
            return
        except ImagegateError as error:
            if not leads:
                Facts.of(call.progress).copy_to(progress)
            copied = _copy(error)
            copied.headers += more
            raise copied from error
        if not leads:
            Facts.of(call.progress).copy_to(progress)  # for the headers
        await call.recording.replay(send, *more)
        if not leads:
            Facts.of(call.progress).copy_to(progress)

    async def _replay(self, reply: KeptReply, send: Send, progress: Progress) -> None:
        """Send an answer that was made before, or by another process."""
        pieces: AsyncIterator[bytes] | None = self._blobs.read(reply.blob) if reply.blob else None
        first = b""
        if pieces is not None:
            try:
                first = await anext(pieces, b"")
            except OSError:
                reply, pieces = no_longer_kept(), None
        progress.idempotent = progress.idempotent or "replayed"
        reply.facts.copy_to(progress)
        await send(start_of(reply, REPLAYED))
        if pieces is None:
            await send({"type": "http.response.body", "body": (reply.body or "").encode()})
            return
        await send({"type": "http.response.body", "body": first, "more_body": True})
        await send_pieces(send, pieces)

    # The call that makes it

    async def _lead(self, call: Call, work: Work) -> None:
        try:
            kept = await self._kept_reply(call)
            if kept is not None:
                call.recording.fail(_Replaced(kept))
            else:
                await self._make(call, work)
        except ImagegateError as error:
            call.error = error
            call.recording.fail(error)
        except asyncio.CancelledError:
            call.recording.fail(_unknown(call))
            raise
        except Exception:
            call.recording.fail(_unknown(call))
            get_logger().exception("unexpected error", request_id=call.progress.request_id)
        finally:
            if self._calls.get(call.claim.slot) is call:
                del self._calls[call.claim.slot]
            self._leases.give_up(call.claim)
            call.recording.release()

    async def _kept_reply(self, call: Call) -> KeptReply | None:
        """Return the recorded response, waiting for another process; None: this process makes it."""
        pause = _FIRST_LOOK
        while True:
            found = await self._store.begin(call.claim)
            if isinstance(found, KeptReply):
                return found
            if found == "elsewhere":
                call.progress.idempotent = "joined"
            else:
                self._leases.hold(call.claim)
                if found == "mine":
                    return None
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_LOOK)

    async def _make(self, call: Call, work: Work) -> None:
        try:
            await work(call)
            if not call.recording.is_whole:
                raise _unknown(call)
        except BaseException as error:
            if is_kept(error, sent=call.sent):
                known = error if isinstance(error, ImagegateError) else _unknown(call)
                call.recording.fail(known)
                await self._keep(call, error_reply(_copy(known), call.progress))
            else:
                await self._release(call)  # first, so that the client's retry does not meet it
            raise
        if not self._is_success(call):
            await self._release(call)
            return
        reply = KeptReply(
            status=call.recording.status,
            headers=described(call.recording.headers),
            size=call.recording.size,
            facts=Facts.of(call.progress),
        )
        await self._keep(call, await self._with_body(reply, call.recording))

    @staticmethod
    def _is_success(call: Call) -> bool:
        """Return whether an answer that has ended is kept, also one that turned out to be an uncertain error."""
        progress = call.progress
        if call.recording.status >= 400:
            return False  # an application below has answered its error itself
        return not progress.error_code or progress.outcome not in ("not_sent", "rejected")

    async def _with_body(self, reply: KeptReply, recording: Recording) -> KeptReply:
        if recording.has_forgotten:
            get_logger().warning("idempotency: the disk did not take the response, so it is not kept")
            return no_longer_kept()
        if recording.size <= self._store.inline_limit:
            body = await whole(recording.body())
            if goes_inline(body):
                return msgspec.structs.replace(reply, body=body.decode())
        try:
            return msgspec.structs.replace(reply, blob=await self._blobs.put(recording.body()))
        except OSError:
            get_logger().warning("idempotency: the response could not be stored")
            return no_longer_kept()

    async def _keep(self, call: Call, reply: KeptReply) -> None:
        """Store the response, and try again for as long as it would be kept; meanwhile the call answers requests."""
        loop = asyncio.get_running_loop()
        until = loop.time() + call.claim.ttl
        while True:
            try:
                await self._store.finish(call.claim, reply)
                return
            except ReplaysUnavailable:
                if loop.time() > until or is_cancelled():
                    get_logger().error("idempotency: the response could not be stored")
                    return
                await asyncio.sleep(_SLOWEST_LOOK)

    async def _release(self, call: Call) -> None:
        try:
            await self._store.release(call.claim)
        except ReplaysUnavailable:
            self._leases.release_later(call.claim)


def calls_in_memory() -> KeyedCalls:
    """Return calls for a layer that is used alone: responses of one day, in memory and temporary files."""
    blobs = FileBlobs(None, ttl=_DAY)
    return KeyedCalls(MemoryReplays(blobs, max_bytes=_KEPT), blobs, Background(), lease=15.0)


def _ended(on_end: Callable[[Call], None], call: Call, _: object) -> None:
    on_end(call)


class _Replaced(Exception):
    """There is an answer from before."""

    def __init__(self, reply: KeptReply) -> None:
        super().__init__()
        self.reply = reply


def _copy(error: ImagegateError) -> ImagegateError:
    """Return the same error for another client: each is given headers and details of its own on the way out."""
    kind = type(error)
    copied = kind.__new__(kind, *error.args)
    copied.__dict__.update(error.__dict__)
    copied.headers, copied.details = list(error.headers), dict(error.details)
    return copied


def _unknown(call: Call) -> ImagegateError:
    """Return the error of a call that ended without a response, or was cancelled at shutdown."""
    if call.sent:
        return uncertain("The gateway failed after the request was sent to the provider.")
    return ImagegateError("The gateway failed.", code="internal_error")
