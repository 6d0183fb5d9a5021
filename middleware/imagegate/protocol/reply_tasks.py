"""Tasks in providers' replies: which one it is, where it is asked for, and how it is getting on. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from imagegate.protocol.names import TASK_IDS, members_of, plain

Bucket = Literal["pending", "done", "failed", "cancelled", "moderated", "lost"]

_BUCKETS: Final[Mapping[str, Bucket]] = {
    **dict.fromkeys(("queued", "queuing", "queueing", "pending", "submitted", "starting", "started"), "pending"),
    **dict.fromkeys(("inqueue", "notstart", "waiting", "created", "accepted", "scheduled", "new"), "pending"),
    **dict.fromkeys(("inprogress", "processing", "running", "reasoning", "generating", "initializing"), "pending"),
    **dict.fromkeys(("completed", "complete", "succeeded", "succeed", "success", "ready", "finished", "done"), "done"),
    **dict.fromkeys(("failed", "fail", "failure", "error"), "failed"),
    **dict.fromkeys(("canceled", "cancelled", "aborted"), "cancelled"),
    **dict.fromkeys(("request moderated", "content moderated"), "moderated"),
    **dict.fromkeys(("task not found", "unknown", "tasknotexist"), "lost"),
}
_STATES: Final = ("status", "taskstatus", "state", "taskstate", "jobstatus")
_NODES: Final = ("data", "output", "result", "task", "job", "response")
"""Members of a reply that may describe its task."""
_IDS: Final = (*TASK_IDS, "id", "requestid", "uuid")
_LINKS: Final = ("pollurl", "pollingurl", "statusurl", "taskurl", "queryurl", "fetchurl")  # TokenLab, BFL, fal
_CANCEL_LINKS: Final = ("cancelurl",)


class PendingTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that the provider accepted and that is still at work."""

    id: str
    poll_url: str | None = None
    """As the provider gave it: relative or absolute."""
    cancel_url: str | None = None
    """Where the provider says that the task is given up, likewise."""
    progress: float | None = None
    """Percent."""
    is_over: bool = False
    """Whether all that is left is to fetch the result from `poll_url`, at once."""


class TaskNode(msgspec.Struct, frozen=True, kw_only=True):
    """The object of a document that describes its task."""

    node: Mapping[str, Any]
    word: str | None = None
    """The state, as the provider calls it."""

    @property
    def bucket(self) -> Bucket | None:
        """The kind of the state. Unknown ones count as running; the deadline ends the polling."""
        return None if self.word is None else _bucket(self.word) or "pending"

    @property
    def is_known_to_wait(self) -> bool:
        """Whether the state is a word for work that goes on."""
        return self.word is not None and _bucket(self.word) == "pending"

    @property
    def names_task(self) -> bool:
        """Whether there is an id under a name that only tasks have."""
        return _first(members_of(self.node), TASK_IDS) is not None

    def task(self) -> PendingTask | None:
        """Return the task; None: it has no id."""
        members = members_of(self.node)
        id_ = _first(members, _IDS)
        if id_ is None:
            return None
        link, cancel = _first(members, _LINKS), _first(members, _CANCEL_LINKS)
        if link is None and isinstance(urls := members.get("urls"), Mapping):  # Replicate
            link, cancel = (_first(members_of(urls), (name,)) for name in ("get", "cancel"))
        return PendingTask(id=id_, poll_url=link, cancel_url=cancel, progress=self.progress)

    @property
    def progress(self) -> float | None:
        """Percent."""
        return _percent(members_of(self.node).get("progress"))


def task_node(document: Mapping[str, Any]) -> TaskNode:
    """Return where the task is: on the reply, or under a usual member, alone in a list at some providers.

    The state of an envelope, ``success`` beside the task's own data, is not the task's.
    """
    nodes = list(_nodes(document))
    own = nodes[0]
    described = [node for node in nodes if node.word is not None]
    if own.word is not None and (own.task() is not None or own.bucket != "done"):
        return own
    nested = [node for node in nodes[1:] if node.names_task or (node.word is not None and node.task() is not None)]
    return next(iter([*nested, *described]), own)


def _nodes(document: Mapping[str, Any]) -> Iterator[TaskNode]:
    members = members_of(document)
    for node in (document, *(members.get(name) for name in _NODES)):
        if isinstance(node, list) and len(node) == 1:
            node = node[0]
        if isinstance(node, Mapping):
            yield TaskNode(node=node, word=_first(members_of(node), _STATES))


def address_beside(link: str, end: str, *, instead_of: str = "") -> str:
    """Return the address of a task with another end of its path; the query, which may be signed, stays."""
    head, mark, query = link.partition("?")
    return f"{head.removesuffix(instead_of)}{end}{mark}{query}"


def task_in_location(headers: Mapping[str, str]) -> PendingTask | None:
    """Return the task that a reply's header leads to; None: there is none. Header names are in lower case."""
    link = next((headers[name] for name in ("location", "operation-location") if headers.get(name)), None)
    if link is None:
        return None
    try:
        path = urlsplit(link).path.rstrip("/")
    except ValueError:
        return None
    return PendingTask(id=unquote(path.rpartition("/")[2]) or "task", poll_url=link)


def _bucket(word: str) -> Bucket | None:
    return _BUCKETS.get(word.lower()) or _BUCKETS.get(plain(word).replace(" ", ""))


def _first(members: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """Return the first of these members that is text; a number is an id too."""
    for name in names:
        value = members.get(name)
        if isinstance(value, str) and value:
            return value
        if name in _IDS and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return None


def _percent(value: Any) -> float | None:
    if isinstance(value, str) and value.rstrip("%").isdecimal() and len(value) < 8:
        value = float(value.rstrip("%"))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= 100 else None
