"""What a provider's adapter is: all that a third party needs to import, with `contract`, `errors` and `replies`.

An adapter is a subclass of `Adapter` that says how requests are written and replies are read. `OpenAIAdapter` speaks
the OpenAI Images API, which many providers do up to a few differences::

    class Example(OpenAIAdapter):
        name = "example"
        base_url = "https://api.example.com"

with ``example.toml``, the contracts, beside its module, and an entry point in the group ``imagegate.adapters``.
Adapters are pure: they build requests and read replies; sending, waiting and storing are the gateway's. So are the
rules about money: whatever an adapter says, a POST is sent once, and a reply that leaves open whether something was
made counts as uncertain. ``docs/write-an-adapter.md`` leads from nothing to the first picture.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import msgspec

from imagegate.contracts.contract import Operation
from imagegate.contracts.documents import ContractDocument, read_document
from imagegate.errors import UpstreamError
from imagegate.protocol.authentication import BEARER, Authentication
from imagegate.protocol.messages import (
    FileID,
    FileRef,
    ImageReply,
    ImageRequest,
    Link,
    LiveFiles,
    Reference,
    ReplyImage,
)
from imagegate.protocol.native_body import model_path, native_body, native_form, wire_path
from imagegate.protocol.parsers.base64_json import OPENAI_MEMBERS
from imagegate.protocol.prices import ModelPrice, PriceDocument, read_prices
from imagegate.protocol.replies import UpstreamReply, read_progress, read_reply, read_upload
from imagegate.protocol.reply_tasks import PendingTask
from imagegate.protocol.request_encoding import (
    FilePart,
    InlineFile,
    TextPart,
    form_parts,
    form_texts,
    inline,
    json_body,
    linked,
    needs_form,
    pixels,
)

Upload = FileRef
"""A file of a request, to an adapter that hands it to an upload API."""

__all__ = [
    "BEARER",
    "Adapter",
    "Authentication",
    "FileID",
    "FilePart",
    "FileRef",
    "ImageReply",
    "ImageRequest",
    "InlineFile",
    "Link",
    "ModelPrice",
    "NoOptions",
    "OpenAIAdapter",
    "PendingTask",
    "PriceDocument",
    "Reference",
    "ReplyImage",
    "TextFile",
    "TextPart",
    "Upload",
    "UpstreamReply",
    "UpstreamRequest",
    "form_parts",
    "form_texts",
    "inline",
    "json_body",
    "linked",
    "model_path",
    "native_body",
    "native_form",
    "needs_form",
    "pixels",
    "read_prices",
    "read_upload",
    "wire_path",
]


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a provider, without its origin and key, which the gateway adds.

    Its body is one of `body`, `document` and `parts`, or empty.
    """

    method: str
    path: str
    """From the root of the API, with its query: ``/v1/images/generations``."""
    url: str = ""
    """In place of `path`, of requests about a task: the provider's own link, where it leads to its own hosts."""
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case; in place of the gateway's own ``accept``, and beside the rest."""
    content_type: str | None = None
    """Of `body`."""
    body: bytes | None = None
    document: Any = None
    """JSON, in which each `InlineFile` becomes the file's base64 while it is sent."""
    parts: tuple[TextPart | FilePart, ...] = ()
    """A form, which is sent as it is read from the spool."""
    live: LiveFiles | None = None
    """Files after `parts` that are still coming in; the length of such a form is not known before."""
    job_id: str = ""
    """An id that the body gives to the provider's task. Where the reply is lost, the task is looked up by it."""
    task_path: str = ""
    """Where its task is asked for, in place of the adapter's own: for paths that have more than ``{id}`` in them."""


class TextFile:
    """The value of an option that names a text file, such as a workflow; relative to the configuration file."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text


class NoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of adapters that have none."""


class Adapter:
    """How to speak to one provider. Everything but `encode` has a default.

    Args:
        options: what the configuration says in ``options``, as an `options_type`.
    """

    name: str = ""
    """As in ``adapter = "..."`` in the configuration, and its entry point."""
    base_url: str = ""
    """The provider's own origin, without ``/v1``, or as far as the version of an API that has it elsewhere, such as
    ``https://api.example.com/api/v3``, in place of the ``/v1`` of paths; empty: every upstream names its own."""
    options_type: ClassVar[type[msgspec.Struct]] = NoOptions
    """The table ``options`` of an upstream: a frozen struct with a default for each field."""

    authentication: Authentication = BEARER
    """How keys are sent."""
    token_authentication: Authentication | None = None
    """How tokens of ``[upstreams.credential]`` are sent; None: as keys are."""
    task_hosts: Collection[str] = ()
    """Hosts beside that of `base_url` to which the provider's links to tasks may lead, and the key with them:
    ``api.eu.example.com``, ``*.example.com``. They count for https, and where `base_url` is the adapter's own or one of
    them."""
    own_hosts: Collection[str] = ()
    """Hosts of the provider, beside those of `base_url` and `task_hosts`, at which its prices hold."""
    keyed_results: bool = False
    """Whether pictures at the provider's own origin need the key, so that clients cannot load them."""
    names_jobs: bool = False
    """Whether `encode` gives the provider's task the id `ImageRequest.job_id`."""
    always_tasks: bool = False
    """Whether every request becomes a task; else those do that say ``async: true``, where the contract has it."""
    task_path: str = "/v1/tasks/{id}"
    """Where a task is asked for when the provider did not say."""
    question_suffix: str = ""
    """End of the paths at which tasks are asked for by POST, for providers that have no GET for it. No paid request
    may have such a path."""
    cancels_tasks: bool = False
    """Whether ``DELETE`` to a task's address gives it up."""

    picture_members: Collection[str] = OPENAI_MEMBERS
    """Where base64 is in a reply: ends of paths such as ``b64_json``, ``data[].b64_json``, ``inlineData.data``.

    In large replies `decode` finds a token there, and hands it on as `ReplyImage.b64_json`.
    """
    relays: bool = True
    """Whether large replies in OpenAI's shape go to clients as they come in; False where `decode` reads in them that a
    picture was withheld, or writes another word for what they say."""
    hidden_members: Collection[str] = ()
    """Members of a reply or of one of its images that clients do not get: paths on the server, for example."""

    def __init__(self, options: Any = None) -> None:
        self.options: Any = self.options_type() if options is None else options

    chat_paths: Collection[str] = ()
    """Paths that the provider prints for OpenAI's chat completions; at its own hosts they mean the API itself."""

    def full_base_url(self, base_url: str) -> str:
        """Return an operator's ``base_url`` as requests need it.

        A host alone gets the path of the adapter's own, and so does the address of the provider's chat completions.
        """
        own, parts = urlsplit(self.base_url), urlsplit(base_url)
        path, domain = own.path, ".".join((own.hostname or "").split(".")[-2:])
        is_elsewhere = parts.path.rstrip("/") in self.chat_paths and f".{parts.hostname}".endswith(f".{domain}")
        if parts.path.strip("/") and not is_elsewhere:
            return base_url
        return parts._replace(path=path if is_elsewhere else path or parts.path).geturl()

    def check(self) -> None:
        """Check the options as far as their types cannot. Raises `imagegate.errors.ConfigError`."""

    models_path: ClassVar[str] = "/v1/models"
    """What can be asked for with a key and costs nothing, to see whether the key is good."""

    def contracts(self) -> ContractDocument:
        """Return what each of the provider's models accepts: the TOML file beside the subclass's module."""
        package, _, module = type(self).__module__.rpartition(".")
        file = resources.files(package or module).joinpath(f"{module}.toml")
        return read_document(file.read_text("utf-8")) if file.is_file() else ContractDocument()

    def prices(self) -> PriceDocument:
        """Return what the provider's models cost: ``NAME.prices.toml`` beside the contracts. Raises `ConfigError`."""
        package, _, module = type(self).__module__.rpartition(".")
        file = resources.files(package or module).joinpath(f"{module}.prices.toml")
        return read_prices(file.read_text("utf-8"), name=file.name) if file.is_file() else PriceDocument()

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        """Return a request that fits its contract as the provider wants it sent. It is sent once."""
        raise NotImplementedError

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Return the pictures of a reply, or the task that will have them. Raises `imagegate.errors.UpstreamError`.

        Args:
            now: Unix time in seconds, for replies that do not say when they were made.
        """
        return read_reply(reply, now=now)

    def encode_upload(self, upload: Upload) -> UpstreamRequest:
        """Return the request that hands a file to the upload API, for contracts that say ``upload``."""
        raise NotImplementedError

    def decode_upload(self, reply: UpstreamReply) -> str:
        """Return the link, or the id, of a file that was handed over. Raises `imagegate.errors.UpstreamError`."""
        return read_upload(reply)

    def poll(self, task: PendingTask) -> UpstreamRequest:
        """Return the GET request that asks how a task is getting on; it may be sent any number of times.

        A POST is one only where its path ends with `question_suffix`.
        Its path counts where the provider did not say where to ask.
        """
        return UpstreamRequest(method="GET", path=self.task_path.format(id=quote(task.id, safe="")))

    def decode_task(self, task: PendingTask, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Read the reply to `poll`, by default like any other, which need not name the task. Raises as `decode`.

        Where `decode` makes nothing of it, a reply that says that the task goes on is one, though it has no id.
        """
        try:
            return self.decode(reply, now=now)
        except UpstreamError as error:
            going_on = None if error.ends_task or error.outcome != "uncertain" else read_progress(task, reply)
            if going_on is None:
                raise
            return going_on

    def cancel(self, task: PendingTask) -> UpstreamRequest | None:
        """Return the request that gives a task up; None: the provider has none.

        It goes to the task's own address, as `poll` does, unless it has a ``url``.
        """
        return msgspec.structs.replace(self.poll(task), method="DELETE") if self.cancels_tasks else None

    def expects_task(self, request: ImageRequest) -> bool:
        """Return whether the provider is known to answer a request that fits its contract with a task."""
        return self.always_tasks or request.fields.get("async") is True


class OpenAIAdapter(Adapter):
    """The OpenAI Images API."""

    name = "openai"
    base_url = "https://api.openai.com"
    paths: Mapping[Operation, str] = {
        "generations": "/v1/images/generations",
        "edits": "/v1/images/edits",
        "variations": "/v1/images/variations",
    }

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        path = self.paths.get(request.operation) or OpenAIAdapter.paths[request.operation]
        if request.live is not None or (request.references and needs_form(request)):
            return UpstreamRequest(method="POST", path=path, parts=form_parts(request), live=request.live)
        body = json_body(request) if request.references else request.encode()
        return UpstreamRequest(method="POST", path=path, content_type="application/json", body=body)
