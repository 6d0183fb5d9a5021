"""xAI: OpenAI's paths and replies, with JSON edits, and a ratio and a tier in place of a size."""

from __future__ import annotations

from typing import Any

from imagegate.adapter import (
    FileID,
    ImageReply,
    ImageRequest,
    OpenAIAdapter,
    PendingTask,
    Reference,
    UpstreamReply,
    UpstreamRequest,
    linked,
)
from imagegate.errors import ModerationBlocked
from imagegate.replies import provider_error, read_object


class XAI(OpenAIAdapter):
    """docs.x.ai, "Image generations" and "Image edits"; xai_sdk."""

    name = "xai"
    base_url = "https://api.x.ai"
    relays = False
    """A picture that was withheld is known by a member beside it."""

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        """Write references as objects; a single one is ``image``, several are ``images``."""
        images = [_object(image) for image in request.images]
        references: dict[str, Any] = {}
        if images:
            references = {"image": images[0]} if len(images) == 1 else {"images": images}
        path = self.paths[request.operation]
        return UpstreamRequest(method="POST", path=path, document={**request.fields, **references})

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Read a list without pictures as one whose pictures were withheld."""
        document = (read_object(reply.body) if reply.status == 200 else None) or {}
        if document.get("data") == [] and not provider_error(document):
            raise ModerationBlocked("The provider withheld the image for its content.")
        return super().decode(reply, now=now)


def _object(reference: Reference) -> dict[str, Any]:
    if isinstance(reference, FileID):
        return {"file_id": reference.id}
    return {"url": linked(reference), "type": "image_url"}
