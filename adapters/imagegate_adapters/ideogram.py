"""Ideogram: forms, one path for making, remixing and inpainting each, ratios with an ``x`` in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from imagegate.adapter import (
    Adapter,
    Authentication,
    ImageReply,
    ImageRequest,
    PendingTask,
    UpstreamReply,
    UpstreamRequest,
    native_form,
    wire_path,
)
from imagegate.replies import read_reply


class Ideogram(Adapter):
    """developer.ideogram.ai, API reference of 3.0 and 4.0; the model is the path."""

    name = "ideogram"
    base_url = "https://api.ideogram.ai"
    task_path = "/v1/generations/{id}"
    authentication = Authentication(header="api-key", scheme="")

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        path = wire_path(request, "path" if request.mask is None else "mask_path")
        return UpstreamRequest(method="POST", path=path, parts=native_form(request))

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Read a reply; the prompt of each picture is the one that Magic Prompt made."""
        result = read_reply(reply, now=now)
        if isinstance(result, PendingTask):
            return result
        images = [replace(image, fields=_in_openais_words(image.fields)) for image in result.images]
        return replace(result, images=tuple(images))


def _in_openais_words(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"revised_prompt" if name == "prompt" else name: value for name, value in fields.items()}


_: type[Adapter] = Ideogram
