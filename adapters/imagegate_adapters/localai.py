"""LocalAI: OpenAI's generations, with references among their members, and a path of its own for masks."""

from __future__ import annotations

from typing import Literal

import msgspec

from imagegate.adapter import (
    Adapter,
    FilePart,
    FileRef,
    ImageRequest,
    TextPart,
    UpstreamRequest,
    inline,
)
from imagegate.errors import RequestError
from imagegate_adapters.dialects.local_server import LocalServer

_INPAINTED = "512x512"
"""The size of every picture that is made with a mask."""
_INPAINTING_MEMBERS = frozenset(["model", "prompt", "step", "size", "response_format", "output_format"])


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of an upstream."""

    references: Literal["ref_images", "files"] = "ref_images"
    """The member that takes the images of edits: ``ref_images`` for models that edit, ``files`` for image to image."""


class LocalAI(LocalServer):
    """LocalAI, core/http/endpoints/openai: image.go and inpainting.go."""

    name = "localai"
    options_type = Options
    options: Options
    keyed_results = True
    """Its links lead to itself, where clients need not be able to go."""
    hidden_members = ("usage",)
    """All zeros."""

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        if request.mask is not None:
            return _inpainting(request)
        fields = dict(request.fields)
        fields.pop("output_format", None)  # it is PNG in any case
        if negative := fields.pop("negative_prompt", None):
            fields["prompt"] = f"{fields['prompt']}|{negative}"
        if request.images:
            fields[self.options.references] = [inline(image) for image in request.images]
        return UpstreamRequest(method="POST", path=self.paths["generations"], document=fields)


def _inpainting(request: ImageRequest) -> UpstreamRequest:
    """Return a form with one image and its mask. Raises `RequestError` for what that path does not read."""
    fields = request.fields
    if other := next((name for name in fields if name not in _INPAINTING_MEMBERS), None):
        raise RequestError(f"LocalAI reads no '{other}' where there is a mask.", param=other)
    if fields.get("size", _INPAINTED) != _INPAINTED:
        raise RequestError(f"LocalAI makes pictures of {_INPAINTED} where there is a mask.", param="size")
    image, *others = request.images
    if others:
        raise RequestError("LocalAI takes one image where there is a mask.", param="image")
    texts = [TextPart("model", request.model), TextPart("prompt", str(fields["prompt"]))]
    if "step" in fields:
        texts.append(TextPart("steps", str(fields["step"])))
    named = (("image", image), ("mask", request.mask))
    files = [FilePart(name, file) for name, file in named if isinstance(file, FileRef)]
    return UpstreamRequest(method="POST", path="/v1/images/inpainting", parts=(*texts, *files))


_: type[Adapter] = LocalAI
