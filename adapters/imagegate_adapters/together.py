"""Together: OpenAI's path with members of its own, base64 in JSON or links for references."""

from __future__ import annotations

from imagegate.adapter import Adapter, ImageRequest, OpenAIAdapter, UpstreamRequest, native_body


class Together(OpenAIAdapter):
    """docs.together.ai, "Create image"; edits are generations with references."""

    name = "together"
    base_url = "https://api.together.xyz"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        document = {"model": request.model, **native_body(request)}
        return UpstreamRequest(method="POST", path=self.paths["generations"], document=document)


_: type[Adapter] = Together
