"""Lookups of host names: bounded, shared, given up in time, and never in the way of other lookups or of disks."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from tests.waiting import async_until

from imagegate.http.client import HTTPClient
from imagegate.http.guarded_fetch import FetchBusy, Fetcher, FetchFailed
from imagegate.http.lookups import AddressInfo, Lookups, TooManyLookups
from imagegate.http.transports.resolver import ProviderResolver

TIMEOUT = 20.0


def info(address: str, port: int) -> AddressInfo:
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)


class NameServer:
    """Answers names that begin with ``good``, keeps others waiting until it is let go, and counts."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.asked: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()
        self.answers = True

    def __call__(self, host: str, port: int, family: int) -> Sequence[AddressInfo]:
        with self._lock:
            self.asked.append(host)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if host.startswith("good") and self.answers:
                return [info("127.0.0.1", port)]
            assert self.let_go.wait(TIMEOUT)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        finally:
            with self._lock:
                self.at_once -= 1


def run(scenario: Callable[[NameServer], Awaitable[None]]) -> None:
    names = NameServer()

    async def work() -> None:
        async with asyncio.timeout(TIMEOUT):
            try:
                await scenario(names)
            finally:
                names.let_go.set()
                while names.at_once:
                    await asyncio.sleep(0.005)

    asyncio.run(work())


def begin(lookups: Lookups, *hosts: str) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(lookups.addresses(host, 80)) for host in hosts]


async def end(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_names_of_one_domain_leave_threads_to_others() -> None:
    async def scenario(names: NameServer) -> None:
        lookups = Lookups(most=6, most_of_domain=4, look_up=names)
        slow = begin(lookups, *(f"a{number}.slow.example" for number in range(20)))
        await async_until(lambda: names.at_once == 4)
        assert await lookups.addresses("good.other.example", 80) == ["127.0.0.1"]
        assert names.at_once == 4
        names.let_go.set()
        assert all(isinstance(failure, socket.gaierror) for failure in await end(slow))
        assert (len(names.asked), names.most_at_once) == (21, 5)

    run(scenario)


def test_all_together_are_bounded() -> None:
    async def scenario(names: NameServer) -> None:
        lookups = Lookups(most=6, most_of_domain=4, look_up=names)
        slow = begin(lookups, *(f"a.slow{number}.example" for number in range(20)))
        await async_until(lambda: names.at_once == 6)
        names.let_go.set()
        await end(slow)
        assert (len(names.asked), names.most_at_once) == (20, 6)

    run(scenario)


def test_more_than_may_wait_are_refused_and_others_are_not() -> None:
    async def scenario(names: NameServer) -> None:
        lookups = Lookups(most=6, most_of_domain=4, look_up=names)
        slow = begin(lookups, *(f"a{number}.slow.example" for number in range(40)))
        await async_until(lambda: names.at_once == 4)
        with pytest.raises(TooManyLookups):
            await lookups.addresses("good.slow.example", 80)
        fetcher = Fetcher(HTTPClient(), resolve=lookups.addresses)
        with pytest.raises(FetchBusy):
            await fetcher.check("http://good.slow.example/a.png")
        assert await lookups.addresses("good.other.example", 80) == ["127.0.0.1"]
        names.let_go.set()
        refused = [failure for failure in await end(slow) if isinstance(failure, TooManyLookups)]
        assert len(refused) == 8
        assert await lookups.addresses("good.slow.example", 80) == ["127.0.0.1"], "there is room again"

    run(scenario)


def test_whoever_asks_for_the_same_name_shares_the_lookup() -> None:
    async def scenario(names: NameServer) -> None:
        lookups = Lookups(look_up=names)
        slow = begin(lookups, *["a.slow.example"] * 50)
        await async_until(lambda: names.at_once)
        for waiting in slow[:25]:
            waiting.cancel()  # which is not the end of the lookup for the others
        names.let_go.set()
        results = await end(slow)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 25 + [socket.gaierror] * 25
        assert names.asked == ["a.slow.example"]

    run(scenario)


def test_a_lookup_is_given_up_and_its_thread_stays_counted() -> None:
    async def scenario(names: NameServer) -> None:
        lookups = Lookups(most=1, most_of_domain=1, deadline=0.05, look_up=names)
        with pytest.raises(TimeoutError):
            await lookups.addresses("a.slow.example", 80)
        with pytest.raises(TimeoutError):
            await lookups.addresses("good.example", 80)
        assert names.asked == ["a.slow.example"], "the thread is still taken"
        names.let_go.set()
        await async_until(lambda: not names.at_once)
        while True:
            with suppress(TimeoutError):
                assert await lookups.addresses("good.example", 80) == ["127.0.0.1"]
                return

    run(scenario)


def test_a_fetcher_gives_a_slow_lookup_up() -> None:
    async def scenario(names: NameServer) -> None:
        fetcher = Fetcher(HTTPClient(), resolve=Lookups(deadline=0.05, look_up=names).addresses)
        with pytest.raises(FetchFailed, match="cannot be resolved"):
            await fetcher.check("http://a.slow.example/a.png")

    run(scenario)


def test_disks_and_other_lookups_go_on() -> None:
    """What waits for a name server is in none of the threads that everything else shares."""

    async def scenario(names: NameServer) -> None:
        slow = begin(Lookups(look_up=names), *(f"a.slow{number}.example" for number in range(200)))
        await async_until(lambda: names.at_once == 16)
        await asyncio.gather(*(asyncio.to_thread(len, "") for _ in range(50)))
        assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
        names.let_go.set()
        await end(slow)

    run(scenario)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
    await writer.drain()
    writer.close()


def test_the_last_good_address_of_a_provider_is_used_when_its_lookup_fails_or_is_slow() -> None:
    async def scenario(names: NameServer) -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        resolver = ProviderResolver(names)
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
        async with server, aiohttp.ClientSession(connector=connector) as session:

            async def ask(host: str) -> str:
                async with session.get(f"http://{host}:{port}/") as reply:
                    return await reply.text()

            assert await ask("good.provider.example") == "ok"
            names.answers = False  # and hangs
            assert await ask("good.provider.example") == "ok"
            names.let_go.set()  # and fails
            assert await ask("good.provider.example") == "ok"
            with pytest.raises(aiohttp.ClientConnectorDNSError):
                await ask("good.unknown.example")
            names.answers = True
            assert await ask("good.unknown.example") == "ok"

    run(scenario)


def test_a_link_local_address_keeps_its_zone() -> None:
    def look_up(host: str, port: int, family: int) -> Sequence[AddressInfo]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", port, 0, 3)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
        ]

    found = asyncio.run(ProviderResolver(look_up).resolve("a.example", 80))
    assert [(each["host"], each["port"]) for each in found] == [("fe80::1%3", 80), ("::1", 80)]
