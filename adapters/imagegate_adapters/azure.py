"""Azure OpenAI: OpenAI's shapes under Azure's paths, where a model is the name of a deployment."""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import quote, urlsplit

import msgspec

from imagegate.adapter import BEARER, Authentication, ImageRequest, OpenAIAdapter, UpstreamRequest

_DATED: Final = "2025-04-01-preview"
"""The version of the deployments form that has GPT image models."""


class AzureOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the deployments are."""

    resource: str = ""
    """Of ``https://RESOURCE.openai.azure.com``; else the upstream has a ``base_url``."""
    form: Literal["v1", "deployments"] = "v1"
    """``/openai/v1/images/...`` with the deployment as ``model``, or ``/openai/deployments/NAME/images/...``."""
    api_version: str = ""
    """Default: ``preview`` with ``v1``, ``2025-04-01-preview`` with ``deployments``."""


class Azure(OpenAIAdapter):
    """learn.microsoft.com, "How to use image models" (2026-03)."""

    name = "azure"
    base_url = ""
    own_hosts = ("*.openai.azure.com", "*.cognitiveservices.azure.com", "*.services.ai.azure.com")
    authentication = Authentication(header="api-key", scheme="")
    token_authentication = BEARER
    options_type = AzureOptions
    options: AzureOptions

    def __init__(self, options: AzureOptions | None = None) -> None:
        super().__init__(options)
        self._by_path = self.options.form == "deployments"
        self._version = self.options.api_version or (_DATED if self._by_path else "preview")
        if self.options.resource:
            path = "/openai" if self._by_path else "/openai/v1"
            self.base_url = f"https://{self.options.resource}.openai.azure.com{path}"

    def full_base_url(self, base_url: str) -> str:
        """Complete a resource's endpoint with ``/openai``; that of one deployment with a version of its form."""
        parts = urlsplit(base_url)
        if not parts.path.strip("/") and not parts.query:
            return f"{base_url.rstrip('/')}/openai"
        if "/deployments/" in parts.path and not parts.query:
            return f"{base_url.rstrip('/')}?api-version={quote(self.options.api_version or _DATED)}"
        return base_url

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        """Keep ``model`` in the body in both forms, as the official SDK sends it."""
        encoded = super().encode(request)
        path = encoded.path
        if self._by_path:
            path = f"/deployments/{quote(request.model, safe='')}{path.removeprefix('/v1')}"
        return msgspec.structs.replace(encoded, path=f"{path}?api-version={quote(self._version)}")
