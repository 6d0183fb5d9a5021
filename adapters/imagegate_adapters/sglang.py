"""SGLang's diffusion server: OpenAI's paths with defaults that clients do not expect."""

from __future__ import annotations

from imagegate.adapter import Adapter
from imagegate_adapters.dialects.local_server import LocalServer


class SGLang(LocalServer):
    """sglang, multimodal_gen/runtime/entrypoints/openai; ``file_path`` is a path on the server."""

    name = "sglang"
    hidden_members = ("file_path", "peak_memory_mb")


_: type[Adapter] = SGLang
