"""What a provider's adapter is: all that a third party needs to import, with `imagegate.contracts.contract`.

An adapter is a class with a name, an address and contracts. `OpenAIAdapter` speaks the OpenAI Images API, which most
providers do up to a few differences; a subclass says what differs::

    class Example(OpenAIAdapter):
        name = "example"
        base_url = "https://api.example.com"

with ``example.toml``, the contracts, beside its module, and an entry point in the group ``imagegate.adapters``.
Adapters are pure: they build requests and read replies; sending, waiting and storing are the gateway's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import resources
from typing import ClassVar, Protocol
from urllib.parse import quote

import msgspec

from imagegate.contracts.contract import ContractDocument, Operation, read_document
from imagegate.protocol.messages import FileRef, ImageReply, ImageRequest, LiveFiles
from imagegate.protocol.parsers.base64_json import OPENAI_MEMBERS
from imagegate.protocol.replies import PendingTask, UpstreamReply, read_reply, read_upload
from imagegate.protocol.request_encoding import FilePart, TextPart, form_parts, json_body, needs_form

Upload = FileRef
"""A file of a request, to an adapter that hands it to an upload API."""

__all__ = [
    "Adapter",
    "FilePart",
    "FileRef",
    "ImageReply",
    "ImageRequest",
    "OpenAIAdapter",
    "PendingTask",
    "TextPart",
    "Upload",
    "UpstreamReply",
    "UpstreamRequest",
    "form_parts",
    "read_upload",
]


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a provider, without its origin and key, which the gateway adds."""

    method: str
    path: str
    """From the root of the API: ``/v1/images/generations``."""
    content_type: str | None = None
    """Of `body`."""
    body: bytes | None = None
    parts: tuple[TextPart | FilePart, ...] = ()
    """In place of a body: a form, which is sent as it is read from the spool."""
    live: LiveFiles | None = None
    """Files after `parts` that are still coming in; the length of such a form is not known before."""


class Adapter(Protocol):
    """How to speak to one provider."""

    @property
    def name(self) -> str:
        """As in ``adapter = "..."`` in the configuration, and its entry point."""
        ...

    @property
    def base_url(self) -> str:
        """The provider's own origin, without ``/v1``."""
        ...

    picture_members: ClassVar[Collection[str]]
    """Where base64 stands in a reply: ends of paths such as ``b64_json``, ``data[].b64_json``, ``inlineData.data``.

    In large replies `decode` finds a token there, and hands it on as `ReplyImage.b64_json`.
    """

    def contracts(self) -> ContractDocument:
        """What each of the provider's models accepts."""
        ...

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        """A request that fits its contract, as the provider wants it sent."""
        ...

    def encode_upload(self, upload: Upload) -> UpstreamRequest:
        """The request that hands a file to the provider's upload API; only for contracts that say ``upload``."""
        ...

    def decode_upload(self, reply: UpstreamReply) -> str:
        """The link to a file that was handed over. Raises `imagegate.errors.UpstreamError`."""
        ...

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """The pictures of a reply, or the task that will have them. Raises `imagegate.errors.UpstreamError`."""
        ...

    def poll(self, task: PendingTask) -> UpstreamRequest:
        """The request that asks how a task is getting on; its reply is read by `decode`.

        Its path counts where the provider did not say where to ask.
        """
        ...

    def cancel(self, task: PendingTask) -> UpstreamRequest | None:
        """The request that gives a task up, to the same address as `poll`; None: the provider has none."""
        ...

    def expects_task(self, request: ImageRequest) -> bool:
        """Whether the provider is known to answer a request that fits its contract with a task."""
        ...


class OpenAIAdapter:
    """The OpenAI Images API; contracts are read from the TOML file beside the subclass's module."""

    name = "openai"
    base_url = "https://api.openai.com"
    paths: ClassVar[Mapping[Operation, str]] = {
        "generations": "/v1/images/generations",
        "edits": "/v1/images/edits",
        "variations": "/v1/images/variations",
    }
    picture_members: ClassVar[Collection[str]] = OPENAI_MEMBERS
    task_path: ClassVar[str] = "/v1/tasks/{id}"
    """Where a task is asked for when the provider did not say."""
    always_tasks: ClassVar[bool] = False
    """Whether every request becomes a task; else those do that say ``async: true``, where the contract has it."""
    cancels_tasks: ClassVar[bool] = False
    """Whether ``DELETE`` to a task's address gives it up."""

    def contracts(self) -> ContractDocument:
        package, _, module = type(self).__module__.rpartition(".")
        file = resources.files(package or module).joinpath(f"{module}.toml")
        return read_document(file.read_text("utf-8")) if file.is_file() else ContractDocument()

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        path = self.paths.get(request.operation) or OpenAIAdapter.paths[request.operation]
        if needs_form(request):
            return UpstreamRequest(method="POST", path=path, parts=form_parts(request), live=request.live)
        return UpstreamRequest(method="POST", path=path, content_type="application/json", body=json_body(request))

    def encode_upload(self, upload: Upload) -> UpstreamRequest:
        """The request that hands a file to the provider's upload API; only for contracts that say ``upload``."""
        raise NotImplementedError

    def decode_upload(self, reply: UpstreamReply) -> str:
        """The link to a file that was handed over. Raises `imagegate.errors.UpstreamError`."""
        raise NotImplementedError

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        return read_reply(reply, now=now)

    def poll(self, task: PendingTask) -> UpstreamRequest:
        return UpstreamRequest(method="GET", path=self.task_path.format(id=quote(task.id, safe="")))

    def cancel(self, task: PendingTask) -> UpstreamRequest | None:
        """A ``DELETE``, where the provider takes one."""
        return msgspec.structs.replace(self.poll(task), method="DELETE") if self.cancels_tasks else None

    def expects_task(self, request: ImageRequest) -> bool:
        return self.always_tasks or request.fields.get("async") is True
