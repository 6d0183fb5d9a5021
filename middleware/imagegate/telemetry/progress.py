"""The context of one request: what the layers write down while it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final, TypeVar

import msgspec

from imagegate.access.authenticator import Identity
from imagegate.access.principal import Principal
from imagegate.contracts.changes import Change
from imagegate.errors import ImagegateError, UpstreamError
from imagegate.protocol.usage import sum_usage
from imagegate.telemetry.exchange import CallOutcome, ExchangeFacts, UpstreamCall
from imagegate.tracing import ExchangeTrace

_Result = TypeVar("_Result")
PROGRESS_KEY: Final = "imagegate.progress"
"""Scope key of the `Progress`; the outermost layer puts it there and answers the errors of all others."""


class Progress(ExchangeFacts):
    """One exchange while it runs. Layers write down what they did; nothing reads it but the outermost one."""

    calls: list[UpstreamCall] = msgspec.field(default_factory=list[UpstreamCall])
    """The POSTs that were sent upstream, one by one, once they have ended."""
    recorded_calls: int | None = None
    """How many of `calls` the record of the exchange has; None: it has not ended."""
    sent_fields: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """Members of the request that was sent upstream last, as they fit its model: what its price may depend on."""
    limit_headers: Sequence[tuple[bytes, bytes]] = ()
    """Rate-limit headers for the client."""
    task_made: tuple[int, Mapping[str, Any] | None] | None = None
    """Images and usage of a provider's task that another process had sent; None: it is not done, as far as is known.
    """
    tracestate: str = ""
    """Beside `traceparent`."""
    upstream_task_id: str = ""
    """Of the provider's task that was waited for last."""
    link_base: str = ""
    """What links to the gateway's store begin with in the answer, where they take that from the request."""
    is_client_awaited: bool = False
    """Whether a part of the response waits for its client, or did so when the exchange was cancelled."""
    owner: str = ""
    """Whose request it is, as the host application says."""
    principal: Principal | None = None
    """Who it is from; None: the gateway is open, or only the host application knows."""
    trace: ExchangeTrace | None = None
    """Records spans of it; None: nothing is traced."""
    moderation_changes: tuple[Change, ...] = ()
    route_changes: tuple[Change, ...] = ()
    fit_changes: tuple[Change, ...] = ()
    reference_changes: tuple[Change, ...] = ()
    reply_changes: tuple[Change, ...] = ()
    conversion_changes: tuple[Change, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        all_changes = (
            self.moderation_changes
            + self.route_changes
            + self.fit_changes
            + self.reference_changes
            + self.conversion_changes
            + self.reply_changes
        )
        if len(all_changes) < 2 or len({change.field for change in all_changes}) == len(all_changes):
            return all_changes
        # The parts of a split request all change in the same way.
        return tuple(change for place, change in enumerate(all_changes) if change not in all_changes[:place])

    def identified(self, identity: Identity) -> None:
        """Note who the exchange is from."""
        principal = identity.principal
        self.principal, self.principal_id, self.tenant = principal, principal.id, principal.tenant
        self.key_name, self.user, self.owner = identity.key_name, identity.user, identity.owner
        if principal.metadata:
            self.metadata = principal.metadata

    async def call(self, upstream: str, model: str, work: Awaitable[_Result], *, images: int = 1) -> _Result:
        """Time one POST, and classify it by the error that it raises."""
        started = perf_counter()
        outcome: CallOutcome = "ok"
        try:
            return await work
        except UpstreamError as error:
            outcome = error.outcome
            raise
        except BaseException:
            outcome = "cancelled"
            raise
        finally:
            self.calls.append(UpstreamCall(upstream, model, outcome, perf_counter() - started, images))

    def after_its_client(self) -> Progress | None:
        """Return what has happened since the record was made, as the work behind it; None: no POST was among it."""
        if self.recorded_calls is None or len(self.calls) <= self.recorded_calls:
            return None
        calls = self.calls[self.recorded_calls :]
        return msgspec.structs.replace(self, calls=calls, in_background=True, error_code="", outcome="", trace=None)

    def failed(self, error: ImagegateError) -> None:
        """Note the error that the exchange ends with."""
        self.error_code = error.code or error.type
        if isinstance(error, UpstreamError):
            self.outcome = error.outcome

    def replied(self, images: int, usage: Any) -> None:
        """Count what a provider's reply carries; the parts of a split request add up."""
        self.images_made += images
        if isinstance(usage, Mapping):
            self.usage = usage if self.usage is None else sum_usage([self.usage, usage])
