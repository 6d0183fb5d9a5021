"""Recraft: OpenAI's generations, and a path of its own for each kind of edit."""

from __future__ import annotations

from imagegate.adapter import Adapter, ImageRequest, TextPart, UpstreamRequest, native_body, native_form
from imagegate.errors import RequestError


class Recraft(Adapter):
    """www.recraft.ai/docs/api-reference: image to image, inpainting, replacing and generating backgrounds."""

    name = "recraft"
    base_url = "https://external.api.recraft.ai"
    models_path = "/v1/users/me"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        """Services that are called as models here have the model's own name in their contract."""
        model = request.wire.get("model", request.model)
        if request.operation == "generations":
            document = {"model": model, **native_body(request)}
            return UpstreamRequest(method="POST", path="/v1/images/generations", document=document)
        path = request.wire.get("path" if request.mask is None else "mask_path")
        if path is None:
            raise RequestError("This model changes what a mask marks: send one.", param="mask")
        return UpstreamRequest(method="POST", path=path, parts=(TextPart("model", model), *native_form(request)))


_: type[Adapter] = Recraft
