"""Pictures in a bucket of OpenStack Swift, whose S3 front checks what others let pass."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import httpx
import pytest
from tests.stores.swift_support import BUCKET, KEY, SECRET, Swift, swift_server

from imagegate.config.schema import CloudConfig, DeliveryConfig, Duration
from imagegate.config.store_factory import open_store
from imagegate.protocol.image_format import PNG
from imagegate.stores import put

pytestmark = pytest.mark.swift

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    with swift_server(tmp_path_factory.mktemp("swift")) as swift:
        yield swift


def config(swift: Swift, secret: str = SECRET, *, content_addressed: bool = False) -> DeliveryConfig:
    cloud = CloudConfig(
        endpoint=f"http://127.0.0.1:{swift.port}",
        region="us-east-1",
        access_key_id=KEY,
        secret_access_key=secret,
        timeout=Duration(20),
    )
    return DeliveryConfig(store=f"s3://{BUCKET}/made", cloud=cloud, content_addressed=content_addressed)


def stored(delivery: DeliveryConfig, picture: bytes) -> tuple[str, str]:
    """The key and the presigned link of a picture that was put."""

    async def run() -> tuple[str, str]:
        store = open_store(delivery)
        try:
            key = await put(store, picture, PNG)
            return key, await store.link(key, "")
        finally:
            await store.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize("size", [1000, 5 * MIB, 12 * MIB])
def test_put_and_read_back(swift: Swift, size: int) -> None:
    """By one request and in parts: the picture is there whole, with its headers, for who has the link."""
    picture = os.urandom(size)
    key, link = stored(config(swift), picture)
    reply = httpx.get(link, timeout=30)
    assert (reply.status_code, reply.content == picture) == (200, True)
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["cache-control"] == "private, max-age=86400, immutable"
    assert key in swift.listed()
    assert "<Upload>" not in swift.listed("?uploads")


def test_links_are_checked(swift: Swift) -> None:
    """A link that was changed leads to nothing."""
    _, link = stored(config(swift), b"picture")
    assert httpx.get(link.replace("X-Amz-Expires=86400", "X-Amz-Expires=86401")).status_code == 403
    assert httpx.get(link.partition("?")[0]).status_code in (400, 403)


@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_wrong_secret(swift: Swift, size: int) -> None:
    """A wrong secret is told as what it is, and nothing is stored."""
    before = swift.listed()
    with pytest.raises(OSError, match=r"^the store refuses the credentials \(403 SignatureDoesNotMatch\)$"):
        stored(config(swift, "wrong"), bytes(size))
    assert before.count("<Key>") == swift.listed().count("<Key>")


def test_aborted_uploads_are_gone(swift: Swift) -> None:
    """The bucket's own list of unfinished uploads shows one while a picture is sent, and none after it was aborted."""

    async def run() -> None:
        store = open_store(config(swift))
        writer = await store.writer(PNG)
        await writer.write(bytes(12 * MIB))
        assert swift.listed("?uploads").count("<Upload>") == 1
        await writer.abort()
        await store.aclose()

    asyncio.run(run())
    assert "<Upload>" not in swift.listed("?uploads")


def test_content_addressed(swift: Swift) -> None:
    """The same bytes are one object."""
    delivery = config(swift, content_addressed=True)
    before = swift.listed().count("<Key>")
    assert len({stored(delivery, bytes(6 * MIB))[0] for _ in range(2)}) == 1
    assert swift.listed().count("<Key>") == before + 1
