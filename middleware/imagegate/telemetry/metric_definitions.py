"""Every metric of the gateway: name, kind, labels and meaning. Data; `imagegate.telemetry.prometheus` counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple


class Metric(NamedTuple):
    """One metric of the gateway."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


METRICS: Final[Mapping[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric(
            "imagegate_requests_total",
            "counter",
            ("operation", "route", "upstream", "model", "outcome"),
            "Exchanges that have ended.",
        ),
        Metric("imagegate_requests_in_flight", "gauge", ("operation",), "Exchanges that have begun and not ended."),
        Metric(
            "imagegate_request_duration_seconds",
            "histogram",
            ("operation", "upstream"),
            "From the request to the end of the answer.",
        ),
        Metric(
            "imagegate_first_byte_duration_seconds",
            "histogram",
            ("operation", "upstream"),
            "From the request to the first byte of the answer's body.",
        ),
        Metric(
            "imagegate_queue_duration_seconds",
            "histogram",
            ("upstream",),
            "That exchanges waited for a place, those that had to.",
        ),
        Metric(
            "imagegate_store_duration_seconds",
            "histogram",
            ("form",),
            "That pictures took to be stored, fetched or handed on in the form asked for.",
        ),
        Metric("imagegate_request_bytes_total", "counter", ("operation",), "Bytes of clients' bodies."),
        Metric("imagegate_response_bytes_total", "counter", ("operation",), "Bytes of the bodies of answers."),
        Metric(
            "imagegate_upstream_requests_total",
            "counter",
            ("upstream", "model", "outcome"),
            "Paid POSTs to providers; uncertain: it may have been made and billed.",
        ),
        Metric(
            "imagegate_upstream_duration_seconds",
            "histogram",
            ("upstream", "model"),
            "Of these POSTs, with the wait for a task.",
        ),
        Metric(
            "imagegate_uncertain_outcomes_total",
            "counter",
            ("upstream",),
            "POSTs that may have been made and billed without an answer that says so.",
        ),
        Metric(
            "imagegate_stale_connections_total",
            "counter",
            ("upstream",),
            "POSTs that are uncertain because a kept connection ended that the provider had most likely closed.",
        ),
        Metric("imagegate_upstream_retries_total", "counter", ("upstream",), "POSTs that were tried again."),
        Metric(
            "imagegate_fallbacks_total",
            "counter",
            ("route", "upstream"),
            "Times that another candidate was asked; upstream: who answered in the end.",
        ),
        Metric(
            "imagegate_breaker_state",
            "gauge",
            ("upstream", "state"),
            "Processes in which the upstream's circuit breaker is closed, open or half_open.",
        ),
        Metric(
            "imagegate_surplus_replies_total",
            "counter",
            ("upstream",),
            "Replies that were there before their request; from the first on, no connection to the upstream is reused.",
        ),
        Metric(
            "imagegate_store_state",
            "gauge",
            ("state",),
            "Processes in which the image store is usable, full or unavailable, as far as is known.",
        ),
        Metric("imagegate_upstream_polls_total", "counter", ("upstream",), "Questions to providers about tasks."),
        Metric(
            "imagegate_images_asked_total",
            "counter",
            ("operation", "upstream", "model"),
            "Images that clients asked for.",
        ),
        Metric(
            "imagegate_images_made_total",
            "counter",
            ("operation", "upstream", "model"),
            "Images in providers' replies.",
        ),
        Metric(
            "imagegate_images_delivered_total",
            "counter",
            ("operation", "upstream", "model", "form"),
            "Images that clients were given, by form: url, b64_json or unchanged.",
        ),
        Metric(
            "imagegate_store_failures_total",
            "counter",
            (),
            "Exchanges whose pictures were made and could not be stored or fetched.",
        ),
        Metric("imagegate_images_stored_total", "counter", ("operation",), "Images that were written to the store."),
        Metric(
            "imagegate_image_sizes_total",
            "counter",
            ("asked", "made"),
            "Images by class of the size asked for and of the size made, such as landscape_2k.",
        ),
        Metric("imagegate_tokens_total", "counter", ("upstream", "model", "kind"), "Tokens in providers' usage."),
        Metric(
            "imagegate_limits_near_total",
            "counter",
            ("kind", "name", "limit"),
            "Requests that were admitted with 80 % of a limit of a key, a group or the gateway used up.",
        ),
        Metric(
            "imagegate_limits_reached_total",
            "counter",
            ("kind", "name", "limit"),
            "Requests that were refused by a limit or a budget of a key, a group or the gateway.",
        ),
        Metric("imagegate_key_images_total", "counter", ("key",), "Images that were made for a key or a user."),
        Metric(
            "imagegate_key_cost_total",
            "counter",
            ("key", "currency"),
            "Cost of what was made for a key or a user, by the table of prices.",
        ),
        Metric(
            "imagegate_cost_total",
            "counter",
            ("upstream", "model", "currency"),
            "Cost of what was made, by the price table of the configuration.",
        ),
        Metric("imagegate_changed_requests_total", "counter", ("upstream",), "Exchanges that were changed on the way."),
        Metric("imagegate_changes_total", "counter", ("upstream", "field", "kind"), "Fields that were changed."),
        Metric("imagegate_uploads_total", "counter", ("operation",), "Files that clients sent."),
        Metric("imagegate_upload_bytes_total", "counter", ("operation",), "Bytes of these files."),
        Metric("imagegate_link_fetches_total", "counter", ("operation",), "Foreign links that were read."),
        Metric("imagegate_fetch_refusals_total", "counter", ("operation",), "Links that the guard refused (SSRF)."),
        Metric(
            "imagegate_idempotent_requests_total",
            "counter",
            ("operation", "how"),
            "Exchanges that joined another with the same Idempotency-Key, or got its result replayed.",
        ),
        Metric("imagegate_tasks_total", "counter", ("state",), "Times that a task of the gateway's own entered it."),
        Metric(
            "imagegate_task_duration_seconds",
            "histogram",
            ("state",),
            "From the making of a task to its end, completed or failed.",
        ),
        Metric(
            "imagegate_unreadable_records_total",
            "counter",
            ("kind",),
            "Records in Redis, of a task or a reply, that this version cannot read and leaves where they are.",
        ),
        Metric(
            "imagegate_memory_held_bytes",
            "gauge",
            (),
            "That requests have reserved of limits.memory.",
        ),
        Metric("imagegate_build_info", "gauge", ("version",), "The processes that serve, by version."),
    )
}
"""Every metric there is, by name."""
