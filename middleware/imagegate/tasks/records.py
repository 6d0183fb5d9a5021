"""The record of a task: its states, the form in which it is stored, and the documents that clients get. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from imagegate.access.principal import Principal
from imagegate.contracts.contract import Operation
from imagegate.errors import ImagegateError, UpstreamError
from imagegate.protocol.messages import ReplyImage
from imagegate.telemetry.progress import Progress

State = Literal["queued", "sent", "completed", "failed"]
"""``queued``: nothing was sent, so another process may run it. ``sent``: the POST may be out, so none may."""
PublicState = Literal["pending", "processing", "completed", "failed"]

RECORD_VERSION: Final = 2
"""Version of the stored `TaskRecord`; raised where an older gateway could not read it, or would do it wrong: version 1
had no principals, so that a task that was taken over had no limits."""
INTERRUPTED: Final = "task_interrupted"
"""Code of a task whose process was silent after the request had been sent."""
FINAL: Final = frozenset({"completed", "failed"})
_NEXT: Final[Mapping[State, frozenset[State]]] = {
    "queued": frozenset({"sent", "completed", "failed"}),
    "sent": frozenset({"completed", "failed"}),
    "completed": frozenset(),
    "failed": frozenset(),
}
_PUBLIC: Final[Mapping[State, PublicState]] = {
    "queued": "pending",
    "sent": "processing",
    "completed": "completed",
    "failed": "failed",
}


def may_become(before: State, after: State) -> bool:
    """Return whether a task can go from one state to another: never out of a final state, never back to unsent."""
    return after in _NEXT[before]


class KeptReference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stored image of a request; exactly one of `url`, `file_id` and `blob` is set."""

    url: str = ""
    file_id: str = ""
    blob: str = ""
    """Key of the file (`imagegate.stores.blobs`)."""
    part: str = ""
    filename: str = ""
    quoted_name: str = ""
    declared_type: str = ""


class KeptClient(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose a stored request is, by the names of `Progress`, without any key."""

    principal: Principal | None = None
    """With the limits that it had; without its own keys for upstreams."""
    own_keys: tuple[str, ...] = ()
    """Upstreams for which it has keys of its own: only a process that knows them may do the task."""
    key_name: str = ""
    user: str = ""
    owner: str = ""
    principal_id: str = ""
    tenant: str = ""
    metadata: Mapping[str, str] = {}

    @classmethod
    def of(cls, progress: Progress) -> KeptClient:
        principal, own_keys = progress.principal, tuple[str, ...]()
        if principal is not None and principal.upstream_keys:
            own_keys = tuple(principal.upstream_keys)
            principal = msgspec.structs.replace(principal, upstream_keys={})
        facts = {name: getattr(progress, name) for name in _FACTS}
        return cls(principal=principal, own_keys=own_keys, **facts)

    def tell(self, progress: Progress) -> None:
        """Write it down for the exchange that does the task."""
        progress.principal = self.principal
        for name in _FACTS:
            setattr(progress, name, getattr(self, name))


_FACTS: Final = tuple(name for name in KeptClient.__struct_fields__ if name not in ("principal", "own_keys"))


class KeptRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stored request, which another process can run. It holds no client's key."""

    operation: Operation
    fields: Mapping[str, Any] | None = None
    fields_blob: str = ""
    """In place of `fields`: key of their JSON, where they are large or carry base64."""
    images: tuple[KeptReference, ...] = ()
    mask: KeptReference | None = None
    markup: KeptReference | None = None
    from_form: bool = False
    client: KeptClient = KeptClient()
    scheme: str = "http"
    host: str = ""
    root_path: str = ""
    path: str = ""


class ProviderTask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The provider's task that a task of the gateway waits for."""

    upstream: str
    id: str
    poll_url: str | None = None
    cancel_url: str | None = None
    model: str = ""
    """As the provider calls it."""
    is_own_key: bool = False
    """Whether the client pays, with a key of its own."""
    fields: Mapping[str, Any] = {}
    """Members of the request that its price may depend on."""
    references: tuple[int, ...] = ()
    """Pixels of each reference and mask; 0: they are not known."""


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task."""

    number: str
    state: State = "queued"
    owner: str = ""
    """Tag of the key that made it, in hexadecimal."""
    created: float
    """Unix time in seconds."""
    model: str = ""
    """Public name, from the request."""
    images: int = 1
    """Number requested."""
    task_id: str = ""
    """Id that the client knows, for webhooks."""
    poll_url: str = ""
    request: KeptRequest | None = None
    """None: no other process can run it."""
    provider: ProviderTask | None = None
    public_url: str = ""
    """URL of the image store, as the client reaches it."""
    callback_url: str = ""
    told: bool = False
    """Whether the webhook was delivered, or given up."""
    traceparent: str = ""
    """W3C Trace Context of the exchange that made it."""
    takes: int = 0
    """How often another process took it over."""
    data: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = {}
    """Other members of the reply, such as ``usage``."""
    error: Mapping[str, Any] | None = None
    cancelled: bool = False
    progress: float | None = None
    """Percent."""

    @property
    def is_over(self) -> bool:
        return self.state in FINAL

    @property
    def is_unknown(self) -> bool:
        """Whether it has ended without a word of the provider's, so that who asked the provider may know better."""
        return self.error is not None and self.error.get("code") == INTERRUPTED

    def with_state(self, state: State) -> TaskRecord:
        return msgspec.structs.replace(self, state=state)

    def completed(self, images: Sequence[ReplyImage], facts: Mapping[str, Any]) -> TaskRecord:
        """Return the completed task, whose images are links."""
        data = tuple({"url": image.url, **image.fields} for image in images)
        return msgspec.structs.replace(self, state="completed", data=data, facts=facts, request=None, progress=None)

    def failed(self, error: ImagegateError) -> TaskRecord:
        return msgspec.structs.replace(
            self,
            state="failed",
            error=error_document(error),
            cancelled=error.code == "task_cancelled",
            request=None,
            progress=None,
        )


def error_document(error: ImagegateError) -> Mapping[str, Any]:
    """Return an error as a member of a task, with the status and outcome that HTTP would carry elsewhere."""
    document: dict[str, Any] = dict(error.envelope()["error"])
    extension = dict(document.get("imagegate", {}))
    extension["status"] = error.status
    if isinstance(error, UpstreamError):
        extension["outcome"] = error.outcome
    document["imagegate"] = extension
    return document


def poll_url(scope: Mapping[str, Any], prefix: str, task_id: str) -> str:
    """Return the path of a task, below the mount point of the ASGI scope."""
    return f"{scope.get('root_path', '').rstrip('/')}{prefix}/tasks/{task_id}"


def public_state(record: TaskRecord) -> PublicState:
    return _PUBLIC[record.state]


def document(record: TaskRecord) -> dict[str, Any]:
    """Return the document of a task for its client."""
    shown: dict[str, Any] = {
        "created": int(record.created),
        "task_id": record.task_id,
        "status": public_state(record),
        "poll_url": record.poll_url,
        "model": record.model,
        "data": list(record.data),
    }
    if record.progress is not None and not record.is_over:
        shown["progress"] = record.progress
    if record.error is not None:
        shown["error"] = record.error
    if record.cancelled:
        shown["cancelled"] = True
    return {**record.facts, **shown}


def created_document(record: TaskRecord) -> dict[str, Any]:
    """Return the document of a new task."""
    return {
        "created": int(record.created),
        "task_id": record.task_id,
        "status": "pending",
        "poll_url": record.poll_url,
        "data": [],
    }
