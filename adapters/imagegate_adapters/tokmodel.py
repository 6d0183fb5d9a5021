"""TokModel: OpenAI's shapes, model ids written ``vendor/model``."""

from __future__ import annotations

from imagegate.adapter import OpenAIAdapter


class TokModel(OpenAIAdapter):
    """docs.tokmodel.com, "Images"."""

    name = "tokmodel"
    base_url = "https://tokmodel.com"
