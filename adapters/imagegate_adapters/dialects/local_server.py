"""Servers of one's own that speak OpenAI's dialect: wherever they are, and with a key only where they ask for one."""

from __future__ import annotations

from imagegate.adapter import Authentication, OpenAIAdapter


class LocalServer(OpenAIAdapter):
    """OpenAI's API at an address that only the operator knows."""

    base_url = ""
    authentication = Authentication(required=False)
