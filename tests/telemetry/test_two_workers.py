"""A gateway of two workers under every kind of traffic: its metrics, its log, and what neither may hold."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.telemetry.conftest import TwoWorkers
from tests.telemetry.support import ALICE, BOB, SECRETS, lines_of, wait_until

from imagegate.telemetry.metric_definitions import METRICS

pytestmark = pytest.mark.server


def sums(text: str, *labels: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Sample name -> values of `labels` -> sum."""
    found: dict[str, dict[tuple[str, ...], float]] = defaultdict(lambda: defaultdict(float))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name][tuple(sample.labels.get(label, "") for label in labels)] += sample.value
    return found


def total(text: str, name: str, **labels: str) -> float:
    return sums(text, *labels)[name][tuple(labels.values())]


def settled(two_workers: TwoWorkers) -> str:
    """The metrics when nothing runs any more and all of it is counted."""
    ended = len(two_workers.traffic.answers) + two_workers.traffic.rounds

    def is_settled() -> bool:
        text = two_workers.metrics()
        in_flight = total(text, "imagegate_requests_in_flight")
        return in_flight == 0 and total(text, "imagegate_requests_total") >= ended

    wait_until(is_settled, what=two_workers.metrics)
    return two_workers.metrics()


def test_two_processes_count_together(two_workers: TwoWorkers) -> None:
    """Both workers have served, and /metrics tells of both whichever answers."""
    assert total(two_workers.metrics(), "imagegate_build_info") == 2
    readings = {total(settled(two_workers), "imagegate_requests_total") for _ in range(6)}
    assert len(readings) == 1


def test_every_outcome_is_counted(two_workers: TwoWorkers) -> None:
    """Each outcome that traffic can bring about is there, and the sum is what clients sent."""
    text = settled(two_workers)
    outcomes = sums(text, "outcome")["imagegate_requests_total"]
    expected = {"ok", "explained", "invalid", "denied", "overloaded", "moderated", "rejected", "not_sent"}
    assert {outcome for (outcome,) in outcomes} == expected | {"uncertain", "storage_failed", "client_left"}
    assert outcomes["client_left",] == two_workers.traffic.rounds
    assert sum(outcomes.values()) == len(two_workers.traffic.answers) + two_workers.traffic.rounds


def test_sums_are_what_the_upstream_saw(two_workers: TwoWorkers) -> None:
    """POSTs, images and tokens agree with the counting upstream."""
    text = settled(two_workers)
    upstream = two_workers.upstream
    posts = sums(text, "upstream")["imagegate_upstream_requests_total"]
    assert posts["main",] == sum(upstream.posts.values())
    assert total(text, "imagegate_images_made_total") == upstream.images
    assert total(text, "imagegate_upstream_requests_total", outcome="uncertain") == upstream.posts["uncertain"]
    assert total(text, "imagegate_uncertain_outcomes_total", upstream="main") == upstream.posts["uncertain"]
    replies = upstream.posts["good"] + upstream.posts["slow"]
    assert total(text, "imagegate_tokens_total", kind="input_text") == 20 * replies
    assert total(text, "imagegate_tokens_total", kind="output") == 300 * replies


def test_pictures_are_counted_by_form_and_priced(two_workers: TwoWorkers) -> None:
    """What clients were given, and what it cost by the price table."""
    text = settled(two_workers)
    answers = [answer.json() for answer in two_workers.traffic.answers if answer.status_code == 200]
    delivered = [picture for answer in answers for picture in answer.get("data", ())]
    for form in ("url", "b64_json"):
        count = sum(form in picture for picture in delivered)
        assert total(text, "imagegate_images_delivered_total", form=form) == count > 0
    priced = sums(text, "model")["imagegate_images_made_total"]["gpt-image-1",]
    tokens = 20 * 5e-6 + 300 * 40e-6
    replies = sums(text, "model", "outcome")["imagegate_upstream_requests_total"]["gpt-image-1", "ok"]
    cost = total(text, "imagegate_cost_total", upstream="main", currency="EUR")
    assert cost == pytest.approx(priced * 0.05 + replies * tokens)


def test_the_way_to_the_second_candidate_is_told(two_workers: TwoWorkers) -> None:
    """A route whose first upstream is gone: a call that was not sent, one that was, and the route's name."""
    text = settled(two_workers)
    rounds = two_workers.traffic.rounds
    assert total(text, "imagegate_requests_total", route="picture", upstream="main", outcome="ok") == rounds
    assert total(text, "imagegate_upstream_requests_total", upstream="gone", outcome="not_sent") >= rounds
    assert total(text, "imagegate_fallbacks_total", route="picture", upstream="main") == rounds


def test_labels_have_no_words_of_clients(two_workers: TwoWorkers) -> None:
    """Models and fields that nobody configured are `other`; every metric is one that is documented."""
    text = settled(two_workers)
    for family in text_string_to_metric_families(text):
        if family.name.startswith("imagegate_"):
            assert family.name in METRICS or f"{family.name}_total" in METRICS
    models = {model for (model,) in sums(text, "model")["imagegate_requests_total"]}
    assert models == {"", "gpt-image-1", "dall-e-3", "other"}
    fields = {name for (name,) in sums(text, "field")["imagegate_changes_total"]}
    assert "other" in fields and "unknown_member" not in fields


def test_one_line_for_each_exchange(two_workers: TwoWorkers) -> None:
    """The log has a line for each exchange, with the key's name, the outcome and what was changed."""
    settled(two_workers)
    lines = [line for line in lines_of(two_workers.log) if line["event"] == "exchange"]
    assert len(lines) == len(two_workers.traffic.answers) + two_workers.traffic.rounds
    assert {line.get("key_name") for line in lines} == {"alice", "bob", None}
    changed = next(line for line in lines if line.get("size_asked") == "1792x1024")
    assert 'size;from="1792x1024";to="1536x1024"' in changed["changes"]
    assert {
        "request_id",
        "upstream",
        "upstream_seconds",
        "bytes_in",
        "bytes_out",
        "images_delivered",
        "cost",
    } <= changed.keys()
    assert len({line["request_id"] for line in lines}) == len(lines)


def test_the_trace_goes_on_upstream(two_workers: TwoWorkers) -> None:
    """A traceparent reaches the provider as it came, and its ids the log; one that is none goes nowhere."""
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    for value in (f"00-{trace}-{span}-01", f"00-{'0' * 32}-{span}-01"):
        assert two_workers.traffic.post("good", headers={"traceparent": value}).status_code == 200
    assert two_workers.upstream.traceparents == [f"00-{trace}-{span}-01"]
    settled(two_workers)
    traced = [line for line in lines_of(two_workers.log) if "trace_id" in line]
    assert [(line["trace_id"], line["span_id"]) for line in traced] == [(trace, span)]


def held_by_error(answer: httpx.Response) -> str:
    return answer.text if answer.status_code >= 400 else ""


def test_no_secret_is_anywhere(two_workers: TwoWorkers) -> None:
    """Keys, prompts, base64 and link secrets are in no log line, metric, error, header or page."""
    pages = [
        httpx.get(f"{two_workers.url}{path}").text
        for path in ("/console", "/console/exchanges", "/console/pictures/1/0", "/healthz", "/nowhere")
    ]
    places: dict[str, Any] = {
        "log": two_workers.log.read_text(),
        "metrics": settled(two_workers),
        "errors": "\n".join(map(held_by_error, two_workers.traffic.answers)),
        "headers": "\n".join(str(answer.headers) for answer in two_workers.traffic.answers),
        "pages": "\n".join(pages),
    }
    leaks = [(place, secret[:12]) for place, text in places.items() for secret in SECRETS if secret in text]
    assert leaks == []
    assert "signature=" not in places["log"] + places["metrics"]
    assert re.search(r"sk-[a-z]", places["log"]) is None


def test_the_console_is_behind_the_keys(two_workers: TwoWorkers) -> None:
    """Without a key there is the empty page only; a key sees its own exchanges and nobody else's."""
    assert httpx.get(f"{two_workers.url}/console").status_code == 200
    assert httpx.get(f"{two_workers.url}/console/exchanges").status_code == 401
    for key, name in ((ALICE, "alice"), (BOB, "bob")):
        answer = httpx.get(f"{two_workers.url}/console/exchanges", headers={"authorization": f"Bearer {key}"}).json()
        assert (answer["key"], answer["everybody"]) == (name, False)
        assert {entry["key"] for entry in answer["exchanges"]} <= {name}
