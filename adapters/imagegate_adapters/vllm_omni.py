"""vLLM-Omni: OpenAI's paths in front of one model of one's own."""

from __future__ import annotations

import json

import msgspec

from imagegate.adapter import Adapter, FilePart, ImageRequest, UpstreamRequest
from imagegate_adapters.dialects.local_server import LocalServer


class VLLMOmni(LocalServer):
    """vllm-omni, entrypoints/openai: the model's name must be the served one, and a mask has a name of its own."""

    name = "vllm-omni"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        if request.operation != "generations" and "lora" in request.fields:  # an object in JSON, JSON in a form
            request = request.with_fields({**request.fields, "lora": json.dumps(request.fields["lora"])})
        encoded = super().encode(request)
        parts = tuple(
            FilePart("mask_image", part.upload) if isinstance(part, FilePart) and part.name == "mask" else part
            for part in encoded.parts
        )
        return msgspec.structs.replace(encoded, parts=parts)


_: type[Adapter] = VLLMOmni
