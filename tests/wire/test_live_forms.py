"""Large forms go upstream while they come in; what changes the request later is not paid for twice."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from tests.waiting import TIMEOUT, async_until

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.pictures import draw_picture
from imagegate.spending.ledger import Balance, day_of

MEGABYTE = 1024 * 1024
BOUNDARY = b"own-boundary"
PICTURE = draw_picture(width=512, height=512, prompt="x", provider="x", model="x", transparent=True)
LARGE = PICTURE + bytes(5 * MEGABYTE)  # what follows the end of a PNG says nothing
REPLY = json.dumps({"created": 1, "data": [{"b64_json": "iVBORw0KGgo="}]}).encode()
REFUSAL = json.dumps({"error": {"message": "Later.", "type": "rate_limit_error", "code": None}}).encode()


@dataclass
class Post:
    """What reached the provider of one request."""

    size: int = 0
    whole: bool = False
    body: bytearray = field(default_factory=bytearray)


class Provider:
    """Counts requests, and knows which of them came to their end."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.refuses = 0
        """Whole requests, from the first on, that are answered 429."""
        self.resets = False
        """Whether whole requests are answered by the end of the connection."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            post = Post()
            self.posts.append(post)
            assert b"transfer-encoding" not in head
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while post.size < length:
                piece = await reader.read(min(length - post.size, MEGABYTE))
                if not piece:
                    return
                post.body += piece
                post.size += len(piece)
            post.whole = True
            if self.resets:
                return
            self.refuses -= 1
            status, reply = (429, REFUSAL) if self.refuses >= 0 else (200, REPLY)
            writer.write(b"HTTP/1.1 %d So\r\ncontent-type: application/json\r\nconnection: close\r\n" % status)
            writer.write(b"content-length: %d\r\n\r\n" % len(reply) + reply)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass  # the gateway broke the request off
        finally:
            writer.close()


def text(name: bytes, value: bytes) -> bytes:
    return b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (BOUNDARY, name, value)


def file(name: bytes, content: bytes, kind: bytes = b"image/png") -> bytes:
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="a.png"\r\nContent-Type: %s\r\n\r\n'
    return head % (BOUNDARY, name, kind) + content + b"\r\n"


MODEL, PROMPT = text(b"model", b"gpt-image-2"), text(b"prompt", b"Blue")


class Client:
    """Sends a form in two pieces."""

    def __init__(self, port: int, parts: list[bytes], end: bytes = b"\r\n") -> None:
        self._port = port
        self._body = b"".join(parts) + b"--%s--" % BOUNDARY + end

    async def begin(self, size: int) -> None:
        self._reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = b"POST /v1/images/edits HTTP/1.1\r\nhost: [::1]\r\ncontent-type: multipart/form-data; boundary=%s\r\n"
        self.writer.write(head % BOUNDARY + b"content-length: %d\r\n\r\n" % len(self._body) + self._body[:size])
        await self.writer.drain()
        self._sent = size

    async def end(self) -> tuple[int, dict[str, object]]:
        self.writer.write(self._body[self._sent :])
        await self.writer.drain()
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        self.writer.close()
        return int(head.split()[1]), json.loads(body)


def run(scenario: Callable[[Provider, int, ImageGateway], Awaitable[None]], more: str = "") -> None:
    """Runs a scenario between a provider and a gateway under real servers; uploads must leave nothing behind."""

    async def work() -> None:
        provider = Provider()
        server = await asyncio.start_server(provider, "127.0.0.1", 0, limit=MEGABYTE)
        address = server.sockets[0].getsockname()[1]
        source = f'[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:{address}"\napi_key = "sk-1234567"\n'
        gateway = ImageGateway(config=parse_config(source + '[delivery]\nstore = "memory://"\n' + more), hooks=())
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        uvicorn_server = uvicorn.Server(uvicorn.Config(gateway, log_level="warning"))
        serving = asyncio.create_task(uvicorn_server.serve([listener]))
        await async_until(lambda: uvicorn_server.started)
        try:
            await scenario(provider, listener.getsockname()[1], gateway)
            limits = gateway.config.limits
            left = gateway.services.lasting.budget
            await async_until(lambda: (left._total, left._memory) == (limits.spool, limits.spool_memory))
        finally:
            uvicorn_server.should_exit = True
            await serving
            server.close()
            await server.wait_closed()
            listener.close()

    asyncio.run(work())


def test_files_go_upstream_while_they_come_in() -> None:
    """The provider has the beginning before the client has sent the end, and all of it afterwards."""

    async def scenario(provider: Provider, port: int, gateway: ImageGateway) -> None:
        client = Client(port, [MODEL, PROMPT, file(b"image[]", LARGE), file(b"image[]", LARGE)])
        await client.begin(3 * MEGABYTE)
        await async_until(lambda: bool(provider.posts) and provider.posts[0].size > 2 * MEGABYTE)
        assert not provider.posts[0].whole
        status, _ = await client.end()
        assert status == 200
        assert [post.whole for post in provider.posts] == [True]
        assert provider.posts[0].body.count(LARGE) == 2

    run(scenario)


@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["no line break", "a line break"])
def test_the_length_is_known_with_either_end(end: bytes) -> None:
    """Some clients end a form with a line break, some without."""

    async def scenario(provider: Provider, port: int, gateway: ImageGateway) -> None:
        client = Client(port, [MODEL, PROMPT, file(b"image", LARGE + LARGE)], end)
        await client.begin(3 * MEGABYTE)
        await async_until(lambda: bool(provider.posts) and provider.posts[0].size > 2 * MEGABYTE)
        assert (await client.end())[0] == 200
        assert [post.whole for post in provider.posts] == [True]

    run(scenario)


@pytest.mark.parametrize(
    "first",
    [
        file(b"image", LARGE + LARGE, b"application/octet-stream"),
        file(b"image", LARGE + LARGE).replace(b'name="image"', b"name=image", 1),
        file(b"image", LARGE + LARGE).replace(b'"a.png"', b"\"a.png\"; filename*=utf-8''b.png", 1),
    ],
    ids=["a wrong type", "a name without quotes", "two names"],
)
def test_heads_that_are_written_anew_wait_for_the_whole_form(first: bytes) -> None:
    """Its length cannot be told before it is there, and the provider is asked once."""

    async def scenario(provider: Provider, port: int, gateway: ImageGateway) -> None:
        client = Client(port, [MODEL, PROMPT, first])
        await client.begin(3 * MEGABYTE)
        assert (await client.end())[0] == 200
        assert [post.whole for post in provider.posts] == [True]

    run(scenario)


@pytest.mark.parametrize(
    "late",
    [
        text(b"n", b"1"),
        file(b"image", LARGE),
        file(b"image[7]", PICTURE),
        file(b"mask", PICTURE, b"application/octet-stream"),
        file(b"mask", b"", b"application/octet-stream").replace(b"a.png", b""),
        b"--%s--\r\nThe end." % BOUNDARY,
    ],
    ids=["a field", "a second image", "an image with a place", "a mask of another type", "no mask", "an epilogue"],
)
def test_what_changes_the_request_makes_it_anew(late: bytes) -> None:
    """The incomplete request is dropped, and the whole form is sent once."""

    async def scenario(provider: Provider, port: int, gateway: ImageGateway) -> None:
        client = Client(port, [MODEL, PROMPT, file(b"image", LARGE + LARGE), late])
        await client.begin(3 * MEGABYTE)
        await async_until(lambda: bool(provider.posts) and provider.posts[0].size > 2 * MEGABYTE)
        status, _ = await client.end()
        assert status == 200
        assert [post.whole for post in provider.posts] == [False, True]

    run(scenario)


@pytest.mark.parametrize(
    ("late", "param"),
    [
        (file(b"mask", b"\xff\xd8\xff" + bytes(1000), b"image/jpeg"), "mask"),
        (file(b"markup", PICTURE), "markup"),
        (file(b"image[]", b"no picture", b"text/plain"), "image[]"),
        (file(b"strange", PICTURE), "strange"),
        (file(b"image[]", PICTURE) * 16, "image[]"),
        (file(b"image[]", PICTURE)[:200], None),
    ],
    ids=["a bad mask", "markup", "no picture", "an unknown part", "too many", "cut off"],
)
def test_a_form_that_turns_out_wrong_is_never_a_whole_request(late: bytes, param: str | None) -> None:
    """The client gets its error, and the provider nothing that it could act on."""

    async def scenario(provider: Provider, port: int, gateway: ImageGateway) -> None:
        client = Client(port, [MODEL, PROMPT, file(b"image[]", LARGE + LARGE), late])
        await client.begin(3 * MEGABYTE)
        await async_until(lambda: bool(provider.posts))
        status, answer = await client.end()
        error = answer["error"]
        assert isinstance(error, dict)
        assert (status, error["param"]) == (400, param)
        assert [post.whole for post in provider.posts] == [False]

    run(scenario)


def test_a_client_that_leaves_breaks_the_request_off() -> None:
    """Cut off halfway: the upstream call ends, and the room of the upload is given back."""

    async def scenario(provider: Provider, port: int, gateway: ImageGateway) -> None:
        client = Client(port, [MODEL, PROMPT, file(b"image", LARGE + LARGE)])
        await client.begin(3 * MEGABYTE)
        await async_until(lambda: bool(provider.posts) and provider.posts[0].size > 2 * MEGABYTE)
        client.writer.close()
        await client.writer.wait_closed()
        assert [post.whole for post in provider.posts] == [False]

    run(scenario)


def test_a_model_after_the_files_waits_for_the_whole_form() -> None:
    """Nobody knows where the files go before the model is known."""

    async def scenario(provider: Provider, port: int, gateway: ImageGateway) -> None:
        client = Client(port, [PROMPT, file(b"image", LARGE + LARGE), MODEL])
        await client.begin(3 * MEGABYTE)
        status, _ = await client.end()
        assert (status, [post.whole for post in provider.posts]) == (200, [True])

    run(scenario)


@pytest.mark.parametrize(("refuses", "status", "posts"), [(1, 200, 2), (9, 429, 2)])
def test_a_refused_form_is_sent_again_whole(refuses: int, status: int, posts: int) -> None:
    """What has gone by is in the spool: the retry has every byte, and there are no more of them than configured."""

    async def scenario(provider: Provider, port: int, gateway: ImageGateway) -> None:
        provider.refuses = refuses
        client = Client(port, [MODEL, PROMPT, file(b"image[]", LARGE), file(b"image[]", LARGE)])
        await client.begin(3 * MEGABYTE)
        await async_until(lambda: bool(provider.posts) and provider.posts[0].size > 2 * MEGABYTE)
        assert (await client.end())[0] == status
        assert [post.whole for post in provider.posts] == [True] * posts
        assert [post.body.count(LARGE) for post in provider.posts] == [2] * posts

    run(scenario)


LIMITS = "[access.limits]\nin_flight = 1\nspend_per_day = 0.07\n[prices.models.gpt-image-2]\nimage = 0.04\n"


@pytest.mark.parametrize("refuses", [0, 1])
@pytest.mark.parametrize("has_ledger", [False, True])
def test_a_form_that_is_sent_again_is_one_request_at_a_time(tmp_path: Path, refuses: int, has_ledger: bool) -> None:
    """Its first run has its place, and what was reserved for it, no more when the second one begins."""
    ledger = f'[spending]\nledger = "sqlite:///{tmp_path}/ledger.db"\n' if has_ledger else ""

    async def scenario(provider: Provider, port: int, gateway: ImageGateway) -> None:
        provider.refuses = refuses
        late = [] if refuses else [text(b"user", b"u")]
        client = Client(port, [MODEL, PROMPT, file(b"image", LARGE + LARGE), *late])
        await client.begin(3 * MEGABYTE)
        await async_until(lambda: bool(provider.posts) and provider.posts[0].size > 2 * MEGABYTE)
        assert (await client.end())[0] == 200
        assert [post.whole for post in provider.posts] == [bool(refuses), True]

    run(scenario, LIMITS + ledger)


@pytest.mark.parametrize(
    "late",
    [file(b"mask", b"\xff\xd8\xff" + bytes(1000), b"image/jpeg"), file(b"strange", PICTURE), None],
    ids=["a bad mask", "an unknown part", "a client that leaves"],
)
def test_a_form_that_is_broken_off_costs_nothing(late: bytes | None) -> None:
    """The provider cannot have a whole request, so no money is held for it."""

    async def scenario(provider: Provider, port: int, gateway: ImageGateway) -> None:
        client = Client(port, [MODEL, PROMPT, file(b"image", LARGE + LARGE), late or b""])
        await client.begin(3 * MEGABYTE)
        await async_until(lambda: bool(provider.posts) and provider.posts[0].size > 2 * MEGABYTE)
        if late is None:
            client.writer.close()
        else:
            assert (await client.end())[0] == 400
        spending = gateway.loop_services.spending
        assert spending is not None

        async def balance() -> Balance:
            return next(iter((await spending.ledger.balances([day_of(time.time())])).values()))

        async with asyncio.timeout(TIMEOUT):
            while (await balance()).bound:
                await asyncio.sleep(0.01)
        assert [post.whole for post in provider.posts] == [False]

    run(scenario, LIMITS)


def test_a_form_that_may_have_arrived_is_not_sent_again() -> None:
    """The provider hung up when it had all of it."""

    async def scenario(provider: Provider, port: int, gateway: ImageGateway) -> None:
        provider.resets = True
        client = Client(port, [MODEL, PROMPT, file(b"image", LARGE + LARGE)])
        await client.begin(3 * MEGABYTE)
        assert (await client.end())[0] == 502
        assert [post.whole for post in provider.posts] == [True]

    run(scenario)
