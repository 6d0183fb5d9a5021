"""What an exchange cost, by the operator's own price table. Pure."""

from __future__ import annotations

from imagegate.config.schema import PricesConfig
from imagegate.protocol.usage import tokens_by_kind
from imagegate.telemetry.progress import Progress

_MILLION = 1_000_000


def cost_of(progress: Progress, prices: PricesConfig) -> float | None:
    """In the table's currency, for the images and tokens that the provider's replies name; None: no price is known."""
    upstream, model = progress.upstream, progress.upstream_model
    price = prices.models.get(f"{upstream}/{model}") or prices.models.get(model)
    if price is None or not (progress.images_made or progress.usage):
        return None
    tokens = tokens_by_kind(progress.usage) if price.tokens else {}
    by_token = sum(count * price.tokens.get(kind, 0.0) for kind, count in tokens.items())
    return progress.images_made * price.image + by_token / _MILLION
