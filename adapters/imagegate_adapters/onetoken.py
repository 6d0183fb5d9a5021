"""OneToken: OpenAI's shapes under paths that end in a slash, which its documentation requires."""

from __future__ import annotations

from imagegate.adapter import OpenAIAdapter


class OneToken(OpenAIAdapter):
    """doc.onetoken.one, "Text to Image API" and "Image Edits API"."""

    name = "onetoken"
    base_url = "https://api.onetoken.one"
    paths = {  # noqa: RUF012 - never changed
        "generations": "/v1/images/generations/",
        "edits": "/v1/images/edits/",
    }
