"""What an exchange cost, by a table of prices. Pure."""

from __future__ import annotations

from typing import Protocol

from imagegate.protocol.prices import ModelPrice
from imagegate.telemetry.progress import Progress


class Prices(Protocol):
    """Knows what models cost."""

    def find(self, upstream: str, model: str) -> ModelPrice | None:
        """Return the price of a model as its upstream calls it; None: none is known."""
        ...


def cost_of(progress: Progress, prices: Prices) -> float | None:
    """In the table's currency, for the images and tokens that the provider's replies name; None: no price is known."""
    if not (progress.images_made or progress.usage):
        return None
    price = prices.find(progress.upstream, progress.upstream_model)
    return None if price is None else price.cost(progress.images_made, progress.usage, progress.sent_fields)
