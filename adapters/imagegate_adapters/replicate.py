"""Replicate: a prediction for each request, whose input is the model's own, and whose reply may wait for it."""

from __future__ import annotations

from typing import Any

import msgspec

from imagegate.adapter import (
    Adapter,
    ImageReply,
    ImageRequest,
    PendingTask,
    UpstreamReply,
    UpstreamRequest,
    model_path,
    native_body,
)
from imagegate.errors import ConfigError
from imagegate.replies import address_beside, read_document, read_object

_LONGEST_WAIT = 60
"""Seconds that Replicate keeps a reply back."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of an upstream."""

    wait: int = 5
    """Seconds that Replicate may wait for the picture before it answers with the prediction (``Prefer: wait``).

    0: none. While it waits, the prediction's id is not known, so that a lost reply leaves the outcome unknown.
    """


class Replicate(Adapter):
    """replicate.com, "HTTP API"; inputs are those of each model's own page."""

    name = "replicate"
    base_url = "https://api.replicate.com"
    options_type = Options
    options: Options
    task_path = "/v1/predictions/{id}"
    models_path = "/v1/account"

    def check(self) -> None:
        """Check the time to wait."""
        if not 0 <= self.options.wait <= _LONGEST_WAIT:
            raise ConfigError(f"options.wait: must be from 0 to {_LONGEST_WAIT}")

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        """Address ``owner/name``, or ``owner/name:version`` for models that are no official ones."""
        name, _, version = request.model.partition(":")
        path = f"/v1/models/{model_path(name)}/predictions"
        document: dict[str, Any] = {"input": native_body(request)}
        if version:
            path, document = "/v1/predictions", {"version": version, **document}
        wait = self.options.wait
        headers = (("prefer", f"wait={wait}"),) if wait else ()
        return UpstreamRequest(method="POST", path=path, headers=headers, document=document)

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Read a prediction: what it shows in a state between the known ones is not all of it."""
        document = (read_object(reply.body) if reply.status < 300 else None) or {}
        if isinstance(document.get("status"), str):
            return read_document(document, now=now, request_id=reply.headers.get("x-request-id"), is_task=True)
        return super().decode(reply, now=now)

    def expects_task(self, request: ImageRequest) -> bool:
        return self.options.wait == 0

    def cancel(self, task: PendingTask) -> UpstreamRequest:
        """Return the request that ends a prediction, whether it waits or runs."""
        link = task.poll_url or self.poll(task).path
        return UpstreamRequest(method="POST", path="/", url=task.cancel_url or address_beside(link, "/cancel"))


_: type[Adapter] = Replicate
