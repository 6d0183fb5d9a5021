"""Azure OpenAI's paths, as the official `AzureOpenAI` clients ask them, as those of the OpenAI API."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from starlette.types import Scope

from imagegate.asgi.helpers import header, route_path

DEPLOYMENT: Final = "imagegate.deployment"
"""Scope key of the deployment that the path names, which is the model."""
AZURE: Final = "/openai/"
"""What Azure's paths begin with."""
_PATH: Final = re.compile(
    r"/openai/(?:deployments/([^/](?:.{0,254}[^/])?)|v1)(/images/(?:generations|edits|variations)/?)"
)
"""A model may have slashes in it, ``openai/dall-e-3`` for one, which the clients do not encode."""


def openai_scope(scope: Scope, prefix: str) -> Scope | None:
    """Return the scope of a request to Azure's image endpoints with OpenAI's path; None: it is another request.

    ``/openai/deployments/NAME/images/...`` and ``/openai/v1/images/...`` are known, ``api-key`` is taken for the bearer
    token where there is no ``Authorization``, and ``api-version`` is not looked at.
    Source: https://learn.microsoft.com/azure/ai-services/openai/reference

    Args:
        prefix: of the OpenAI API's paths here.
    """
    path = route_path(scope)
    found = _PATH.fullmatch(path) if scope["method"] == "POST" else None
    if found is None:
        return None
    root = scope["path"].removesuffix(path)
    ours = f"{root}{prefix}{found[2]}"
    changed = {**scope, "path": ours, "raw_path": quote(ours).encode()}
    if found[1] is not None:
        changed[DEPLOYMENT] = found[1]
    key = header(scope, b"api-key")
    if key is not None:
        headers = [field for field in scope["headers"] if field[0] != b"api-key"]
        if header(scope, b"authorization") is None:
            headers.append((b"authorization", b"Bearer " + key.strip()))
        changed["headers"] = headers
    return changed
