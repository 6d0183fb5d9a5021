"""Adapters of made-up providers: each uses a part of the seam that the shipped ones may not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from imagegate import registry
from imagegate.adapter import (
    Adapter,
    Authentication,
    FileID,
    FilePart,
    FileRef,
    ImageReply,
    ImageRequest,
    InlineFile,
    Link,
    OpenAIAdapter,
    PendingTask,
    ReplyImage,
    TextFile,
    Upload,
    UpstreamReply,
    UpstreamRequest,
    inline,
    model_path,
)
from imagegate.contract import ContractDocument, read_document
from imagegate.errors import UpstreamRefused
from imagegate.replies import failure, read_object, read_picture, read_reply, uncertain

PARAMETERS = "parameters = { prompt = {}, n = { type = 'integer', max = 1 }, output_format = {} }\n"


class Keyed(OpenAIAdapter):
    """A key in a header field of its own."""

    name = "keyed"
    authentication = Authentication(header="x-made-up-key", scheme="")
    token_authentication = Authentication()


class Named(OpenAIAdapter):
    """A scheme of its own."""

    name = "named"
    authentication = Authentication(scheme="Key")


class BasicAuth(OpenAIAdapter):
    """User and password."""

    name = "basic"
    authentication = Authentication(scheme="Basic")


class Open(OpenAIAdapter):
    """A server of one's own, which needs no key."""

    name = "open"
    authentication = Authentication(required=False)


class Bytes(OpenAIAdapter):
    """Model in the path and the query, and a picture as the reply."""

    name = "bytes"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        return UpstreamRequest(
            method="POST",
            path=f"/v7/models/{request.model}:paint?model={request.model}",
            headers=(("accept", "image/*"),),
            document={"prompt": request.fields["prompt"]},
        )

    def contracts(self) -> ContractDocument:
        return read_document(f"[models.painter]\n{PARAMETERS}")


class Inline(OpenAIAdapter):
    """References as base64 in JSON, links as they are."""

    name = "inline"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        images = [
            {"link": image.url} if isinstance(image, Link) else {"data": inline(image, is_data_url=True)}
            for image in request.images
        ]
        mask = {} if request.mask is None else {"mask": inline(request.mask)}
        return UpstreamRequest(method="POST", path="/paint", document={**request.fields, "images": images, **mask})

    def contracts(self) -> ContractDocument:
        references = "references = { forms = ['inline', 'objects'], mask = true }\n"
        strict = "references = { forms = ['inline'] }\n"
        return read_document(
            f"[models.painter]\n{PARAMETERS}[models.painter.edits]\n{references}"
            f"[models.files-only]\n{PARAMETERS}[models.files-only.edits]\n{strict}"
        )


class Uploads(OpenAIAdapter):
    """References by the ids of an upload API."""

    name = "uploads"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        ids = [image.id for image in request.images if isinstance(image, FileID)]
        mask = request.mask.id if isinstance(request.mask, FileID) else None
        return UpstreamRequest(method="POST", path="/paint", document={"ids": ids, "mask": mask})

    def encode_upload(self, upload: Upload) -> UpstreamRequest:
        return UpstreamRequest(method="POST", path="/upload", parts=(FilePart("image", upload),))

    def decode_upload(self, reply: UpstreamReply) -> str:
        document = read_object(reply.body)
        if reply.status >= 400 or document is None or not isinstance(document.get("name"), str):
            raise failure(max(reply.status, 400), document)
        return str(document["name"])

    def contracts(self) -> ContractDocument:
        references = "references = { forms = ['uploads'], upload = true, mask = true, max = 3 }\n"
        return read_document(f"[models.painter]\n{PARAMETERS}[models.painter.edits]\n{references}")


class Queue(OpenAIAdapter):
    """Jobs with ids of our choosing, a result at another address, and pictures that need the key."""

    name = "queue"
    base_url = "https://api.queue.example"
    authentication = Authentication(header="x-key", scheme="")
    keyed_results = True
    names_jobs = True
    always_tasks = True
    task_hosts = ("*.queue.example",)
    hidden_members = ("file_path",)

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        document = {"prompt": request.fields["prompt"], "id": request.job_id}
        return UpstreamRequest(method="POST", path="/jobs", document=document, job_id=request.job_id)

    def poll(self, task: PendingTask) -> UpstreamRequest:
        return UpstreamRequest(method="GET", path=f"/jobs/{task.id}{'/result' if task.is_over else ''}")

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        document = read_object(reply.body)
        if document is None or reply.status >= 400:
            raise failure(max(reply.status, 400), document)
        if document.get("state") == "broken":
            error = UpstreamRefused("It broke.", code="generation_failed")
            error.ends_task = True
            raise error
        if "pictures" in document:
            images = tuple(ReplyImage(url=link, fields={"file_path": "/srv/1.png"}) for link in document["pictures"])
            return ImageReply(images=images, created=now, fields={"file_path": "/srv"})
        if "state" not in document:
            raise uncertain("The provider answered without a state.")
        return PendingTask(id=document["id"], is_over=document["state"] == "over", poll_url=document.get("where"))

    def contracts(self) -> ContractDocument:
        return read_document(f"[models.painter]\n{PARAMETERS}")


class Asked(OpenAIAdapter):
    """Tasks that are asked for by POST, at an address with the model in it."""

    name = "asked"
    question_suffix = "/result"
    asks_at = "/models/{model}/result"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        path = self.asks_at.format(model=model_path(request.model))
        return UpstreamRequest(method="POST", path="/paint", document={"prompt": "x"}, task_path=path)

    def poll(self, task: PendingTask) -> UpstreamRequest:
        return UpstreamRequest(method="POST", path="/result", document={"id": task.id})

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        document = read_object(reply.body) or {}
        return PendingTask(id=document["ticket"]) if "ticket" in document else read_reply(reply, now=now)

    def contracts(self) -> ContractDocument:
        return read_document(f"[models.painter]\n{PARAMETERS}")


class Careless(Bytes):
    """Says of every reply what its mode says, whatever the reply is."""

    name = "careless"
    mode = "refused"

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        if self.mode == "crash":
            raise KeyError("data")
        if self.mode == "empty":
            return ImageReply(images=(), created=now)
        if self.mode == "unsent":
            from imagegate.errors import UpstreamUnreachable

            raise UpstreamUnreachable("It never got there.")
        if self.mode == "task" and reply.status == 200:
            return PendingTask(id="t")
        raise UpstreamRefused("It was refused.", status=503)

    def poll(self, task: PendingTask) -> UpstreamRequest:
        return UpstreamRequest(method="POST", path="/again")


class Hiding(OpenAIAdapter):
    """OpenAI's shapes with paths of the server in them, and a seed that would be the same each time."""

    name = "hiding"
    hidden_members = ("file_path",)

    def contracts(self) -> ContractDocument:
        seeds = (
            "seed = { type = 'integer', min = 0, max = 99, random = true }, steps = { type = 'integer', default = 20 }"
        )
        known = "prompt = {}, stream = { type = 'boolean' }, n = { type = 'integer', max = 1 }"
        parameters = f"parameters = {{ {known}, {seeds} }}\n"
        return read_document(f"[models.painter]\n{parameters}")


class OptionsOfWorkflow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    workflow: TextFile | None = None
    steps: int = 20


class Nowhere(OpenAIAdapter):
    """A server of one's own, which is wherever it is."""

    name = "nowhere"
    base_url = ""


class WithOptions(OpenAIAdapter):
    """Options, one of them a file."""

    name = "options"
    options_type = OptionsOfWorkflow
    options: OptionsOfWorkflow

    def check(self) -> None:
        from imagegate.errors import ConfigError

        if self.options.workflow is not None and "{" not in self.options.workflow.text:
            raise ConfigError("options.workflow: is no JSON")

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        workflow = self.options.workflow
        document = {"workflow": workflow.text if workflow else "", "steps": self.options.steps}
        return UpstreamRequest(method="POST", path="/paint", document=document)


ALL: tuple[type[Adapter], ...] = (
    *(Keyed, Named, BasicAuth, Open, Bytes, Inline, Uploads, Queue, Asked, Careless, Hiding, Nowhere, WithOptions),
)


def announce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the registry find these beside the installed ones."""
    known = {kind.name: kind for kind in ALL}

    class Entry:
        def __init__(self, name: str) -> None:
            self.name, self.value = name, f"made_up:{name}"

        def load(self) -> Any:
            return known[self.name]

    found = {**registry.installed(), **{name: Entry(name) for name in known}}
    monkeypatch.setattr(registry, "installed", lambda: found)


__all__ = ["ALL", "FileRef", "InlineFile", "announce", "read_picture", "read_reply"]
