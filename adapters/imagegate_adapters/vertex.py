"""Gemini on Google Cloud ("Agent Platform", formerly Vertex AI): the same bodies at other hosts."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from imagegate.adapter import BEARER
from imagegate.contract import ContractDocument
from imagegate.errors import RequestError
from imagegate_adapters.gemini import Gemini


class VertexOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the models are."""

    project: str = ""
    """Id of the Google Cloud project; empty: express mode, with an API key."""
    location: str = "global"
    """``global``, the multi-regions ``eu`` and ``us``, or a region such as ``europe-west4``."""


class Vertex(Gemini):
    """cloud.google.com, "Agent Platform" reference; hosts and paths as @ai-sdk/google-vertex 5.0 has them."""

    name = "vertex"
    options_type = VertexOptions
    options: VertexOptions

    def __init__(self, options: VertexOptions | None = None) -> None:
        super().__init__(options)
        self.base_url = f"https://{_host(self.options.location if self.options.project else 'global')}"
        if self.options.project:
            self.authentication = BEARER  # no API keys with a project: access tokens only

    def contracts(self) -> ContractDocument:
        """Return Gemini's models."""
        own, gemini = super().contracts(), Gemini().contracts()
        return msgspec.structs.replace(own, models=gemini.models, families=gemini.families)

    def path(self, model: str) -> str:
        """Address tuned models as ``endpoints/ID``."""
        kind, slash, id_ = model.partition("/")
        tuned = kind == "endpoints" and slash
        if tuned and not self.options.project:
            raise RequestError("Tuned models need options.project: express mode has none.", param="model")
        place = f"endpoints/{quote(id_, safe='')}" if tuned else f"publishers/google/models/{quote(model, safe='')}"
        if not self.options.project:
            return f"/v1/{place}:generateContent"
        project, location = quote(self.options.project, safe=""), quote(self.options.location, safe="")
        return f"/v1beta1/projects/{project}/locations/{location}/{place}:generateContent"


def _host(location: str) -> str:
    if location == "global":
        return "aiplatform.googleapis.com"
    return (
        f"aiplatform.{location}.rep.googleapis.com"
        if location in ("eu", "us")
        else f"{location}-aiplatform.googleapis.com"
    )
