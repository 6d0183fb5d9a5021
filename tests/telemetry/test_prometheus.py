"""A real Prometheus scrapes gateways under traffic: every query of the dashboard and every rule finds data."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import CollectorRegistry, make_asgi_app
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from tests.ports import free_port
from tests.telemetry.conftest import TwoWorkers
from tests.telemetry.support import UPSTREAM_KEY, wait_until

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.contracts.changes import Change
from imagegate.demo.servers import serving
from imagegate.telemetry.metric_definitions import METRICS
from imagegate.telemetry.progress import Progress, finish
from imagegate.telemetry.prometheus import PrometheusHook

pytestmark = [
    pytest.mark.prometheus,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed"),
]

EXAMPLES = Path(__file__).parents[2] / "examples" / "prometheus"
DASHBOARD = json.loads((EXAMPLES / "dashboard.json").read_text("utf-8"))
RULES = msgspec.yaml.decode((EXAMPLES / "rules.yml").read_bytes())
TARGETS = [
    pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
# These need time that a test does not take; promtool's tests show that they fire.
LEFT_SIDES = {"ImagegateUpstreamSlow", "ImagegateTasksStuck", "ImagegateUnreadableRecords", "ImagegateStoreUnusable"}
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
RECORDS = [rule for group in RULES["groups"] for rule in group["rules"] if "record" in rule]


@dataclass(frozen=True)
class Prometheus:
    """A server with data."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def number(self, expression: str) -> float:
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else math.nan


class Host:
    """An application with a registry of its own, into which the gateway that is mounted in it counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.hook = PrometheusHook(registry=self.registry)
        config = parse_config(f"""
            [[upstreams]]
            name = "hosted"
            adapter = "openai"
            base_url = "http://127.0.0.1:1"
            api_key = "{UPSTREAM_KEY}"
            [delivery]
            store = "memory://"
        """)
        gateway = Middleware(ImageGateway, config=config, hooks=[self.hook], transport=Broken())
        self.app = Starlette(routes=[Mount("/metrics", make_asgi_app(self.registry))], middleware=[gateway])

    def tell(self) -> None:
        """What the other gateway's traffic has none of: facts of every kind, and changes of states."""
        self.hook.breaker_changed("hosted", "open")
        for state in ("pending", "pending", "processing", "completed"):
            self.hook.task_changed(state, 3.0)
        self.hook.record_unreadable("task")
        self.hook.limit_near("key:alice", "requests_per_minute")
        self.hook.limit_reached("group:team", "spend_per_day")
        progress = Progress("edits", model="gpt-image-1", upstream="hosted", upstream_model="gpt-image-1")
        progress.images_asked = progress.images_made = progress.images_delivered = 1
        progress.form, progress.size_asked, progress.sizes_made = "url", "1:1", ("1024x1024",)
        progress.usage = {"input_tokens": 9, "output_tokens": 5}
        progress.retries = progress.fallbacks = progress.polls = progress.stale_connections = 1
        progress.queue_seconds = progress.upstream_seconds = progress.delivery_seconds = 0.7
        progress.upload_count, progress.upload_bytes, progress.link_fetches, progress.fetch_refusals = 2, 4000, 1, 1
        progress.idempotent, progress.fit_changes = "joined", (Change("size", "mapped", "1:1", "1024x1024"),)
        self.hook.exchange_started(progress)
        progress.key_name = "alice"
        self.hook.exchange_ended(finish(progress, status=200, seconds=1.5, cost=0.04, currency="USD"))


class Broken(httpx.AsyncBaseTransport):
    """Fails in a way that nobody thought of."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise RuntimeError("nobody thought of this")


@pytest.fixture(scope="module")
def prometheus(two_workers: TwoWorkers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Has seen traffic before its first scrape and between scrapes, and has looked at the rules."""
    folder = tmp_path_factory.mktemp("prometheus")
    host = Host()
    with serving(host.app) as port, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free_port()}"
        targets = [two_workers.url.removeprefix("http://"), f"127.0.0.1:{port}", f"127.0.0.1:{dead.getsockname()[1]}"]
        config = (EXAMPLES / "prometheus.yml").read_text().replace(": 15s", ": 400ms")
        config = config.replace('["127.0.0.1:8000"]', json.dumps(targets))
        config = config.replace("rules.yml", str(folder / "rules.yml"))
        (folder / "rules.yml").write_text((EXAMPLES / "rules.yml").read_text())
        (folder / "prometheus.yml").write_text(config)
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        command += [f"--web.listen-address={address}", "--log.level=warn"]
        host.tell()
        with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                server = Prometheus(f"http://{address}")
                wait_until(lambda: _is_ready(server), what=(folder / "log").read_text)
                wait_until(lambda: len(server.query("imagegate_build_info")) == 2)
                two_workers.traffic.run()
                host.tell()
                body = {"model": "gpt-image-1", "prompt": "x"}
                assert httpx.post(f"http://127.0.0.1:{port}/v1/images/generations", json=body).status_code == 500
                sent = float(sum(two_workers.upstream.posts.values()))
                wait_until(lambda: server.number('sum(imagegate_upstream_requests_total{upstream="main"})') == sent)
                wait_until(lambda: len(server.query('imagegate_requests_total{outcome="internal"}')) == 1)
                wait_until(lambda: server.number("imagegate:failures:ratio5m") > 0.05)
                yield server
            finally:
                process.terminate()


def _is_ready(server: Prometheus) -> bool:
    try:
        return httpx.get(f"{server.url}/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def filled_in(expression: str) -> str:
    """A query as Grafana sends it when all values of the variables are chosen."""
    for name, value in (
        ("$__rate_interval", "1m"),
        ("$__range", "10m"),
        ("$operation", ".*"),
        ("$upstream", ".*"),
    ):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize("expression", TARGETS)
def test_dashboard_query(prometheus: Prometheus, expression: str) -> None:
    """A query of the dashboard finds data, and a number among it."""
    found = prometheus.query(filled_in(expression))
    assert any(math.isfinite(float(item["value"][1])) for item in found), found


@pytest.mark.parametrize("rule", RECORDS, ids=lambda rule: rule["record"])
def test_recording_rule(prometheus: Prometheus, rule: dict[str, Any]) -> None:
    """A recording rule has been evaluated, and has recorded a number."""
    assert any(math.isfinite(float(item["value"][1])) for item in prometheus.query(rule["record"]))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alert(prometheus: Prometheus, rule: dict[str, Any]) -> None:
    """The condition of an alert holds under this traffic, or what it looks at is there."""
    expression = rule["expr"]
    if rule["alert"] in LEFT_SIDES:
        expression = re.split(r"\s>\s", expression)[0].strip("( \n")
    assert prometheus.query(expression), expression


def test_rules_are_healthy(prometheus: Prometheus) -> None:
    """Prometheus itself has no complaint about any rule."""
    groups = httpx.get(f"{prometheus.url}/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(ALERTS) + len(RECORDS)
    assert {rule["health"] for rule in rules} == {"ok"}


def test_prometheus_agrees_with_the_upstream(prometheus: Prometheus, two_workers: TwoWorkers) -> None:
    """Through two workers, files and a scrape, the sums are those of the counting upstream."""
    instance = two_workers.url.removeprefix("http://")
    upstream = two_workers.upstream
    sums = {
        "imagegate_images_made_total": upstream.images,
        'imagegate_upstream_requests_total{upstream="main",': sum(upstream.posts.values()),
        'imagegate_upstream_requests_total{outcome="uncertain",': upstream.posts["uncertain"],
    }
    for name, expected in sums.items():
        selector = f'{name}{"" if name.endswith(",") else "{"}instance="{instance}"}}'
        assert prometheus.number(f"sum({selector})") == expected


def test_every_metric_has_been_scraped(prometheus: Prometheus) -> None:
    """Every metric of the table has samples."""
    for metric in METRICS.values():
        name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
        assert prometheus.query(name), name


def test_every_metric_is_on_the_dashboard() -> None:
    """No metric is counted for nobody."""
    queries = " ".join(target.values[0] for target in TARGETS)
    assert [name for name in METRICS if not re.search(rf"\b{name}(_bucket)?\b", queries)] == []


@pytest.mark.parametrize(
    "arguments", ["check config prometheus.yml", "check rules rules.yml", "test rules rules_test.yml"]
)
def test_promtool(arguments: str) -> None:
    """promtool has no complaint, and every alert fires when it should and not else."""
    done = subprocess.run(["promtool", *arguments.split()], cwd=EXAMPLES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
