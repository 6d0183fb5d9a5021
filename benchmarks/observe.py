"""What seeing costs: CPU microseconds of an exchange with and without Observe, its log line and its metrics.

An exchange with all facts of a generation (one POST, two changes, usage, one picture as a link) goes through a layer
that does nothing else, with and without Observe above it. Short rounds alternate, and the least of them is shown: what
other programs of the machine add by emptying caches is no cost of ours; the median, shown beside it, has it. Log lines
are written as a standalone gateway writes them, to ``/dev/null``.

    python benchmarks/observe.py [--requests N] [--rounds N] [--workers] [--traces]

``--workers``: metrics in files that processes share, as with ``imagegate serve --workers``. ``--traces``: what three
spans of OpenTelemetry cost on top (exchange, attempt, stored image), with the SDK's batch processor and an exporter
that drops them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from functools import partial
from types import SimpleNamespace
from typing import Any, BinaryIO

from starlette.types import Message, Receive, Scope, Send

GOAL = 60.0
TRACES_GOAL = 150.0
BODY = b'{"created": 1, "data": [{"url": "https://img.example/1.png"}]}'
HEADERS = [(b"content-type", b"application/json"), (b"user-agent", b"bench"), (b"content-length", b"64")]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    # Twice as many as the hook counts at a time.
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--workers", action="store_true")
    parser.add_argument("--traces", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "wb") as output:
        if options.workers:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # read when the client is imported
        without, with_it = asyncio.run(measure(options.requests, options.rounds, output, traces=options.traces))
    cost, ratio = min(with_it) - min(without), min(with_it) / min(without)
    what, goal = ("spans", TRACES_GOAL) if options.traces else ("Observe", GOAL)
    for name, rounds in ((f"without {what}", without), (f"with {what}", with_it)):
        median = statistics.median(rounds)
        print(f"{name:<16} {min(rounds):7.1f} us CPU per request (median of rounds {median:.1f})")
    print(f"{what + ' cost':<16} {cost:7.1f} us, {ratio:.1f} times as much; goal: under {goal:g} us")
    return 0 if cost < goal else 1


def tracing_hook() -> Any:
    """Return the hook of OpenTelemetry with an SDK that batches spans and drops them; without one for metrics."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    from imagegate.opentelemetry import OTelHook

    class Drop(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Drop()))
    return OTelHook(tracer_provider=provider)


async def measure(
    requests: int, rounds: int, output: BinaryIO, *, traces: bool = False
) -> tuple[list[float], list[float]]:
    """Return CPU microseconds per request of each round, without and with; log lines go to `output`."""
    from prometheus_client import CollectorRegistry

    from imagegate.config.price_table import PriceTable
    from imagegate.config.schema import PricesConfig
    from imagegate.contracts.changes import Change
    from imagegate.layers import Layer, Observe
    from imagegate.protocol.prices import ModelPrice
    from imagegate.telemetry.hooks import Hook, Hooks
    from imagegate.telemetry.log import LogHook
    from imagegate.telemetry.progress import PROGRESS_KEY, Progress, cost_of, timed_call
    from imagegate.telemetry.prometheus import PrometheusHook
    from imagegate.tracing import operation

    changes = (Change("size", "mapped", "1920x1080", "1920x1088"), Change("style", "dropped"))
    usage = {"input_tokens": 12, "output_tokens": 2000, "input_tokens_details": {"text_tokens": 12, "image_tokens": 0}}

    class Handler(Layer):
        """Stands for everything below, and writes down what an ordinary generation does."""

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            progress: Progress = scope[PROGRESS_KEY]
            await receive()
            progress.model, progress.upstream, progress.upstream_model = "gpt-image-2", "tokenlab", "gpt-image-2"
            progress.images_asked, progress.size_asked, progress.fit_changes = 1, "1920x1080", changes
            with operation("attempt", account=account, model="gpt-image-2") as attempt:
                with timed_call(progress, "tokenlab", "gpt-image-2"):
                    progress.attempts += 1
                attempt.note(images=1, usage=usage)
            with operation("store", size=100_000):
                pass
            progress.replied(1, usage)
            progress.upstream_seconds, progress.delivery_seconds = 1.2, 0.1
            progress.form, progress.images_delivered, progress.sizes_made = "url", 1, ("1920x1088",)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": BODY})

    async def receive() -> Message:
        return {"type": "http.request", "body": BODY}

    async def send(message: Message) -> None: ...

    async def nobody(scope: Scope, receive: Receive, send: Send) -> None: ...

    bare: Layer = Handler(nobody)
    account = SimpleNamespace(
        name="tokenlab", origin="https://api.example.com", adapter=SimpleNamespace(name="tokenlab")
    )
    prices = PriceTable(PricesConfig(models={"gpt-image-2": ModelPrice(image=0.04)}), {})
    each: list[Hook] = [LogHook(output=output), PrometheusHook(registry=CollectorRegistry())]
    hooks = Hooks(each, routes={"gpt-image-2"}, cost=partial(cost_of, prices=prices), currency="USD")
    observed = Observe(Handler(nobody), hooks=hooks)
    if traces:
        traced = Hooks([*each, tracing_hook()], routes={"gpt-image-2"}, cost=partial(cost_of, prices=prices))
        bare, observed = observed, Observe(Handler(nobody), hooks=traced)

    async def run(app: Layer, extra: bool) -> float:
        started = time.process_time_ns()
        for _ in range(requests):
            scope: Scope = {"type": "http", "method": "POST", "path": "/v1/images/generations", "headers": HEADERS}
            if extra and not traces:
                scope[PROGRESS_KEY] = Progress("generations")
            await app(scope, receive, send)
        return (time.process_time_ns() - started) / requests / 1000

    figures: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        for without in (True, False):
            figures[without].append(await run(bare if without else observed, without))
    return figures[True], figures[False]


if __name__ == "__main__":
    raise SystemExit(main())
