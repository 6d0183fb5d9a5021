"""Requests of tasks as another process gets them: whose they are, and no key."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from imagegate import Limits, Principal
from imagegate.access.authenticator import Identity
from imagegate.protocol.messages import Exchange, ImageRequest
from imagegate.spool.budget import default_budget
from imagegate.stores.blobs import FileBlobs
from imagegate.tasks.records import KeptRequest
from imagegate.tasks.requests import exchange_of, keep_request
from imagegate.telemetry.progress import PROGRESS_KEY, Progress


def test_whose_it_is_survives_the_process(tmp_path: Path) -> None:
    """So that the images get into their tenant's prefix, and the log names the principal."""
    principal = Principal(
        id="u-1",
        name="Ada",
        tenant="engines",
        metadata={"plan": "gold"},
        upstream_keys={"first": "sk-own"},
        limits=Limits(images_per_day=3),
    )
    progress = Progress("generations")
    progress.identified(Identity(principal=principal, user="Ada", owner="u-1"))
    request = ImageRequest(operation="generations", fields={"model": "m", "prompt": "A cat"})
    exchange = Exchange(request=request, public_model="m", operation="generations", owner="u-1", tenant="engines")
    scope = {
        "type": "http",
        "scheme": "http",
        "path": "/v1/images/generations",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"gateway.example")],
        "server": None,
        PROGRESS_KEY: progress,
    }

    async def run() -> tuple[bytes, Exchange]:
        blobs = FileBlobs(tmp_path, ttl=60)
        stored = msgspec.json.encode(await keep_request(scope, exchange, blobs))
        kept = msgspec.json.decode(stored, type=KeptRequest)
        again = Progress("generations")
        kept.client.tell(again)
        assert (again.user, again.principal_id, again.tenant) == ("Ada", "u-1", "engines")
        assert again.metadata == {"plan": "gold"}
        return stored, await exchange_of(kept, "m", blobs, default_budget())

    stored, taken = asyncio.run(run())
    assert b"sk-own" not in stored
    assert (taken.identity, taken.store_identity) == (exchange.identity, exchange.store_identity)
    assert msgspec.json.decode(b'{"operation":"edits"}', type=KeptRequest).client.owner == ""  # of an older gateway
