"""DeepInfra: two ways of speaking on one key, its own for generations and OpenAI's form for edits."""

from __future__ import annotations

from imagegate.adapter import Adapter, ImageRequest, TextPart, UpstreamRequest, model_path, native_body, native_form


class DeepInfra(Adapter):
    """``/v1/inference/MODEL``, and ``/v1/openai/images/edits``, whose parts are called ``image`` without brackets."""

    name = "deepinfra"
    base_url = "https://api.deepinfra.com"
    chat_paths = ("/v1/openai",)
    picture_members = ("images", "b64_json")
    models_path = "/v1/openai/models"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        if request.operation != "generations":
            parts = (TextPart("model", request.model), *native_form(request))
            return UpstreamRequest(method="POST", path="/v1/openai/images/edits", parts=parts)
        path = f"/v1/inference/{model_path(request.model)}"
        return UpstreamRequest(method="POST", path=path, document=native_body(request))


_: type[Adapter] = DeepInfra
