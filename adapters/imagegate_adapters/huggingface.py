"""Hugging Face: its own inference, which answers with the bytes of a picture, and partners behind its router."""

from __future__ import annotations

from imagegate.adapter import Adapter, ImageRequest, UpstreamRequest, model_path, native_body


class HuggingFace(Adapter):
    """huggingface_hub, ``inference/_providers``; a partner's model is called ``PARTNER/OWNER/NAME``."""

    name = "huggingface"
    base_url = "https://router.huggingface.co"
    chat_paths = ("/v1",)

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        """Leave the model out of a partner's path: it is a member, as at the partner."""
        document, path = native_body(request), request.wire.get("path")
        if path is not None:
            partners_own = request.model.partition("/")[2]
            return UpstreamRequest(method="POST", path=path, document={"model": partners_own, **document})
        path = f"/hf-inference/models/{model_path(request.model)}"
        return UpstreamRequest(method="POST", path=path, headers=(("accept", "image/png"),), document=document)


_: type[Adapter] = HuggingFace
