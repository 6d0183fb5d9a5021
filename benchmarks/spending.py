"""CPU of limits and budgets for one request: the layer with its ledger, around a layer that does nothing.

::

    python -m benchmarks.spending            # in memory
    python -m benchmarks.spending redis://127.0.0.1:6379/0
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from imagegate.access.principal import Limits, Principal
from imagegate.asgi.background import Background
from imagegate.config.loader import read_config
from imagegate.config.model_contracts import contracts_of
from imagegate.config.price_table import price_table
from imagegate.layers.base import Layer, Work
from imagegate.layers.spend import Spend
from imagegate.protocol.messages import SCOPE_KEY, Exchange, ImageRequest
from imagegate.routing.catalog import Catalog
from imagegate.spending.factory import open_spending
from imagegate.telemetry.exchange import UpstreamCall
from imagegate.telemetry.hooks import Hooks
from imagegate.telemetry.progress import PROGRESS_KEY, Progress

CONNECTIONS = 16
REQUESTS = 2000
"""Of each connection."""
PRINCIPAL = Principal(
    id="ada",
    limits=Limits(requests_per_minute=10**9, images_per_day=10**9, in_flight=1000, spend_per_day=10**6),
    groups={"team": Limits(spend_per_month=10**6)},
)


class Made(Layer):
    """Stands for a provider that answers at once."""

    def handle(self, scope: Any, receive: Any, send: Any) -> Work:
        return self._made(scope[PROGRESS_KEY])

    async def _made(self, progress: Progress) -> None:
        progress.upstream, progress.upstream_model = "p", "gpt-image-2"
        progress.calls.append(UpstreamCall("p", "gpt-image-2", "ok", 0.1, 1))
        progress.replied(1, None)
        await asyncio.sleep(0)


async def measure(redis: str) -> tuple[float, float]:
    """Return the CPU of a request with limits and without, in microseconds."""
    config = read_config(
        {
            "upstreams": [{"name": "p", "adapter": "openai", "api_key": "k"}],
            "prices": {"models": {"gpt-image-2": {"image": 0.04}}},
            "access": {"limits": {"spend_per_month": 10**7}},
            "spending": {"rates": redis},
        }
    )
    spending = open_spending(
        config,
        catalog=Catalog(contracts_of(config), config.routes),
        prices=price_table(config),
        pays=lambda upstream: True,
        hooks=Hooks(()),
    )
    bare = Made(_nothing)
    layer = Spend(bare, spending=spending, background=Background())
    request = ImageRequest(operation="generations", fields={"model": "gpt-image-2", "prompt": "A cat", "n": 1})
    exchange = Exchange(request=request, public_model="gpt-image-2", operation="generations")

    async def connection(layer: Layer, requests: int) -> None:
        for _ in range(requests):
            progress = Progress("generations")
            progress.principal = PRINCIPAL
            await layer.handle({PROGRESS_KEY: progress, SCOPE_KEY: exchange}, None, None)  # type: ignore[arg-type]

    async def cpu(layer: Layer) -> float:
        await asyncio.gather(*(connection(layer, 100) for _ in range(CONNECTIONS)))
        started = time.process_time()
        await asyncio.gather(*(connection(layer, REQUESTS) for _ in range(CONNECTIONS)))
        await asyncio.sleep(0.05)
        return (time.process_time() - started) / (CONNECTIONS * REQUESTS) * 1e6

    found = await cpu(layer), await cpu(bare)
    await spending.aclose()
    return found


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing is below")


def main() -> None:
    redis = sys.argv[1] if len(sys.argv) > 1 else "memory://"
    limited, bare = asyncio.run(measure(redis))
    print(
        f"{redis}: {limited:.1f} us with limits, {bare:.1f} us without: {limited - bare:.1f} us for limits and budgets"
    )


if __name__ == "__main__":
    main()
