"""Buckets: a real S3 server that verifies signatures, and everything that may go wrong with one."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.relay import Relay
from tests.stores.s3_support import BUCKET, KEY, SECRET, Answering, S3Server, s3_server

from imagegate.config.cloud_store import open_private_blobs
from imagegate.config.loader import load_config
from imagegate.config.model_contracts import warnings_of
from imagegate.config.schema import CloudConfig, DeliveryConfig, Duration
from imagegate.config.store_factory import open_store
from imagegate.errors import ConfigError
from imagegate.protocol.image_format import BY_EXTENSION, JPEG, PNG, ImageFormat
from imagegate.stores import Store, StoreFull, put, put_stream
from imagegate.stores.blobs import whole
from imagegate.stores.cloud import CloudStore
from imagegate.stores.cloud_blobs import CloudBlobs
from imagegate.stores.cloud_errors import plain_cloud_error

pytestmark = pytest.mark.rclone

MIB = 1024 * 1024
NAME = re.compile(r"[A-Za-z0-9_-]{32}\.png")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def empty_bucket(request: pytest.FixtureRequest) -> None:
    if "server" in request.fixturenames:
        request.getfixturevalue("server").empty()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)


def config(port: int, *, store: str = f"s3://{BUCKET}", **members: Any) -> DeliveryConfig:
    cloud = {
        "endpoint": f"http://127.0.0.1:{port}",
        "region": "us-east-1",
        "access_key_id": KEY,
        "secret_access_key": SECRET,
        "timeout": Duration(5),
    }
    for name in list(members):
        if name in CloudConfig.__struct_fields__:
            cloud[name] = members.pop(name)
    return DeliveryConfig(store=store, cloud=CloudConfig(**cloud), **members)  # type: ignore[arg-type]


def with_store(delivery: DeliveryConfig, use: Callable[[CloudStore], Awaitable[Any]]) -> Any:
    """What `use` returns for a store that is closed afterwards, which waits for everything that it still does."""

    async def run() -> Any:
        store = open_store(delivery)
        assert isinstance(store, CloudStore)
        try:
            return await use(store)
        finally:
            await store.aclose()

    return asyncio.run(run())


def stored(delivery: DeliveryConfig, picture: bytes, kind: ImageFormat = PNG, **names: str) -> tuple[str, str]:
    """The key and the link of a picture that was put."""

    async def use(store: CloudStore) -> tuple[str, str]:
        key = await put(store, picture, kind, **names)
        return key, await store.link(key, "https://gateway.example.com/images/")

    result: tuple[str, str] = with_store(delivery, use)
    return result


# What is there afterwards


@pytest.mark.parametrize("kind", BY_EXTENSION.values(), ids=BY_EXTENSION)
def test_put_and_read_back(server: S3Server, kind: ImageFormat) -> None:
    """A picture is there byte by byte, with its type and how long it may be cached, for who has the presigned link."""
    key, link = stored(config(server.port, link_ttl=Duration(60)), b"picture", kind)
    assert {key: b"picture"} == server.files
    reply = httpx.get(link)
    assert (200, b"picture", kind.media_type) == (reply.status_code, reply.content, reply.headers["content-type"])
    assert reply.headers["cache-control"] == "private, max-age=60, immutable"
    assert key.endswith(f".{kind.extension}")
    assert httpx.get(link.partition("?")[0]).status_code in (400, 403)


SIZES = (0, 10, MIB, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 12 * MIB)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [48 * 1024, 6 * MIB])
def test_written_in_pieces(server: S3Server, size: int, piece: int) -> None:
    """However large a picture is and however it is cut, it arrives whole; below 5 MiB by one PUT, else in parts."""
    picture = os.urandom(size)

    async def chunks() -> AsyncIterator[bytes]:
        for place in range(0, size, piece):
            yield picture[place : place + piece]

    before, _ = server.uploads()
    key = with_store(config(server.port), lambda store: put_stream(store, chunks(), PNG))
    assert {key: picture} == server.files
    assert (before + (size >= 5 * MIB), 0) == server.uploads()


def test_many_at_once(server: S3Server) -> None:
    """Pictures that are sent at the same time are all there."""
    pictures = [bytes([number]) * 1000 for number in range(100)]

    async def use(store: CloudStore) -> list[str]:
        return await asyncio.gather(*(put(store, picture, PNG) for picture in pictures))

    keys = with_store(config(server.port), use)
    assert dict(zip(keys, pictures, strict=True)) == server.files


def test_cannot_be_had_before_commit(server: S3Server) -> None:
    """A picture that is not yet whole is no object; it is one as soon as its key is known, and gone when taken back."""

    async def use(store: CloudStore) -> None:
        writer = await store.writer(PNG)
        await writer.write(bytes(12 * MIB))
        assert [name for name in server.files if NAME.fullmatch(name)] == []
        key = await writer.commit()
        assert key in server.files
        await writer.abort()
        await writer.abort()

    with_store(config(server.port), use)
    assert server.files == {}


@pytest.mark.parametrize("sizes", [(), (10,), (2 * MIB,), (12 * MIB,), (12 * MIB, 10)], ids=str)
def test_aborted(server: S3Server, sizes: tuple[int, ...]) -> None:
    """A picture that is aborted leaves nothing, and no upload that the bucket would keep and bill for ever."""

    async def use(store: CloudStore) -> None:
        writer = await store.writer(PNG)
        for size in sizes:
            await writer.write(bytes(size))
        await writer.abort()

    with_store(config(server.port), use)
    assert (server.files, server.uploads()[1]) == ({}, 0)


@pytest.mark.parametrize("megabytes", [1, 30])
def test_cancelled(server: S3Server, megabytes: int) -> None:
    """A request that is cancelled while its picture is being sent leaves nothing either."""
    line = Relay(server.port, delay=0.01)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(megabytes):
            yield bytes(MIB)

    async def use(store: CloudStore) -> None:
        task = asyncio.create_task(put_stream(store, chunks(), PNG))
        while line.passed == 0:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with_store(config(line.port), use)
    line.close()
    assert (server.files, server.uploads()[1]) == ({}, 0)


# Names and links


@pytest.mark.parametrize(
    ("store", "prefix", "expected"),
    [
        (f"s3://{BUCKET}", "", ""),
        (f"s3://{BUCKET}/", "", ""),
        (f"s3://{BUCKET}/a/b", "", "a/b/"),
        (f"s3://{BUCKET}/a//b/", "/c/", "a/b/c/"),
        (f"s3://{BUCKET}", "images-", "images-"),
        (f"s3://{BUCKET}/a", "{tenant}/x/", "a/[0-9a-f]{16}/x/"),
    ],
)
def test_prefixes(server: S3Server, store: str, prefix: str, expected: str) -> None:
    """A prefix may be in the store's address and in ``key_prefix``, where it may tell clients apart."""
    delivery = config(server.port, store=store, key_prefix=prefix, link_secret="s")
    key, link = stored(delivery, b"picture", tenant="sk-client")
    assert re.fullmatch(f"{expected}{NAME.pattern}", key)
    assert {key: b"picture"} == server.files
    assert httpx.get(link).content == b"picture"


def test_tenants(server: S3Server) -> None:
    """A client's pictures are always in the same place, which depends on the secret and does not show the key."""

    def place(tenant: str, secret: str) -> str:
        key, _ = stored(config(server.port, key_prefix="{tenant}/", link_secret=secret), b"x", tenant=tenant)
        return key.partition("/")[0]

    one, again, other, elsewhere = place("one", "s"), place("one", "s"), place("two", "s"), place("one", "t")
    assert one == again
    assert len({one, other, elsewhere}) == 3
    assert place("", "s") == "anonymous"


@pytest.mark.parametrize("public", ["https://cdn.example.com", "https://cdn.example.com/"])
def test_public_links(server: S3Server, public: str) -> None:
    """Below ``public_url`` stand the prefix and the name; such pictures never change, so that caches may keep them."""
    delivery = config(server.port, store=f"s3://{BUCKET}/a", public_url=public)
    key, link = stored(delivery, b"picture")
    assert link == f"https://cdn.example.com/{key}"
    assert link.startswith("https://cdn.example.com/a/")
    presigned = with_store(config(server.port), lambda store: store.link(key, ""))
    assert httpx.get(presigned).headers["cache-control"] == "public, max-age=31536000, immutable"


def test_cache_control_of_the_operator(server: S3Server) -> None:
    """The header may be set."""
    _, link = stored(config(server.port, cache_control="no-store"), b"picture")
    assert httpx.get(link).headers["cache-control"] == "no-store"


def test_presigned_links_are_for_one_picture_and_a_time(server: S3Server) -> None:
    """A link that was changed, signed with another secret, or is too old leads to nothing."""

    async def use(store: CloudStore) -> list[str]:
        keys = [await put(store, b"one", PNG), await put(store, b"two", JPEG)]
        return [await store.link(key, "") for key in keys]

    first, second = with_store(config(server.port), use)
    path, other = urlsplit(first).path, urlsplit(second).path
    forged = with_store(config(server.port, secret_access_key="another"), lambda store: store.link(path[10:], ""))
    brief = with_store(config(server.port, link_ttl=Duration(1)), lambda store: store.link(path[10:], ""))
    for wrong in (first.replace(path, other), first.replace("X-Amz-Expires=86400", "X-Amz-Expires=96400"), forged):
        assert wrong != first
        assert httpx.get(wrong).status_code == 403
    time.sleep(2.1)
    expired = httpx.get(brief)
    assert (httpx.get(first).status_code, expired.status_code in (400, 403)) == (200, True)
    assert re.search(r"xpired|exceeds the maximum", expired.text)


# The same bytes once


@pytest.mark.parametrize("size", [7, 12 * MIB])
def test_content_addressed(server: S3Server, size: int) -> None:
    """The same bytes have the same name and are sent once; other bytes, or another secret, have another."""
    picture = os.urandom(size)
    delivery = config(server.port, content_addressed=True, link_secret="s")
    first, link = stored(delivery, picture)
    path = server.folder / "buckets" / BUCKET / first
    (inode, begun) = path.stat().st_ino, server.uploads()[0]
    assert first == stored(delivery, picture)[0]
    assert (inode, begun) == (path.stat().st_ino, server.uploads()[0])
    assert httpx.get(link).content == picture
    others = [
        stored(delivery, picture + b".")[0],
        stored(msgspec.structs.replace(delivery, link_secret="t"), picture)[0],
    ]
    assert len({first, *others}) == len(server.files) == 3
    assert all(NAME.fullmatch(name) for name in server.files)


def test_content_addressed_is_sent_again_when_old(server: S3Server) -> None:
    """What a lifecycle rule may be about to remove is sent again, so that the new link holds."""
    delivery = config(server.port, content_addressed=True, link_ttl=Duration(3600))
    key, _ = stored(delivery, b"picture")
    path = server.folder / "buckets" / BUCKET / key
    os.utime(path, (time.time() - 4000, time.time() - 4000))
    assert key == stored(delivery, b"picture")[0]
    assert time.time() - path.stat().st_mtime < 2000


@pytest.mark.parametrize("size", [7, 12 * MIB])
def test_content_addressed_and_aborted(server: S3Server, size: int) -> None:
    """Before its end nothing is sent; afterwards it stays, because somebody else may have got the same link."""

    async def use(store: CloudStore) -> str:
        aborted = await store.writer(PNG)
        await aborted.write(bytes(size))
        await aborted.abort()
        assert server.files == {}
        writer = await store.writer(PNG)
        await writer.write(bytes(size))
        key = await writer.commit()
        await writer.abort()
        return key

    key = with_store(config(server.port, content_addressed=True), use)
    assert {key: bytes(size)} == server.files


# What goes wrong


def fails(delivery: DeliveryConfig, size: int) -> OSError:
    with pytest.raises(OSError, match=r"store|bucket") as caught:
        stored(delivery, bytes(size))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    text = str(caught.value)
    assert not re.search(r"127\.0\.0\.1|pictures|AKID|wJalr|Debug|<|\n", text), text
    return caught.value


SMALL_AND_LARGE = pytest.mark.parametrize("size", [10, 12 * MIB], ids=["small", "large"])


@SMALL_AND_LARGE
def test_wrong_credentials(server: S3Server, size: int) -> None:
    """A wrong secret is told as what it is."""
    error = fails(config(server.port, secret_access_key="wrong"), size)
    assert str(error) == "the store refuses the credentials (403 SignatureDoesNotMatch)"
    assert server.files == {}


@SMALL_AND_LARGE
def test_no_such_bucket(server: S3Server, size: int) -> None:
    """A bucket that is not there is told as what it is."""
    error = fails(config(server.port, store="s3://elsewhere"), size)
    assert str(error) == "there is no such bucket (404 NoSuchBucket)"


UNREACHABLE = "the store cannot be reached, or did not answer in time"


@SMALL_AND_LARGE
def test_nobody_listens(size: int) -> None:
    """A store that is down fails after a few attempts, not after three minutes."""
    line = Relay(1)
    line.close()
    assert str(fails(config(line.port), size)) == UNREACHABLE


@SMALL_AND_LARGE
def test_silent(server: S3Server, size: int) -> None:
    """A store that does not answer fails after ``timeout``."""
    line = Relay(server.port)
    line.silence()
    assert str(fails(config(line.port, timeout=Duration(0.5)), size)) == UNREACHABLE
    line.close()
    assert server.files == {}


def test_silent_in_the_middle(server: S3Server) -> None:
    """So does one that falls silent during an upload, of which the server is left with nothing that can be had."""
    line = Relay(server.port)

    async def use(store: CloudStore) -> None:
        writer = await store.writer(PNG)
        await writer.write(bytes(6 * MIB))
        line.silence()
        with pytest.raises(OSError, match=UNREACHABLE):  # noqa: PT012 - some write, not which
            for _ in range(10):
                await writer.write(bytes(6 * MIB))
        await writer.abort()

    with_store(config(line.port, timeout=Duration(0.5)), use)
    line.close()
    assert [name for name in server.files if NAME.fullmatch(name)] == []


def test_slow(server: S3Server) -> None:
    """A store that is slow, but not too slow, gets its picture."""
    line = Relay(server.port, delay=0.01)
    key, _ = stored(config(line.port), bytes(6 * MIB))
    line.close()
    assert [key] == list(server.files)


def test_more_than_its_threads_while_silent(server: S3Server) -> None:
    """Those who wait for a turn behind a silent store do not wait for ever either."""
    line = Relay(server.port)
    line.silence()

    async def use(store: CloudStore) -> list[Any]:
        return await asyncio.gather(*(put(store, b"x", PNG) for _ in range(300)), return_exceptions=True)

    errors = with_store(config(line.port, timeout=Duration(0.5)), use)
    line.close()
    assert {UNREACHABLE, "[Errno 110] the store did not answer in time"} == {str(error) for error in errors}
    assert server.files == {}


@pytest.mark.parametrize(
    ("status", "body", "full", "message"),
    [
        (507, b"<Error><Code>XMinioStorageFull</Code></Error>", True, "the store is full (507 XMinioStorageFull)"),
        (507, b"", True, "the store is full (507)"),
        (403, b"<Error><Code>QuotaExceeded</Code></Error>", True, "the store is full (403 QuotaExceeded)"),
        (
            403,
            b"<Error><Code>AccessDenied</Code></Error>",
            False,
            "the store refuses the credentials (403 AccessDenied)",
        ),
        (401, b"", False, "the store refuses the credentials (401)"),
        (500, b"<html>http://127.0.0.1/ pictures</html>", False, "the store answered 500"),
        (503, b"<Error><Code>SlowDown</Code></Error>", False, "the store answered 503 SlowDown"),
        (400, b"<Error><Code>EntityTooLarge</Code></Error>", False, "the store answered 400 EntityTooLarge"),
        (301, b"", False, "the store redirects, which a wrong region or endpoint makes it do"),
    ],
)
@SMALL_AND_LARGE
def test_answers_of_a_store(status: int, body: bytes, full: bool, message: str, size: int) -> None:
    """Every refusal is told in a few words, and one for want of room is told apart."""
    answering = Answering(status, body)
    error = fails(config(answering.port), size)
    answering.close()
    assert (message, full) == (str(error), isinstance(error, StoreFull))


TEXTS = st.text() | st.builds(
    "Generic S3 error: PUT http://10.0.0.1/secret-bucket: status code: {}: <Code>{}</Code>{}".format,
    st.integers(0, 999),
    st.text(max_size=80) | st.sampled_from(["QuotaExceeded", "AccessDenied", "NoSuchBucket"]),
    st.text(max_size=20),
)


@given(text=TEXTS, kind=st.sampled_from([OSError, ValueError, FileNotFoundError, TimeoutError]))
def test_errors_are_plain(text: str, kind: type[Exception]) -> None:
    """Whatever obstore says, what is told of it is one of a few sentences, with a status and a plain code at most."""
    error = plain_cloud_error(kind(text))
    assert isinstance(error, OSError)
    assert re.fullmatch(
        r"(\[Errno \d+\] )?(the store (did not answer in time|cannot be reached, or did not answer in time|failed"
        r"|redirects, which a wrong region or endpoint makes it do"
        r"|(is full|refuses the credentials) \([0-9]{3}( [A-Za-z0-9.]{1,64})?\)|is full \([A-Za-z0-9.]{1,64}\)"
        r"|answered [0-9]{3}( [A-Za-z0-9.]{1,64})?)|there is no such bucket \(([0-9]{3} )?[A-Za-z0-9.]{1,64}\))"
        r"|the picture was aborted",
        str(error),
    ), error


def test_errors_of_the_own_disk() -> None:
    """A full disk under a temporary file is no room either; other errors of the system keep their words, no path."""
    full = plain_cloud_error(OSError(errno.ENOSPC, "No space left on device", "/tmp/secret"))
    other = plain_cloud_error(OSError(errno.EIO, "Input/output error", "/tmp/secret"))
    assert (type(full), str(full)) == (StoreFull, "[Errno 28] No space left on device")
    assert (type(other), str(other)) == (OSError, "[Errno 5] Input/output error")


def test_link_that_cannot_be_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that must be asked for first, where nobody answers, are an error like others."""
    line = Relay(1)
    line.close()
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{line.port}/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    (tmp_path / "token").write_text("token")
    delivery = config(line.port, access_key_id="", secret_access_key="", timeout=Duration(0.5))
    with pytest.raises(OSError, match=r"^the store (cannot be reached, or did not answer in time|failed)$"):
        with_store(delivery, lambda store: store.link("NAME.png", ""))


def test_no_store_at_all() -> None:
    """A server that answers 200 to everything is found out at the first thing that it must say."""
    answering = Answering(200, b"Welcome to 127.0.0.1")
    assert str(fails(config(answering.port), 12 * MIB)) == "the store failed"
    answering.close()


@pytest.mark.parametrize("content_addressed", [False, True])
def test_killed_in_the_middle(tmp_path: Path, content_addressed: bool) -> None:
    """A server that is killed during an upload fails it, and what it had by then is no picture."""
    with s3_server(tmp_path) as server:
        line = Relay(server.port, on_bytes=(2 * MIB, server.popen.kill))
        delivery = config(line.port, content_addressed=content_addressed, timeout=Duration(2))
        assert str(fails(delivery, 30 * MIB)) == UNREACHABLE
        line.close()
        assert line.passed >= 2 * MIB
        assert [name for name in server.files if NAME.fullmatch(name)] == []


def test_used_after_closing(server: S3Server) -> None:
    """A store that was closed with an application that starts again takes pictures again."""

    async def run() -> None:
        store = open_store(config(server.port))
        for _ in range(2):
            await put(store, b"x", PNG)
            await store.aclose()

    asyncio.run(run())
    assert len(server.files) == 2


# The process


SCRIPT = """
import asyncio, resource, sys
from imagegate.config.schema import CloudConfig, DeliveryConfig
from imagegate.protocol.image_format import PNG
from imagegate.config.store_factory import open_store
from imagegate.stores import put, put_stream

def settings(port):
    cloud = CloudConfig(endpoint=f"http://127.0.0.1:{port}", region="us-east-1", access_key_id=%r, secret_access_key=%r)
    return DeliveryConfig(store="s3://%s", cloud=cloud)
""" % (KEY, SECRET, BUCKET)  # noqa: UP031 - braces

UPLOAD = """
async def main():
    store = open_store(settings(sys.argv[1]))
    key = await put(store, bytes(int(sys.argv[2])), PNG)
    await store.link(key, "")
    if sys.argv[3] == "closed":
        await store.aclose()
asyncio.run(main())
"""

MEMORY = """
async def chunks():
    piece = bytes(64 * 1024)
    for _ in range(20_000_000 // len(piece)):
        yield piece

async def main():
    store = open_store(settings(sys.argv[1]))
    await put_stream(store, chunks(), PNG)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10):
        await put_stream(store, chunks(), PNG)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
    await store.aclose()
asyncio.run(main())
"""


def process(server: S3Server, script: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SCRIPT + script, str(server.port), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_processes_end_well(server: S3Server) -> None:
    """Twenty processes that start, store a picture and stop at once all end with code 0, closing their store or not."""
    kinds = [(size, end) for size in ("1000", str(12 * MIB)) for end in ("closed", "left open")]
    codes: list[int] = []
    for _ in range(5):
        for each in [process(server, UPLOAD, *kind) for kind in kinds]:
            _, errors = each.communicate(timeout=60)
            assert errors == b""
            codes.append(each.returncode)
    assert codes == [0] * 20
    assert len(server.files) == 20


@pytest.mark.memory
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_stays_flat(server: S3Server) -> None:
    """Ten pictures of 20 MB, one after the other, take no more memory than one of them, and 20 MiB at most."""
    each = process(server, MEMORY)
    output, errors = each.communicate(timeout=120)
    assert errors == b""
    assert int(output) < 20 * MIB
    assert len(server.files) == 11


# Configuration


UPSTREAM = '[[upstreams]]\nname = "openai"\n[delivery]\n'


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('store = "s3://"', 4, "delivery.store: 's3://' must be a bucket and perhaps a prefix of plain letters"),
        ('store = "s3://bucket/a b"', 4, "delivery.store: 's3://bucket/a b' must be a bucket"),
        ('store = "s3://bucket/x?y"', 4, "delivery.store: 's3://bucket/x?y' must be a bucket"),
        ('store = "s3://bucket"\nlink_ttl = "8d"', 5, "delivery.link_ttl: presigned links hold for 7 days at most"),
        ('store = "s3://bucket"\nmax_bytes = 5', 5, "delivery.max_bytes: is not for s3://"),
        ('store = "gs://bucket"\nmax_bytes = 5', 5, "delivery.max_bytes: is not for gs://"),
        ('store = "file://b"\nmax_bytes = 0', 5, "delivery.max_bytes: must be at least 1"),
        ('store = "s3://bucket"\ncloud.access_key_id = "k"', None, "delivery.cloud.secret_access_key: is needed"),
        (
            'store = "s3://bucket"\n[delivery.cloud]\nsecret_access_key = "k"',
            5,
            "delivery.cloud.access_key_id: is needed",
        ),
        (
            'store = "s3://bucket"\n[delivery.cloud]\nendpoint = "minio:9000"',
            6,
            "delivery.cloud.endpoint: must be http",
        ),
        (
            'store = "s3://bucket"\n[delivery.cloud]\nkey_prefix = "a b"',
            6,
            "delivery.cloud.key_prefix: must be letters",
        ),
        (
            'store = "s3://bucket"\n[delivery.cloud]\nkey_prefix = "../a"',
            6,
            "delivery.cloud.key_prefix: must be letters",
        ),
        (
            'store = "s3://bucket"\n[delivery.cloud]\nkey_prefix = "{x}/"',
            6,
            "delivery.cloud.key_prefix: must be letters",
        ),
        ('store = "s3://bucket"\n[delivery.cloud]\nkey_prefix = "{tenant}/"', None, "delivery.link_secret: is needed"),
        (
            'store = "s3://bucket"\npublic_url = "https://x"\ncontent_addressed = true',
            None,
            "delivery.link_secret: is needed",
        ),
        ('store = "s3://bucket"\n[delivery.cloud]\nbucket = "b"', 6, "delivery.cloud.bucket: unknown key 'bucket'"),
        (
            'store = "s3://bucket"\n[delivery.cloud]\ntimeout = "soon"',
            6,
            "delivery.cloud.timeout: 'soon' is no duration",
        ),
        ('store = "gs://bucket"\n[delivery.cloud]\nregion = "x"', 6, "delivery.cloud.region: is not for gs://"),
        (
            'store = "gs://bucket"\n[delivery.cloud]\naccess_key_id = "x"',
            6,
            "delivery.cloud.access_key_id: is not for gs://",
        ),
        (
            'store = "az://bucket"\n[delivery.cloud]\npath_style = false',
            6,
            "delivery.cloud.path_style: is not for az://",
        ),
        ('store = "az://bucket"', 4, "delivery.store: az:// cannot be used with these settings"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, line: int | None, message: str) -> None:
    """Every mistake is told with its key, its line and what is allowed, and without secrets."""
    (tmp_path / "imagegate.toml").write_text(UPSTREAM + text)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_config(tmp_path / "imagegate.toml", environment={})
    if line is not None:
        assert f"imagegate.toml:{line}: " in str(caught.value)


@pytest.mark.parametrize("store", ["s3://bucket", "s3://bucket/prefix", "gs://bucket", "az://container/a/b"])
def test_addresses(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three clouds are opened by their addresses, with keys from the environment or none, and nobody is asked."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert isinstance(open_store(DeliveryConfig(store=store)), CloudStore)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where obstore is not installed, the error says how to install it."""
    monkeypatch.delitem(sys.modules, "imagegate.stores.cloud")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(
        ConfigError, match=re.escape("delivery.store: s3:// needs an extra: pip install 'imagegate[cloud]'")
    ):
        open_store(DeliveryConfig(store="s3://bucket"))


def test_settings_of_other_stores_are_a_warning() -> None:
    """Settings for buckets that a file store does not read are told."""
    from imagegate import Config

    found = warnings_of(Config(delivery=DeliveryConfig(cloud=CloudConfig(region="x"))))
    assert found == ["delivery.cloud: does nothing with a file:// store"]


def test_credentials_from_the_environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file leaves out is taken from the environment, as other tools do."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    key, _ = stored(DeliveryConfig(store=f"s3://{BUCKET}"), b"picture")
    assert {key: b"picture"} == server.files


@pytest.mark.parametrize("endpoint", ["https://s3.example.com", "https://bucket.s3.example.com"])
def test_bucket_in_the_host_name(endpoint: str) -> None:
    """Services that want the bucket in the host name get it there."""
    delivery = config(1, store="s3://bucket", endpoint=endpoint, path_style=False)
    link = with_store(delivery, lambda store: store.link("NAME.png", ""))
    assert link.startswith("https://bucket.s3.example.com/NAME.png?")


def test_is_a_store(server: S3Server) -> None:
    """A cloud store is a `Store`, and none that the gateway serves itself."""
    from imagegate.stores import ServedStore

    store: Store = open_store(config(server.port))
    assert not isinstance(store, ServedStore)


# What is no picture


async def pieces(*contents: bytes) -> AsyncIterator[bytes]:
    for content in contents:
        yield content


def with_blobs(delivery: DeliveryConfig, work: Callable[[CloudBlobs], Awaitable[Any]], *, ttl: float = 60.0) -> Any:
    async def run() -> Any:
        blobs = open_private_blobs(delivery, ttl=ttl)
        try:
            return await work(blobs)
        finally:
            await blobs.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("address", "more", "place"),
    [
        (f"s3://{BUCKET}/made", {}, "made-private/"),
        (f"s3://{BUCKET}", {}, "imagegate-private/"),
        (f"s3://{BUCKET}/made", {"private_prefix": "/kept/here/"}, "kept/here/"),
    ],
)
def test_blobs_have_a_place_of_their_own(server: S3Server, address: str, more: dict[str, Any], place: str) -> None:
    """They are written beside the pictures' place, private, and read and removed without a link."""
    server.empty()
    delivery = msgspec.structs.replace(config(server.port, store=address, **more), public_url="https://cdn.example.com")

    async def work(blobs: CloudBlobs) -> None:
        keys = [await blobs.put(pieces(*content)) for content in ((b"abc" * 300_000, b"d"), (bytes(12 * MIB),), ())]
        assert all(re.fullmatch(re.escape(place) + r"[A-Za-z0-9_-]{32}\.blob", key) for key in keys)
        assert set(keys) == set(server.files)
        assert await whole(blobs.read(keys[0])) == b"abc" * 300_000 + b"d"
        assert await whole(blobs.read(keys[1])) == bytes(12 * MIB)
        assert await whole(blobs.read(keys[2])) == b""
        for key in (keys[0].replace(".blob", "x.blob"), f"{place}{'a' * 32}.blob", "../secret.blob", "made/../a.blob"):
            with pytest.raises(FileNotFoundError):
                await whole(blobs.read(key))
        head = obstore.head(blobs._store.client, keys[0])
        assert head["size"] == 900_001
        attributes = obstore.get(blobs._store.client, keys[0]).attributes
        assert attributes.get("Cache-Control") == "private, no-store"
        await blobs.remove(keys[0])
        assert set(keys[1:]) == set(server.files)

    with_blobs(delivery, work)


def test_blobs_of_earlier_versions_are_read(server: S3Server) -> None:
    """They lie between the pictures."""
    delivery = config(server.port, store=f"s3://{BUCKET}/made")
    key, _ = stored(delivery, b"kept before", ImageFormat("application/octet-stream", "blob"))
    assert key.startswith("made/")
    assert with_blobs(delivery, lambda blobs: whole(blobs.read(key))) == b"kept before"


def test_old_blobs_are_removed_and_nothing_else(server: S3Server) -> None:
    """Those that are older than their time, and only what has the name of one."""
    delivery = config(server.port, store=f"s3://{BUCKET}/made")
    picture, _ = stored(delivery, b"picture")

    class Clock:
        now = time.time()
        spent = 0.0

        def time(self) -> float:
            return self.now

        def monotonic(self) -> float:
            return self.spent

    async def run() -> None:
        clock = Clock()
        blobs = open_private_blobs(delivery, ttl=3600, clock=clock)
        notes = f"{blobs._store.prefix}notes.txt"
        obstore.put(blobs._store.client, notes, b"mine")
        old = await blobs.put(pieces(b"old"))
        await asyncio.sleep(0.5)
        border = time.time()
        await asyncio.sleep(0.5)
        young = await blobs.put(pieces(b"young"))
        await blobs.sweep()
        assert set(server.files) == {picture, old, young, notes}
        clock.now = border + 3600
        await blobs.sweep()  # not so soon
        assert old in server.files
        clock.spent = 601
        await blobs.sweep()
        assert set(server.files) == {picture, young, notes}
        await blobs.aclose()

    asyncio.run(run())


def test_blobs_of_a_bucket_that_is_down() -> None:
    line = Relay(1)
    line.close()

    async def work(blobs: CloudBlobs) -> None:
        key = f"made-private/{'a' * 32}.blob"
        with pytest.raises(OSError, match="reached"):
            await whole(blobs.read(key))
        with pytest.raises(OSError, match="reached"):
            await blobs.sweep()
        await blobs.remove(key)

    with_blobs(config(line.port, store=f"s3://{BUCKET}/made"), work)
