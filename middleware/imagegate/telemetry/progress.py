"""The context of one request: what the layers write down while it runs, and the record that is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Protocol

import msgspec

from imagegate.access.authenticator import Identity
from imagegate.access.principal import Principal
from imagegate.contracts.changes import Change
from imagegate.errors import ImagegateError, UpstreamError
from imagegate.protocol.messages import LiveFiles, Target
from imagegate.protocol.prices import ModelPrice
from imagegate.protocol.references import count_references
from imagegate.protocol.usage import sum_usage
from imagegate.telemetry.exchange import CallOutcome, ExchangeFacts, UpstreamCall
from imagegate.telemetry.record import ExchangeRecord, OutcomeClass
from imagegate.tracing import ExchangeTrace

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
    sent_references: tuple[int, ...] = ()
    """Pixels of each reference and mask that was sent with it beside these members; 0: they are not known."""
    provider_sizes: tuple[str, ...] = ()
    """Of the pictures as the provider made them, where they were converted."""
    limit_headers: Sequence[tuple[bytes, bytes]] = ()
    """Rate-limit headers for the client."""
    task_made: tuple[int, Mapping[str, Any] | None] | None = None
    """Images and usage of a provider's task that another process had sent; None: it is not done, as far as is known.
    """
    tracestate: str = ""
    """Beside `traceparent`."""
    upstream_task_id: str = ""
    """Of the provider's task that was waited for last."""
    is_handed_over: bool = False
    """Whether the client asks the provider for its task itself, by an id that says where."""
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
    rename_changes: tuple[Change, ...] = ()
    moderation_changes: tuple[Change, ...] = ()
    route_changes: tuple[Change, ...] = ()
    fit_changes: tuple[Change, ...] = ()
    reference_changes: tuple[Change, ...] = ()
    reply_changes: tuple[Change, ...] = ()
    conversion_changes: tuple[Change, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        all_changes = (
            self.rename_changes
            + self.moderation_changes
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

    def addressed(self, target: Target, public_model: str) -> None:
        """Note the candidate that is asked from now on, and what discloses another model than the client's."""
        self.upstream, self.upstream_model, self.upstream_request_id = target.upstream, target.model, ""
        self.route_changes = target.change_of(public_model)
        self.fit_changes = self.reference_changes = ()

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

    def all_references(self) -> tuple[int, ...]:
        """Return the pixels of each reference and mask that was sent; 0: they are not known."""
        if self.sent_references:
            return self.sent_references
        return (0,) * max(count_references(self.sent_fields), self.upload_count)

    def replied(self, images: int, usage: Any) -> None:
        """Count what a provider's reply carries; the parts of a split request add up."""
        self.images_made += images
        if isinstance(usage, Mapping):
            self.usage = usage if self.usage is None else sum_usage([self.usage, usage])


class timed_call:  # noqa: N801 - used like a function; a generator would be a frame more in each request
    """Time one POST, and classify it by the error that the block raises.

    Args:
        progress: of its exchange, which gets it as an `UpstreamCall`.
        images: that it asks for.
        live: files of its form that are still coming in.
    """

    __slots__ = ("_images", "_live", "_model", "_progress", "_started", "_upstream")

    def __init__(
        self, progress: Progress, upstream: str, model: str, *, images: int = 1, live: LiveFiles | None = None
    ) -> None:
        self._progress = progress
        self._upstream = upstream
        self._model = model
        self._images = images
        self._live = live

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        outcome: CallOutcome = "ok"
        if isinstance(error, UpstreamError) and error.is_whole and error.made:
            self._progress.replied(len(error.made), None)  # these are paid for, and no others
        elif isinstance(error, UpstreamError):
            outcome = error.outcome
        elif error is not None:
            is_broken_off = self._live is not None and not self._live.is_sent
            outcome = "not_sent" if is_broken_off else "cancelled"
        seconds = perf_counter() - self._started
        self._progress.calls.append(UpstreamCall(self._upstream, self._model, outcome, seconds, self._images))


_OUTCOMES_BY_CODE: Final[Mapping[str, OutcomeClass]] = {
    "overloaded": "overloaded",
    "access_unavailable": "overloaded",
    "shutting_down": "overloaded",
    "spool_full": "overloaded",
    "no_room": "not_sent",
    "store_unavailable": "not_sent",
    "internal_error": "internal",
    "moderation_blocked": "moderated",
    "content_policy_violation": "moderated",
    "storage_failed": "storage_failed",
    "storage_full": "storage_failed",
    "image_fetch_failed": "storage_failed",
}

_OUTCOMES_BY_CALL: Final[Mapping[str, OutcomeClass]] = {
    "not_sent": "not_sent",
    "rejected": "rejected",
    "uncertain": "uncertain",
}


def classify(progress: Progress, status: int) -> OutcomeClass:
    """Decide the outcome of an exchange; no other place does."""
    if status == 499:
        return "client_left"
    if status < 400 and not progress.error_code:  # a stream may fail after its head
        return "explained" if progress.explained else "ok"
    if by_code := _OUTCOMES_BY_CODE.get(progress.error_code):
        return by_code
    if by_call := _OUTCOMES_BY_CALL.get(progress.outcome):
        return by_call
    if status in (401, 402, 403, 429):
        return "denied"
    return "invalid" if 400 <= status < 500 else "internal"


_facts: Final[Any] = attrgetter(*ExchangeFacts.__struct_fields__)
"""All facts of a `Progress`, in the order in which a record takes them, at the cost of one call."""


def finish(
    progress: Progress, *, status: int, seconds: float, cost: float | None = None, currency: str = ""
) -> ExchangeRecord:
    """Make the record of an exchange that has ended."""
    return ExchangeRecord(
        *_facts(progress),
        status=status,
        seconds=seconds,
        outcome_class=classify(progress, status),
        calls=tuple(progress.calls),
        changes=progress.changes,
        cost=cost,
        currency=currency if cost is not None else "",
    )


class Prices(Protocol):
    """Knows what models cost."""

    def find(self, upstream: str, model: str) -> ModelPrice | None:
        """Return the price of a model as its upstream calls it; None: none is known."""
        ...


def cost_of(progress: Progress, prices: Prices) -> float | None:
    """Return what was made costs, in the table's currency, by what the provider's replies name.

    None: no price is known, or it depends on what is not known.
    """
    if not (progress.images_made or progress.usage):
        return None
    price = prices.find(progress.upstream, progress.upstream_model)
    if price is None:
        return None
    references = progress.all_references() if price.reference_image or price.reference_megapixel else ()
    sizes = progress.provider_sizes or progress.sizes_made
    return price.cost(progress.images_made, progress.usage, progress.sent_fields, sizes, references)
