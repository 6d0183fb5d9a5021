"""Ollama's experimental images: one picture a request, and edits as JSON with one image in it."""

from __future__ import annotations

from imagegate.adapter import Adapter, ImageRequest, UpstreamRequest, inline
from imagegate_adapters.dialects.local_server import LocalServer


class Ollama(LocalServer):
    """docs.ollama.com/api/openai-compatibility; middleware/openai.go."""

    name = "ollama"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        request = request.without("output_format")  # it is PNG in any case
        if not request.images:
            return super().encode(request)
        image = inline(request.images[0], is_data_url=True)
        return UpstreamRequest(method="POST", path=self.paths["edits"], document={**request.fields, "image": image})


_: type[Adapter] = Ollama
