"""The parsed request and reply that the layers share, and their keys in the ASGI scope."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Protocol

import msgspec

from imagegate.contracts.body import BodyRule
from imagegate.contracts.changes import Change
from imagegate.contracts.contract import Contract, Operation
from imagegate.contracts.reference_rule import ReferenceRule
from imagegate.protocol.image_count import COUNT_MEMBERS, most_counted
from imagegate.protocol.image_format import Facts
from imagegate.protocol.parsers.sse import END_MARK

SCOPE_KEY: Final = "imagegate"
"""Scope key of the `Exchange`, once a layer has read the body."""
REPLY: Final = "imagegate.reply"
"""ASGI extension, and type of the message that carries an `ImageReply` up to the layer that announced it.

The message has ``reply``, and ``origin``, where links are trusted to lead. The extension says what else is taken:
``sink()`` returns what takes pictures while the reply that carries them arrives; where ``relay`` is true, a large reply
may come as the bytes that the provider sent; where ``events`` is true, a streamed one as messages of type `EVENT`.
"""
EVENT: Final = "imagegate.event"
"""Type of the message that carries a `StreamEvent` as ``event``, and ``origin``."""


class FileRef(ABC):
    """A file of a request or a picture of a reply, wherever its bytes are; `imagegate.spool` has them."""

    part: str
    """Name of the form's part, or of the member that held it."""
    filename: str
    quoted_name: str = ""
    """`filename` as the client wrote it between quotes; empty: as the gateway writes it. It goes on unchanged, because
    clients and servers do not agree on what a backslash there means."""
    declared_type: str
    """Media type that the client declared; empty: none."""
    size: int
    """Bytes so far."""

    @property
    @abstractmethod
    def facts(self) -> Facts | None:
        """Format, pixels and transparency, read from the file itself; None: no picture that we know."""

    @property
    @abstractmethod
    def media_type(self) -> str:
        """The detected media type; the client's declaration where detection fails."""

    @abstractmethod
    def chunks(self) -> AsyncIterator[bytes]:
        """Return the bytes, in pieces of at most 256 KiB, waiting for those that are still to come."""


class Link(msgspec.Struct, frozen=True):
    """An image at a URL of http or https."""

    url: str
    member: str = "images"
    """Where the client wrote it: ``images[0]``, ``mask_url``."""


class LinkedFile(FileRef):
    """The file at a link, in a request that is only explained: it is not fetched, so that nothing is known of it."""

    declared_type = ""
    size = 0

    def __init__(self, link: Link) -> None:
        self.part = link.member
        self.url = link.url
        self.filename = link.url.partition("?")[0].rpartition("/")[2]

    @property
    def facts(self) -> None:
        return None

    @property
    def media_type(self) -> str:
        return "image/*"

    def chunks(self) -> AsyncIterator[bytes]:
        raise AssertionError("what is explained is not sent")


class FileID(msgspec.Struct, frozen=True):
    """An image that the provider already has: the client's word for it, or what the upload API answered."""

    id: str
    member: str = "images"


Reference = FileRef | Link | FileID


def member_of(reference: Reference) -> str:
    """Return the member or part of the request that it came in, without its place in a list."""
    name = reference.part if isinstance(reference, FileRef) else reference.member
    return name.partition("[")[0]


class HeldMemory(ABC):
    """What one request holds of the memory that all requests share; `imagegate.spool.memory` counts it."""

    __slots__ = ()

    @abstractmethod
    def take(self, size: int) -> None:
        """Count `size` bytes more. Raises `imagegate.errors.Overloaded` where there is no room."""

    @abstractmethod
    def try_take(self, size: int) -> bool:
        """Count `size` bytes more; False: there is no room."""

    @abstractmethod
    def give_back(self, size: int) -> None:
        """Count `size` bytes less."""

    @abstractmethod
    def retain(self) -> None:
        """Add a holder; each must call `close`."""

    @abstractmethod
    def close(self) -> None:
        """Drop a holder; with the last one nothing is held any more."""


class LiveFiles(Protocol):
    """Files of a form that is still coming in (`imagegate.ingest.streaming_form`)."""

    def files(self) -> AsyncIterator[tuple[str, FileRef]]:
        """Yield name and file, each as soon as its head has arrived."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether the form has come in to its end."""
        ...

    @property
    def is_sent(self) -> bool:
        """Whether all files have gone out; before that the provider cannot have a whole form."""
        ...

    @property
    def size(self) -> int:
        """Bytes of all files with their heads, and of the end of the form, as they are sent."""
        ...

    @property
    def boundary_size(self) -> int:
        """Bytes of the boundary with which they have that size."""
        ...

    @property
    def end_size(self) -> int:
        """Bytes of the end of the form; known as soon as `files` has yielded all."""
        ...


SHAPING: Final = ("size", "aspect_ratio", "resolution", "metadata", "output_format", "background")
_LONGEST_SHAPE: Final = 64
"""Characters: what a shape means is remembered, and clients choose them."""


class ImageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to the Images API, members as the client named them."""

    operation: Operation
    fields: Mapping[str, Any]
    """JSON members in the client's order; null members, which mean "omitted", are gone."""
    body: bytes | None = None
    """The client's own bytes, as long as they say exactly what `fields` says."""
    images: tuple[Reference, ...] = ()
    """What the request starts from, in the client's order; links of generations stay in `fields`."""
    mask: Reference | None = None
    markup: Reference | None = None
    live: LiveFiles | None = None
    """Files that are being received, instead of `images` and `mask`."""
    from_form: bool = False
    """Whether `fields` came as text, so that numbers and booleans must be parsed."""
    wire: Mapping[str, Any] = {}
    """Of the contract: what the adapter needs to know of the model."""
    job_id: str = ""
    """A new UUID, for adapters that say `Adapter.names_jobs`."""
    body_rule: BodyRule | None = None
    """Of the contract: how `native_body` writes it."""
    held: HeldMemory | None = None
    """What the request and the reply to it hold in memory; None: it is not counted."""

    @property
    def model(self) -> str:
        model = self.fields["model"]
        return model if isinstance(model, str) else ""

    @property
    def references(self) -> tuple[Reference, ...]:
        """Everything that is not in `fields`."""
        if self.mask is None and self.markup is None:
            return self.images
        return (*self.images, *(extra for extra in (self.mask, self.markup) if extra is not None))

    @property
    def reference_areas(self) -> tuple[int, ...]:
        """Pixels of each of `references`; 0: they are not known."""
        facts = (each.facts if isinstance(each, FileRef) else None for each in self.references)
        return tuple(known.width * known.height if known is not None else 0 for known in facts)

    @property
    def n(self) -> int:
        """Images asked for; 1 where the client does not say."""
        n = self.fields.get("n", 1)
        return n if type(n) is int else 1

    @property
    def shape(self) -> tuple[str, ...] | None:
        """What it says of the size and the format of its pictures, by member; None: one of them is no short text."""
        said = [self.fields.get(name, "") for name in SHAPING]
        is_plain = all([type(text) is str and len(text) <= _LONGEST_SHAPE for text in said])  # noqa: C419 - quicker
        return tuple(said) if is_plain else None

    def with_fields(self, fields: Mapping[str, Any]) -> ImageRequest:
        return msgspec.structs.replace(self, fields=fields, body=None)

    def without(self, *names: str) -> ImageRequest:
        return self.with_fields({name: value for name, value in self.fields.items() if name not in names})

    def encode(self) -> bytes:
        """Return the request as JSON: the client's own bytes where nothing changed."""
        return self.body if self.body is not None else msgspec.json.encode(self.fields)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate to answer a request."""

    upstream: str
    model: str
    contract: Contract | None
    """None: the model is in no contract, so the request passes unchanged."""

    def change_of(self, public_model: str) -> tuple[Change, ...]:
        """Return what discloses another model; the upstream's name as a prefix is no change of model."""
        is_same = public_model in (self.model, f"{self.upstream}/{self.model}")
        return () if is_same else (Change("model", "mapped", public_model, self.model),)

    def most_images(self, request: ImageRequest) -> int:
        """Return how many pictures a request may have here: ``n``, those of a group, or the provider's own count."""
        own = self.contract.by_operation[request.operation] if self.contract else None
        most = request.n if own is None or own.group is None else request.n * own.group.size(request.fields)
        return most if COUNT_MEMBERS.isdisjoint(request.fields) else max(most, most_counted(request.fields))


def identity_of(owner: str, authorization: str | None) -> str | None:
    """Return what a client is known by; None: it is anonymous.

    Args:
        owner: the host application's name for it; a line break in front keeps it apart from every header field.
        authorization: the client's ``Authorization``.
    """
    return f"\nowner {owner}" if owner else authorization


def tenant_identity(tenant: str) -> str:
    """Return what the images of a tenant are kept apart by; empty: there is no tenant."""
    return f"\ntenant {tenant}" if tenant else ""


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What the layers hand down beside the request itself."""

    request: ImageRequest
    public_model: str
    """The model as the client asked for it."""
    operation: Operation
    """As the client asked for it; the request's own may become another one's endpoint."""
    explain: bool = False
    """Show what would be sent, send nothing."""
    authorization: str | None = None
    """The client's own ``Authorization``, for upstreams without a key of their own."""
    owner: str = ""
    """Whose request it is, as the host application says; empty: it says nothing."""
    revised_prompt: str = ""
    """That the application's moderation has put in place of the client's; empty: the client's was sent."""
    tenant: str = ""
    """Whose store prefix its images have; empty: one of the client's own."""
    upstream_keys: Mapping[str, str] = {}
    """Upstream -> the client's own key for it."""
    target: Target | None = None
    reference_rule: ReferenceRule | None = None
    """How the candidate takes references; set by Fit."""
    copies_links: bool = False
    """Whether pictures that a provider answers with as links go into the store, as those of tasks do."""

    @property
    def identity(self) -> str | None:
        """What a client is known by: the host application's name for it, else its ``Authorization``."""
        return identity_of(self.owner, self.authorization)

    @property
    def store_identity(self) -> str | None:
        """What the store keeps the client's images apart by: its tenant, else its identity."""
        return tenant_identity(self.tenant) or self.identity

    def to(self, target: Target) -> Exchange:
        """Return the exchange for a candidate, with the upstream's name of the model."""
        request = self.request
        if request.model != target.model:
            request = request.with_fields({**request.fields, "model": target.model})
        return msgspec.structs.replace(self, request=request, target=target)

    def replace(self, **members: Any) -> Exchange:
        return msgspec.structs.replace(self, **members)


class StoredPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that is in the store already."""

    key: str
    facts: Facts


Picture = StoredPicture | FileRef
"""A picture that came in apart from the document that names it: in the store, or in the spool."""


class ReplyImage(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of a reply; exactly one of `url`, `b64_json` and `picture` is set."""

    url: str | None = None
    b64_json: str | None = None
    picture: Picture | None = None
    fields: Mapping[str, Any] = {}
    """Other members, such as ``revised_prompt``."""
    facts: Facts | None = None
    """Of the image, where its header was read."""
    written: str = ""
    """What the provider wrote in place of a full link: `url` is one only if there is a picture."""


class ImageReply(msgspec.Struct, frozen=True, kw_only=True):
    """A reply that carries pictures."""

    images: tuple[ReplyImage, ...]
    created: int
    """Unix time in seconds."""
    fields: Mapping[str, Any] = {}
    """Other members, such as ``usage``."""

    def encode(self) -> bytes:
        """Return OpenAI's JSON; only for replies whose images are links or base64."""
        data = [
            {"b64_json": image.b64_json, **image.fields} if image.url is None else {"url": image.url, **image.fields}
            for image in self.images
        ]
        return msgspec.json.encode({"created": self.created, **self.fields, "data": data})


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a streamed reply."""

    name: str
    data: bytes
    """JSON, but for an end mark such as ``[DONE]``; tokens stand in it for pictures."""
    pictures: Mapping[str, Picture] = {}
    """By token."""
    lines: tuple[bytes, ...] = ()
    """Its ``id`` and ``retry`` lines."""

    @property
    def is_end_mark(self) -> bool:
        return self.data.strip() == END_MARK
