"""Webhooks: signed as the Standard Webhooks specification says, tried again, given up."""

from __future__ import annotations

import asyncio
import base64

import pytest
from tests.wire.keeping_support import Receiver

from imagegate.demo.servers import serving
from imagegate.errors import ConfigError, RequestError
from imagegate.http import HTTPClient
from imagegate.http.guarded_fetch import Fetcher
from imagegate.tasks.webhooks import Webhooks, signature, signing_key

SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_signature_of_the_specification() -> None:
    """The example of the specification's reference libraries."""
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    key = signing_key(f"whsec_{SECRET}")
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body) == expected


def test_secrets() -> None:
    """With the specification's prefix, or plain."""
    assert signing_key(f"whsec_{SECRET}") == base64.b64decode(SECRET)
    assert signing_key("plain secret") == b"plain secret"
    with pytest.raises(ConfigError):
        signing_key("whsec_no base64!")


async def tell(url: str, *, allow: list[str], attempts: int = 3) -> bool:
    client = HTTPClient()
    try:
        hooks = Webhooks(Fetcher(client, allow=allow, timeout=5), secret="x" * 16, attempts=attempts, pause=0.01)
        return await hooks.send(url, "msg_1", b"{}")
    finally:
        await client.aclose()


@pytest.mark.server
@pytest.mark.parametrize(("refusals", "told", "tries"), [(0, True, 1), (2, True, 3), (9, False, 3)])
def test_tries(refusals: int, told: bool, tries: int) -> None:
    """Until somebody takes it, but not for ever."""
    receiver = Receiver(refusals=refusals)
    with serving(receiver) as port:
        assert asyncio.run(tell(f"http://127.0.0.1:{port}/", allow=["127.0.0.1"])) is told
    assert len(receiver.events) == tries


@pytest.mark.server
def test_private_addresses_are_not_called() -> None:
    """Also where the address has become private since the task was made."""
    receiver = Receiver()
    with serving(receiver) as port:
        assert not asyncio.run(tell(f"http://127.0.0.1:{port}/", allow=[]))
    assert receiver.events == []


def test_nobody_there() -> None:
    """A receiver that cannot be reached is tried as often."""
    assert not asyncio.run(tell("http://127.0.0.1:9/", allow=["127.0.0.1"], attempts=2))


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://no-such-host.invalid/", "ftp://example.com", 7, None])
def test_addresses_that_are_refused(url: object) -> None:
    """Before the task is made."""

    async def check() -> None:
        client = HTTPClient()
        hooks = Webhooks(Fetcher(client), secret="x" * 16, attempts=1)
        with pytest.raises(RequestError) as caught:
            await hooks.check(url)
        assert caught.value.param == "callback_url"
        await client.aclose()

    asyncio.run(check())
