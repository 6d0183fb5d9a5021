"""The facts that the state of a running exchange and the record of a finished one share, declared once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from imagegate.telemetry.capture import Capture

ResponseFormat = Literal["url", "b64_json", "unchanged"]
Idempotent = Literal["", "joined", "replayed"]
CallOutcome = Literal["ok", "not_sent", "rejected", "uncertain", "cancelled"]
"""Of one POST; the three in the middle as in `imagegate.errors.Outcome`."""


class UpstreamCall(msgspec.Struct, frozen=True):
    """One paid POST to a provider, with the wait for its task."""

    upstream: str
    model: str
    outcome: CallOutcome
    seconds: float
    images: int = 1
    """That it asked for."""


class ExchangeFacts(msgspec.Struct):
    """What `Progress` gathers and `ExchangeRecord` takes over by name; a log line says most of it, in this order."""

    endpoint: str
    """``generations``, ``edits``, ``variations``, ``models`` or ``tasks``."""
    request_id: str = ""
    traceparent: str = ""
    """W3C Trace Context of the exchange, to be sent upstream; empty: the client sent none."""
    upstream: str = ""
    upstream_model: str = ""
    upstream_request_id: str = ""
    key_name: str = ""
    """Name of the client's key; never the key."""
    user: str = ""
    """Whose request it is, as the host application says."""
    principal_id: str = ""
    """Of the principal, where the gateway knows one: unique and lasting, as names may not be."""
    tenant: str = ""
    """Of the principal."""
    metadata: Mapping[str, str] = {}
    """Of the principal: what the application wants the log to say."""
    model: str = ""
    """As the client asked for it."""
    route: str = ""
    """The same where a route of the configuration has that name."""
    form: ResponseFormat | None = None
    size_asked: str = ""
    """``size`` as the client wrote it."""
    sizes_made: tuple[str, ...] = ()
    """Of the pictures, as far as they were seen: ``1536x1024``."""
    provenance: str = ""
    """``c2pa`` where all images that were seen carry a manifest, as far as their heads tell."""
    usage: Mapping[str, Any] | None = None
    """Token counts as the provider's reply has them."""
    attempts: int = 0
    """POSTs that were sent upstream."""
    images_asked: int = 0
    images_made: int = 0
    """Pictures that the provider answered with, delivered or not."""
    images_withheld: int = 0
    """Of `images_made`, those that the application's moderation kept back: made, and paid for."""
    images_delivered: int = 0
    stored_images: int = 0
    """Pictures that were written to the store, references that a provider is to load among them."""
    polls: int = 0
    retries: int = 0
    stale_connections: int = 0
    """POSTs whose kept connection ended without any of a reply: most likely the provider had closed it before."""
    fallbacks: int = 0
    """How often another candidate was asked."""
    idempotent: Idempotent = ""
    """Whether an ``Idempotency-Key`` saved a call: joined one in flight, or its result was replayed."""
    task_state: str = ""
    """Of the task that a client made or asked for: ``pending``, ``processing``, ``completed`` or ``failed``."""
    in_background: bool = False
    """Whether it is the work of a task, whose client has been answered already."""
    streamed: bool = False
    explained: bool = False
    """Whether the client only wanted to look (`Imagegate-Explain`)."""
    contract: bool = True
    """Whether the model's contract was known."""
    upload_count: int = 0
    """Files of the client's form, or in data URLs."""
    upload_bytes: int = 0
    link_fetches: int = 0
    """Foreign links that were read: references, and pictures that a provider answered with."""
    fetch_refusals: int = 0
    """Links that the guard refused."""
    bytes_in: int = 0
    """Of the client's body, as far as it was read."""
    bytes_out: int = 0
    """Of the body that the client was sent."""
    error_code: str = ""
    outcome: str = ""
    """Of a failed upstream call: ``not_sent``, ``rejected`` or ``uncertain``."""
    upstream_seconds: float = 0.0
    delivery_seconds: float = 0.0
    queue_seconds: float = 0.0
    """That the exchange waited for a place: behind a limit of an upstream, or for the exchange that it joined."""
    first_byte_seconds: float | None = None
    """From the request to the first byte of the answer's body; None: there was none."""
    changes_header: str = ""
    """All changes disclosed to the client."""
    capture: Capture | None = None
    """Records the bodies of the exchange; None: they are not recorded."""
