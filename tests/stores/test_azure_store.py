"""Pictures in Azure Blob Storage, by Microsoft's own emulator, which verifies keys and links; and Google's links."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.ports import free_port
from tests.wire.edit_support import node_packages

from imagegate.config.schema import CloudConfig, DeliveryConfig, Duration
from imagegate.config.store_factory import open_store
from imagegate.protocol.image_format import PNG
from imagegate.stores import put

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's own (https://learn.microsoft.com/azure/storage/common/storage-use-azurite), known to everybody."""
MIB = 1024 * 1024
TIMEOUT = 60.0


@pytest.fixture(scope="module")
def endpoint(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An emulator with a container ``pictures``."""
    folder = node_packages(pytestconfig, "azurite@latest")
    port = free_port()
    # fmt: off
    command = [
        "node", str(folder / "node_modules/azurite/dist/src/blob/main.js"), "--blobPort", str(port), "--silent",
        "--location", str(tmp_path_factory.mktemp("azure")), "--skipApiVersionCheck", "--disableTelemetry",
    ]
    # fmt: on
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + TIMEOUT
        while True:
            with contextlib.suppress(httpx.TransportError):
                assert make_container(port).status_code == 201
                break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    finally:
        process.kill()
        process.wait(TIMEOUT)


def make_container(port: int) -> httpx.Response:
    """Signed as https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key describes."""
    now = datetime.datetime.now(datetime.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-date": now, "x-ms-version": "2021-08-06"}
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    text = "PUT" + "\n" * 12 + f"{lines}/{ACCOUNT}/{ACCOUNT}/pictures\nrestype:container"
    signature = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers["authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
    return httpx.put(f"http://127.0.0.1:{port}/{ACCOUNT}/pictures?restype=container", headers=headers)


def stored(endpoint: str, picture: bytes, key: str = KEY, container: str = "pictures") -> tuple[str, str]:
    """The key and the presigned link of a picture that was put."""
    cloud = CloudConfig(endpoint=endpoint, access_key_id=ACCOUNT, secret_access_key=key, timeout=Duration(5))

    async def run() -> tuple[str, str]:
        store = open_store(DeliveryConfig(store=f"az://{container}/made", cloud=cloud))
        try:
            name = await put(store, picture, PNG)
            return name, await store.link(name, "")
        finally:
            await store.aclose()

    return asyncio.run(run())


@pytest.mark.node
@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_put_and_read_back(endpoint: str, size: int) -> None:
    """By one request and in blocks: the picture is there whole, with its headers, for who has the link."""
    picture = os.urandom(size)
    key, link = stored(endpoint, picture)
    assert link.startswith(f"{endpoint}/pictures/{key}?")
    assert key.startswith("made/")
    reply = httpx.get(link)
    assert (reply.status_code, reply.content == picture) == (200, True)
    assert (reply.headers["content-type"], reply.headers["cache-control"]) == (
        "image/png",
        "private, max-age=86400, immutable",
    )
    assert httpx.get(re.sub(r"sig=[^&]+", "sig=AAAA", link)).status_code == 403
    assert httpx.get(link.partition("?")[0]).status_code in (403, 404)


@pytest.mark.node
@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_wrong_settings(endpoint: str, size: int) -> None:
    """A wrong key, and a container that is not there."""
    with pytest.raises(OSError, match=r"^the store refuses the credentials \(403 \w+\)$"):
        stored(endpoint, bytes(size), key=base64.b64encode(b"x" * 32).decode())
    with pytest.raises(OSError, match=r"^there is no such bucket \(404 ContainerNotFound\)$"):
        stored(endpoint, bytes(size), container="elsewhere")


@pytest.mark.server
def test_google_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a service account's key Google's links are signed without asking anybody."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key = subprocess.run(["openssl", "genrsa", "2048"], capture_output=True, text=True, check=True).stdout
    account = {"private_key": key, "private_key_id": "1", "client_email": "gateway@example.com"}
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))

    async def run() -> str:
        store = open_store(DeliveryConfig(store="gs://bucket/made", link_ttl=Duration(3600)))
        link = await store.link("made/NAME.png", "")
        await store.aclose()
        return link

    link = asyncio.run(run())
    assert link.startswith("https://storage.googleapis.com/bucket/made/NAME.png?")
    assert "X-Goog-Expires=3600&" in link
    assert re.search(r"X-Goog-Signature=[0-9a-f]{512}$", link)
