"""The application's function: asked for a bounded time, and what it answers, raises or never says."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Scope

from imagegate import ImagegateError, Limits, Principal
from imagegate.access.authenticator import Authenticator
from imagegate.access.host import AccessUnavailable, HostPrincipals
from imagegate.errors import AuthenticationError

ADA = Principal(id="ada")
SCOPE: Scope = {"type": "http", "headers": []}


def host(source: Any, **options: Any) -> HostPrincipals:
    return HostPrincipals(source, **{"timeout": 5.0, "at_once": 10, **options})


async def known(scope: Scope) -> Principal | None:
    return ADA


class Callable:
    async def __call__(self, scope: Scope) -> Principal | None:
        return ADA


@pytest.mark.parametrize("source", [known, lambda scope: ADA, lambda scope: known(scope), partial(known), Callable()])
def test_functions_of_every_kind(source: Any) -> None:
    """Coroutine functions, functions, those that return a coroutine, partials and objects."""
    assert asyncio.run(host(source).find(SCOPE)) == ADA


def test_a_function_does_not_hold_the_event_loop() -> None:
    """It runs in another thread; a coroutine function runs in the loop's own."""
    threads: list[int] = []

    def plain(scope: Scope) -> Principal:
        threads.append(threading.get_ident())
        return ADA

    async def coroutine(scope: Scope) -> Principal:
        threads.append(threading.get_ident())
        return ADA

    asyncio.run(host(plain).find(SCOPE))
    asyncio.run(host(coroutine).find(SCOPE))
    assert threads[0] != threading.get_ident() == threads[1]


async def slow(scope: Scope) -> Principal:
    await asyncio.sleep(60)
    return ADA


@pytest.mark.parametrize("is_async", [True, False])
def test_it_has_so_long_and_no_longer(is_async: bool) -> None:
    end = threading.Event()

    def blocks(scope: Scope) -> Principal:
        end.wait(60)
        return ADA

    async def ask() -> None:
        asked = host(slow if is_async else blocks, timeout=0.05)
        try:
            with pytest.raises(AccessUnavailable) as late:
                await asked.find(SCOPE)
            assert late.value.status == 503
        finally:
            end.set()
            asked.close()

    asyncio.run(ask())


@pytest.mark.parametrize("is_async", [True, False])
def test_questions_at_a_time_are_bounded(is_async: bool) -> None:
    """Those above the limit are told at once; an answer makes room again."""
    end = threading.Event()
    go = asyncio.Event()

    async def waits(scope: Scope) -> Principal:
        await go.wait()
        return ADA

    def blocks(scope: Scope) -> Principal:
        end.wait(60)
        return ADA

    async def ask() -> None:
        asked = host(waits if is_async else blocks, at_once=2)
        first = [asyncio.create_task(asked.find(SCOPE)) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(AccessUnavailable):
            await asked.find(SCOPE)
        end.set()
        go.set()
        assert await asyncio.gather(*first) == [ADA, ADA]
        await asyncio.sleep(0)  # the thread's permit comes back through the loop
        assert await asked.find(SCOPE) == ADA

    asyncio.run(ask())


def fails(scope: Scope) -> Principal:
    raise ValueError("no such token: sk-very-secret")


@pytest.mark.parametrize("source", [fails, lambda scope: "ada", lambda scope: 1 / 0])
def test_a_failure_says_nothing(source: Any, caplog: pytest.LogCaptureFixture) -> None:
    """503 without a word of it; the log has the place, and not the text, which may quote a credential."""
    with caplog.at_level(logging.ERROR), pytest.raises(AccessUnavailable) as failed:
        asyncio.run(host(source).find(SCOPE))
    assert failed.value.message == "Access cannot be checked at the moment. Retry later."
    assert "sk-very-secret" not in caplog.text
    assert caplog.records


def test_what_it_raises_for_the_client_goes_there() -> None:
    """An `ImagegateError`, and what dependencies of FastAPI raise."""

    def banned(scope: Scope) -> Principal:
        raise ImagegateError("The account is closed.", status=403, code="account_closed")

    def dependency(scope: Scope) -> Principal:
        raise HTTPException(401, "Token expired", headers={"WWW-Authenticate": "Bearer"})

    def broken(scope: Scope) -> Principal:
        raise HTTPException(500, "the database is at 10.0.0.1")

    with pytest.raises(ImagegateError, match="closed"):
        asyncio.run(host(banned).find(SCOPE))
    with pytest.raises(ImagegateError, match="Token expired") as expired:
        asyncio.run(host(dependency).find(SCOPE))
    assert (expired.value.status, expired.value.code) == (401, "invalid_api_key")
    assert expired.value.headers == [(b"www-authenticate", b"Bearer")]
    with pytest.raises(AccessUnavailable):
        asyncio.run(host(broken).find(SCOPE))


def scope_with(authorization: str) -> Scope:
    return {"type": "http", "headers": [(b"authorization", authorization.encode())]}


def test_keys_come_first_and_strangers_last() -> None:
    access = Authenticator({"ops": "sk-ops"}, host=host(lambda scope: None))
    assert asyncio.run(access.find(scope_with("Bearer sk-ops"))).key_name == "ops"
    for scope, code in ((SCOPE, "missing_api_key"), (scope_with("Basic eDp5"), "invalid_api_key")):
        with pytest.raises(AuthenticationError) as stranger:
            asyncio.run(access.find(scope))
        assert stranger.value.code == code


@pytest.mark.parametrize("name", ["ops", "key_0123"])
def test_no_principal_of_the_host_passes_for_a_key(name: str) -> None:
    """What belongs to a key's id is the key's, whatever users may call themselves."""
    access = Authenticator({"ops": "sk-ops"}, host=host(lambda scope: Principal(id=name)))
    with pytest.raises(AccessUnavailable):
        asyncio.run(access.find(SCOPE))


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError()])
@pytest.mark.parametrize("is_async", [True, False])
def test_what_is_no_exception_is_a_failure_too(error: BaseException, is_async: bool) -> None:
    """It ends one request with an answer, and neither the server nor the connection."""

    def plain(scope: Scope) -> Principal:
        raise error

    async def coroutine(scope: Scope) -> Principal:
        raise error

    with pytest.raises(AccessUnavailable):
        asyncio.run(host(coroutine if is_async else plain).find(SCOPE))


@pytest.mark.parametrize("name", ["x" * 513, "a\0b", "a\nb", "\ud800"])
def test_ids_that_no_database_takes(name: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        Principal(id=name)
    with pytest.raises(ValueError, match="the name of a group"):
        Principal(id="ada", groups={name: Limits()})
