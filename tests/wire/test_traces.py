"""Spans of exchanges, on real sockets: their parents, ends and status, beside the record of the same exchange."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.waiting import until
from tests.wire.edit_support import gateway_process
from tests.wire.faults import FAULTS, GOOD, KEY, PNG, Connection, Request, Rig, leave, rig
from tests.wire.keeping_support import (
    EDITS,
    GENERATIONS,
    LARGE,
    Origin,
    Receiver,
    Redis,
    ended,
    held_edit,
    redis_server,
)
from tests.wire.shared_support import SECRET, Both, create, kill

from imagegate import ExchangeRecord, ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving
from imagegate.opentelemetry import OTelHook
from imagegate.prometheus import PrometheusHook
from imagegate.telemetry import otel_sdk

OUTCOMES = [name for name in FAULTS if name not in ("endless", "huge", "huge-error")]
PROMPT = "a prompt that nobody may find"


class Spans:
    """A tracer and a meter in memory, and what a test asks of them."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        meters = MeterProvider([self.reader])
        self.hook = OTelHook(tracer_provider=self.provider, meter_provider=meters, **options)

    def of(self, request_id: str) -> Tree:
        """The spans of an exchange, once its own has ended."""

        def found() -> ReadableSpan | None:
            return next((s for s in self.all if s.attributes["imagegate.request_id"] == request_id), None)

        until(found)
        root = found()
        assert root is not None
        return self.tree(root)

    @property
    def all(self) -> list[ReadableSpan]:
        """Spans of exchanges."""
        return [s for s in self.exporter.get_finished_spans() if "imagegate.request_id" in (s.attributes or {})]

    def tree(self, root: ReadableSpan) -> Tree:
        below: list[ReadableSpan] = []
        ids = {root.context.span_id}
        spans = sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        for span in spans:
            if span.parent is not None and span.parent.span_id in ids and span is not root:
                ids.add(span.context.span_id)
                below.append(span)
        return Tree(root, below)

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


class Tree(NamedTuple):
    """The span of an exchange, and those below it in the order in which they began."""

    root: ReadableSpan
    below: list[ReadableSpan]

    def named(self, start: str) -> list[ReadableSpan]:
        return [span for span in self.below if span.name.startswith(start)]

    @property
    def attempts(self) -> list[ReadableSpan]:
        return [
            span for span in self.below if span.kind is SpanKind.CLIENT and "gen_ai.operation.name" in span.attributes
        ]


class Traced(NamedTuple):
    running: Rig
    spans: Spans
    sent: list[dict[str, str]]
    """Header fields that the provider got."""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    sent: list[dict[str, str]] = []

    async def usual(connection: Connection, request: Request) -> None:
        sent.append(request.headers)
        usage = {"input_tokens": 10, "output_tokens": 200, "total_tokens": 210}
        await connection.body(request)
        await connection.json(200, {**GOOD, "usage": usage})

    async def silent(connection: Connection, request: Request) -> None:
        await connection.body(request)
        await connection.left()

    spans = Spans()
    behaviours = {**{name: FAULTS[name].behaviour for name in OUTCOMES}, "usual": usual, "waits": silent}
    policy = "retries = 0\nbreaker_failures = 0"
    with rig(behaviours, tmp_path_factory.mktemp("t"), policy=policy, hooks=[spans.hook]) as running:
        yield Traced(running, spans, sent)


def matches(tree: Tree, record: ExchangeRecord) -> None:
    """What the spans say is what the record says."""
    root = tree.root
    assert root.kind is SpanKind.INTERNAL
    said = root.attributes or {}
    assert said["imagegate.outcome"] == record.outcome_class
    assert said["http.response.status_code"] == record.status
    assert said.get("error.type", "") == record.error_code
    assert (root.status.status_code is StatusCode.ERROR) == bool(record.error_code)
    assert said.get("imagegate.images.delivered", 0) == record.images_delivered
    assert len(tree.attempts) == record.attempts
    assert [span.attributes["imagegate.upstream"] for span in tree.attempts] == [call.upstream for call in record.calls]
    outcomes = [call.outcome for call in record.calls if call.outcome not in ("ok", "cancelled")]
    assert [s.attributes["imagegate.outcome"] for s in tree.attempts if "imagegate.outcome" in s.attributes] == outcomes
    for span in tree.below:
        assert span.end_time is not None and span.end_time >= (span.start_time or 0)
        assert span.context.trace_id == root.context.trace_id


@pytest.mark.parametrize("name", OUTCOMES)
def test_every_fault(traced: Traced, name: str) -> None:
    """Alone, and with a second candidate: one span for each POST, whose class is that of the call."""
    for route in ("alone", "two"):
        reply = traced.running.post(f"{name}.{route}")
        tree = traced.spans.of(reply.headers["x-request-id"])
        record = traced.running.record_of(reply)
        matches(tree, record)
        assert tree.root.name == f"image_generation {name}.{route}"
        assert all(span.parent.span_id == tree.root.context.span_id for span in tree.attempts)


def test_a_success_says_what_was_made(traced: Traced) -> None:
    """Sizes, tokens and bytes; ``traceparent`` upstream is the attempt's."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    reply = httpx.post(
        f"{traced.running.url}/v1/images/generations",
        json={"model": "usual.alone", "prompt": "A kite", "response_format": "url", "style": "vivid"},
        headers={"traceparent": parent},
    )
    tree = traced.spans.of(reply.headers["x-request-id"])
    record = traced.running.record_of(reply)
    matches(tree, record)
    (attempt,), (store,) = tree.attempts, tree.named("store")
    assert f"{tree.root.context.trace_id:032x}" == parent.split("-")[1]
    assert tree.root.parent is not None and f"{tree.root.parent.span_id:016x}" == "b7ad6b7169203331"
    assert store.parent.span_id == attempt.parent.span_id == tree.root.context.span_id
    assert store.attributes["imagegate.bytes"] == len(PNG)
    said = attempt.attributes
    assert (said["gen_ai.provider.name"], said["gen_ai.operation.name"]) == ("openai", "image_generation")
    assert (said["gen_ai.request.model"], said["server.address"]) == ("any", "127.0.0.1")
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (10, 200)
    assert traced.sent[-1]["traceparent"].split("-")[1:3] == [
        f"{attempt.context.trace_id:032x}",
        f"{attempt.context.span_id:016x}",
    ]
    assert record.traceparent.split("-")[2] == f"{tree.root.context.span_id:016x}", "log lines name this span"
    assert tree.root.attributes["imagegate.images.asked"] == 1


def test_parts_are_spans_between(traced: Traced) -> None:
    reply = traced.running.post("usual.parts", n=3)
    tree = traced.spans.of(reply.headers["x-request-id"])
    matches(tree, traced.running.record_of(reply))
    parts = tree.named("part")
    assert sorted(part.attributes["imagegate.part"] for part in parts) == [1, 2, 3]
    assert all(part.parent.span_id == tree.root.context.span_id for part in parts)
    assert {a.parent.span_id for a in tree.attempts} == {part.context.span_id for part in parts}


def test_a_client_that_leaves(traced: Traced) -> None:
    posts = traced.running.upstream.posts
    record = leave(traced.running, "waits.alone", "leaves-early", lambda: posts["waits"])
    tree = traced.spans.of("leaves-early")
    matches(tree, record)
    assert tree.root.attributes["error.type"] == "client_disconnected"
    (attempt,) = tree.attempts
    assert (attempt.status.status_code, attempt.attributes["error.type"]) == (StatusCode.ERROR, "CancelledError")


def test_a_refused_request_has_one_span(traced: Traced) -> None:
    reply = traced.running.post("usual.alone", n=99)
    tree = traced.spans.of(reply.headers["x-request-id"])
    matches(tree, traced.running.record_of(reply))
    assert tree.below == []


def test_metrics_of_requests_to_providers(traced: Traced) -> None:
    """Models that the configuration does not know are one series."""
    for number in range(3):
        traced.running.post(f"usual/unheard-of-{number}")
    points = traced.spans.metrics()["gen_ai.client.operation.duration"]
    known = [point for point in points if point.attributes["server.address"] == "127.0.0.1"]
    assert {point.attributes["gen_ai.operation.name"] for point in known} == {"image_generation"}
    assert not any("unheard-of" in str(point.attributes) for point in points)
    tokens = traced.spans.metrics()["gen_ai.client.token.usage"]
    assert {point.attributes["gen_ai.token.type"] for point in tokens} == {"input", "output"}


def test_no_span_or_metric_has_a_secret(traced: Traced) -> None:
    """Neither the key, nor the prompt, nor base64, whatever went wrong; nor the text of an error."""
    for name in OUTCOMES:
        traced.running.post(f"{name}.alone", prompt=PROMPT)
    until(lambda: len(traced.spans.all) >= len(OUTCOMES))
    spans = traced.spans.exporter.get_finished_spans()
    everything = "".join(span.to_json() for span in spans) + str(traced.spans.metrics())
    for secret in (KEY, PROMPT, GOOD["data"][0]["b64_json"][:40], "It went wrong."):
        assert secret not in everything
    assert not any(span.events for span in spans)


@pytest.mark.parametrize("flags", ["01", "00"])
def test_a_clients_trace_goes_on(traced: Traced, flags: str) -> None:
    """Its state goes upstream beside it, sampled or not; its baggage, which may say anything, stays here."""
    trace_id = ("1" if flags == "01" else "2") * 32
    headers = {"traceparent": f"00-{trace_id}-{'b' * 16}-{flags}", "tracestate": "vendor=abc,x=y", "baggage": "user=1"}
    assert traced.running.post("usual.alone", headers=headers).status_code == 200
    sent = traced.sent[-1]
    assert (sent["traceparent"][3:35], sent["traceparent"][-2:]) == (trace_id, flags)
    assert sent["traceparent"][36:52] != "b" * 16
    assert sent["tracestate"] == "vendor=abc,x=y"
    assert "baggage" not in sent


class Host:
    """An application whose own instrumentation makes a server span for each request."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        self.app, self.tracer = app, provider.get_tracer("host")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with self.tracer.start_as_current_span("POST /v1/images", kind=SpanKind.SERVER):
            await self.app(scope, receive, send)
            assert trace.get_current_span().name == "POST /v1/images"  # type: ignore[attr-defined]


def document(port: int, folder: Path, more: str = "") -> Any:
    return parse_config(
        f'[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "{KEY}"\n'
        f'[delivery]\nstore = "file://{folder}"\n{more}'
    )


def test_below_the_hosts_server_span(tmp_path: Path) -> None:
    """Streams too; and links of delivered images where they are asked for."""
    spans, origin = Spans(links=True), Origin()
    with serving(origin) as port:
        gateway = ImageGateway(config=document(port, tmp_path, "[log]\nlinks = true\n"), hooks=[spans.hook])
        with serving(Host(gateway, spans.provider)) as own:
            for more in ({}, {"stream": True}):
                body = {"model": "openai/gpt-image-1", "prompt": "a kite", "response_format": "url", **more}
                reply = httpx.post(f"http://127.0.0.1:{own}{GENERATIONS}", json=body)
                assert reply.status_code == 200
                until(lambda: len(spans.exporter.get_finished_spans()) >= 3)
                until(lambda: any(each.kind is SpanKind.SERVER for each in spans.exporter.get_finished_spans()))
                tree = spans.of(reply.headers["x-request-id"])
                (host,) = [span for span in spans.exporter.get_finished_spans() if span.kind is SpanKind.SERVER]
                assert tree.root.parent.span_id == host.context.span_id
                (link,) = tree.root.attributes["imagegate.image.links"]
                assert link in reply.text
                assert bool(more) == tree.root.attributes.get("imagegate.streamed", False)
                spans.exporter.clear()


def test_a_task_and_its_webhook(tmp_path: Path) -> None:
    """The work behind the answer, and the webhook, are below the exchange that made the task."""
    spans, origin, receiver = Spans(), Origin(), Receiver()
    with serving(origin) as port, serving(receiver) as hook:
        more = f'fetch_allow = ["127.0.0.1"]\n[tasks]\ncallback_secret = "whsec_{SECRET}"\n'
        gateway = ImageGateway(config=document(port, tmp_path, more), hooks=[spans.hook])
        with serving(gateway) as own, httpx.Client(base_url=f"http://127.0.0.1:{own}") as client:
            location = create(
                client, {"model": "openai/gpt-image-1", "prompt": "a", "callback_url": f"http://127.0.0.1:{hook}/"}
            )
            assert ended(client, location)["status"] == "completed"
            until(lambda: [span for span in spans.exporter.get_finished_spans() if span.name == "deliver webhook"])
    created = next(span for span in spans.all if span.attributes.get("http.response.status_code") == 202)
    tree = spans.tree(created)
    assert [span.name for span in tree.below] == [
        "image_generation openai/gpt-image-1",
        "image_generation gpt-image-1",
        "store image",
        "deliver webhook",
    ]
    work, attempt, store, webhook = tree.below
    assert work.parent.span_id == webhook.parent.span_id == created.context.span_id
    assert attempt.parent.span_id == store.parent.span_id == work.context.span_id
    assert work.attributes["imagegate.task.state"] == "completed"
    assert webhook.attributes["imagegate.webhook.delivered"] is True
    asked = next(span for span in spans.all if span.name == "imagegate tasks")
    assert asked.attributes["imagegate.outcome"] == "ok"


def test_a_failing_tracer_harms_nobody(tmp_path: Path) -> None:
    class Broken(OTelHook):
        def exchange_traced(self, progress: Any) -> Any:
            raise RuntimeError(progress)

    origin = Origin()
    with serving(origin) as port:
        gateway = ImageGateway(config=document(port, tmp_path), hooks=[Broken()])
        with serving(gateway) as own:
            body = {"model": "openai/gpt-image-1", "prompt": "a kite"}
            assert httpx.post(f"http://127.0.0.1:{own}{GENERATIONS}", json=body).status_code == 200


class Collector:
    """An OpenTelemetry collector, by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["path"] == "/v1/traces":
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                names = {a.key: a.value.string_value for a in resource.resource.attributes}
                self.spans += [(names, span) for each in resource.scope_spans for span in each.spans]
        else:
            metrics = ExportMetricsServiceRequest.FromString(body)
            self.metrics |= {m.name for r in metrics.resource_metrics for s in r.scope_metrics for m in s.metrics}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def named(self, name: str) -> list[Any]:
        return [span for _, span in self.spans if span.name == name]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.mark.redis
def test_a_task_that_another_process_takes_over(redis: Redis, tmp_path: Path) -> None:
    """Both processes export to a collector (``serve --otel``); the work of the second is in the trace of the first."""
    collector, origin = Collector(), Origin()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serving(origin))
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{stack.enter_context(serving(collector))}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "OTEL_SERVICE_NAME": "pictures",
            "IMAGEGATE_GRACE": "1",
        }
        both = Both(tmp_path, origin, port, redis.url, stack)

        def gateway() -> Any:
            process = stack.enter_context(gateway_process(both.config(), arguments=["--otel"], **environment))
            return process, stack.enter_context(httpx.Client(base_url=process.url, timeout=30))

        first, maker = gateway()
        _, other = gateway()
        unsent = create(maker, held_edit(port, "later"), EDITS)
        until(lambda: [span for _, span in collector.spans if span.name.startswith("image_edit")])
        kill(first)
        origin.link_gate.set()
        assert ended(other, unsent)["status"] == "completed"
        until(lambda: any(span.name == "store image" for _, span in collector.spans))
        until(lambda: "gen_ai.client.operation.duration" in collector.metrics)
        origin.gate.set()
    exchanges = [span for _, span in collector.spans if span.name.startswith("image_edit") and span.kind == 1]
    created = next(span for span in exchanges if not span.parent_span_id)
    work = next(span for span in exchanges if span.parent_span_id == created.span_id)
    assert work.trace_id == created.trace_id
    attempt = next(span for _, span in collector.spans if span.name.startswith("image_edit") and span.kind == 3)
    assert attempt.parent_span_id == work.span_id
    assert {names["service.name"] for names, _ in collector.spans} == {"pictures"}


@pytest.mark.parametrize("kind", ["down", "slow"])
def test_a_collector_that_is_no_good_holds_nothing_up(tmp_path: Path, kind: str) -> None:
    """Requests are answered, and the process ends when it is told to."""
    origin, hold = Origin(), threading.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            while not hold.is_set():
                await asyncio.sleep(0.02)

    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serving(origin))
        collector = 9 if kind == "down" else stack.enter_context(serving(slow))
        stack.callback(hold.set)
        file = tmp_path / "imagegate.toml"
        file.write_text(
            f'[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "k"\n'
            f'[delivery]\nstore = "file://{tmp_path / "images"}"\n'
        )
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            "OTEL_BSP_EXPORT_TIMEOUT": "1000",
            "OTEL_METRICS_EXPORTER": "none",
        }
        with gateway_process(file, arguments=["--otel"], **environment) as process:
            for _ in range(20):
                body = {"model": "openai/gpt-image-1", "prompt": "a kite", "response_format": "b64_json"}
                assert httpx.post(f"{process.url}{GENERATIONS}", json=body, timeout=5).status_code == 200
        assert process.process.returncode == 0, "it was not killed"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
    ],
)
def test_what_serve_cannot_export_is_told(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from imagegate.cli import main

    monkeypatch.setenv(variable, value)
    assert main(["serve", "--otel"]) == 1
    assert f"{variable}: {value!r}" in capsys.readouterr().err


def test_a_disabled_sdk_reads_no_other_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {"OTEL_SDK_DISABLED": "True", "OTEL_TRACES_EXPORTER": "zipkin"}.items():
        monkeypatch.setenv(variable, value)
    otel_sdk.check()
    otel_sdk.set_up()


def test_the_end_of_the_process_is_bounded() -> None:
    """What can be exported is; one exporter that hangs keeps neither the other back nor the process."""
    released, done = threading.Event(), threading.Event()
    otel_sdk.at_exit([lambda: bool(released.wait()), done.set], seconds=0.2)()  # type: ignore[list-item]
    until(done.is_set)
    assert not released.is_set()
    released.set()


def test_large_images_are_written_below_the_attempt(tmp_path: Path) -> None:
    """They go to the store while the reply arrives."""
    spans, origin = Spans(), Origin()
    with serving(origin) as port:
        gateway = ImageGateway(config=document(port, tmp_path), hooks=[spans.hook])
        with serving(gateway) as own:
            body = {"model": "openai/gpt-image-1", "prompt": "large", "response_format": "url"}
            reply = httpx.post(f"http://127.0.0.1:{own}{GENERATIONS}", json=body)
    tree = spans.of(reply.headers["x-request-id"])
    (attempt,), (store,) = tree.attempts, tree.named("store")
    assert store.parent.span_id == attempt.context.span_id
    assert store.attributes["imagegate.bytes"] == len(LARGE)


PAGE = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text("utf-8")
SHOWN = tuple(f"imagegate.{name}" for name in ("upstream", "outcome", "fallbacks", "attempts", "bytes"))


def drawn(tree: Tree) -> list[str]:
    """The lines that the page has of a trace."""
    lines = []
    for place, span in enumerate((tree.root, *tree.below)):
        branch = "" if place == 0 else "└─ " if place == len(tree.below) else "├─ "
        said = [f"{name}={span.attributes[name]}" for name in (*SHOWN, "error.type") if name in span.attributes]
        if place == 0:
            said = [each for each in said if not each.startswith("imagegate.upstream")]
        lines.append(f"{branch + span.name:<38} {span.kind.name.lower():<9} {' '.join(said)}")
    return lines


def test_the_trace_of_the_page(tmp_path: Path) -> None:
    """It is that of a real edit with a fallback."""
    spans = Spans()
    behaviours = {"first": FAULTS["503"].behaviour, "second": FAULTS["refused"].behaviour}
    routes = 'kites = ["first/gpt-image-1", "second/gpt-image-1"]'
    with rig(behaviours, tmp_path, routes=routes, hooks=[spans.hook]) as running:
        reply = httpx.post(
            f"{running.url}/v1/images/edits",
            data={"model": "kites", "prompt": "Red", "response_format": "url"},
            files={"image": ("kite.png", PNG, "image/png")},
        )
        assert reply.status_code == 200, reply.text
        tree = spans.of(reply.headers["x-request-id"])
        matches(tree, running.record_of(reply))
    assert "\n".join(drawn(tree)) in PAGE


@pytest.mark.parametrize("name", ["record_attributes", "operation_attributes"])
def test_the_page_names_every_attribute(name: str) -> None:
    from imagegate.telemetry import otel_attributes

    source = inspect.getsource(getattr(otel_attributes, name))
    attributes = re.findall(r'"((?:imagegate|gen_ai|server|http)\.[\w.]+)"', source)
    assert attributes
    for attribute in attributes:
        short = "." + attribute.rpartition(".")[2]
        assert f"`{attribute}`" in PAGE or f"`{short}`" in PAGE, attribute


def test_histograms_have_the_trace_as_exemplar(tmp_path: Path) -> None:
    """Where a scraper takes OpenMetrics, and the trace is sampled."""
    spans, origin, registry = Spans(), Origin(), CollectorRegistry()
    with serving(origin) as port:
        gateway = ImageGateway(config=document(port, tmp_path), hooks=[spans.hook, PrometheusHook(registry=registry)])
        with serving(gateway) as own:
            body = {"model": "openai/gpt-image-1", "prompt": "a kite"}
            reply = httpx.post(f"http://127.0.0.1:{own}{GENERATIONS}", json=body)
            tree = spans.of(reply.headers["x-request-id"])
    trace_id = f"{tree.root.context.trace_id:032x}"
    assert f'trace_id="{trace_id}"' in openmetrics(registry).decode()
    assert trace_id not in generate_latest(registry).decode()
