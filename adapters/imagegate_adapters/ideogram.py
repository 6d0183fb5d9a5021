"""Ideogram: forms, one path for making, remixing and inpainting each, ratios with an ``x`` in them."""

from __future__ import annotations

from imagegate.adapter import Adapter, Authentication, ImageRequest, UpstreamRequest, native_form


class Ideogram(Adapter):
    """developer.ideogram.ai, API reference of 3.0 and 4.0; the model is the path."""

    name = "ideogram"
    base_url = "https://api.ideogram.ai"
    authentication = Authentication(header="api-key", scheme="")

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        path = request.wire["path" if request.mask is None else "mask_path"]
        return UpstreamRequest(method="POST", path=path, parts=native_form(request))


_: type[Adapter] = Ideogram
