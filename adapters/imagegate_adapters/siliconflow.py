"""SiliconFlow: OpenAI's path with members of its own, and links to the pictures that last an hour."""

from __future__ import annotations

from imagegate.adapter import Adapter, ImageRequest, UpstreamRequest, native_body


class SiliconFlow(Adapter):
    """docs.siliconflow.cn, "images/generations"."""

    name = "siliconflow"
    base_url = "https://api.siliconflow.cn"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        document = {"model": request.model, **native_body(request)}
        return UpstreamRequest(method="POST", path="/v1/images/generations", document=document)
