"""SGLang's diffusion server: OpenAI's paths with defaults that clients do not expect."""

from __future__ import annotations

from imagegate.adapter import Adapter, Authentication, OpenAIAdapter


class SGLang(OpenAIAdapter):
    """sglang, multimodal_gen/runtime/entrypoints/openai; ``file_path`` is a path on the server."""

    name = "sglang"
    base_url = ""
    authentication = Authentication(required=False)
    hidden_members = ("file_path", "peak_memory_mb")


_: type[Adapter] = SGLang
