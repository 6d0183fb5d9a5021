"""OpenAI itself, and any server that speaks its Images API (set ``base_url``)."""

from __future__ import annotations

from imagegate.adapter import OpenAIAdapter


class OpenAI(OpenAIAdapter):
    """The Images API as it is."""
