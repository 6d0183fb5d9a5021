"""TokenBay: OpenAI's shapes; a failed generation may come as a 200 that says ``failed``."""

from __future__ import annotations

from imagegate.adapter import OpenAIAdapter


class TokenBay(OpenAIAdapter):
    """tokenbay.com API reference, "Images"."""

    name = "tokenbay"
    base_url = "https://api.tokenbay.com"
