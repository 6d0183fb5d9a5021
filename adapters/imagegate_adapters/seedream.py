"""Seedream at Volcengine Ark and BytePlus ModelArk: a tier or pixels in ``size``, and groups of pictures."""

from __future__ import annotations

from imagegate.adapter import Adapter, ImageRequest, UpstreamRequest, native_body


class Seedream(Adapter):
    """volcengine.com and byteplus.com, "Image generation API"."""

    name = "seedream"
    base_url = "https://ark.ap-southeast.bytepluses.com/api/v3"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        document = {"model": request.model, **native_body(request)}
        return UpstreamRequest(method="POST", path="/v1/images/generations", document=document)
