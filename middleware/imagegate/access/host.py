"""Principals that an application knows: its function is asked, for a bounded time and by a bounded number at once."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.types import Scope

from imagegate.access.principal import Principal
from imagegate.asgi.background import is_cancelled
from imagegate.asgi.in_flight import Permits
from imagegate.errors import ImagegateError, Overloaded
from imagegate.logger import get_logger

PrincipalSource = Callable[[Scope], Principal | Awaitable[Principal | None] | None]
"""Returns who a request is from, from its ASGI scope, or awaits it; None: a stranger, who is answered 401."""
_THREADS: Final = 8


class AccessUnavailable(Overloaded):
    """Who a request is from cannot be found out at the moment."""

    code = "access_unavailable"

    def __init__(self) -> None:
        super().__init__("Access cannot be checked at the moment. Retry later.", headers=[(b"retry-after", b"1")])

    @property
    def nothing_sent(self) -> bool:
        return True


class HostPrincipals:
    """Asks an application's function: a coroutine function in the event loop, any other in a thread of its own.

    Args:
        source: returns who a request is from.
        timeout: seconds for one question.
        at_once: questions at a time; more are answered 503.
    """

    def __init__(self, source: PrincipalSource, *, timeout: float, at_once: int) -> None:
        self._source = source
        self._timeout = timeout
        self._permits = Permits(at_once)
        self._is_async = inspect.iscoroutinefunction(source) or inspect.iscoroutinefunction(
            getattr(source, "__call__", None)  # noqa: B004 - an object whose call is a coroutine function
        )
        self._threads: ThreadPoolExecutor | None = None

    async def find(self, scope: Scope) -> Principal | None:
        """Return who a request is from; None: a stranger.

        Raises:
            AccessUnavailable: the function failed, took too long, or has too many questions before it.
            ImagegateError: that the function raised itself, or made of its `starlette.exceptions.HTTPException`.
        """
        try:
            async with asyncio.timeout(self._timeout):
                found = await (self._awaited(scope) if self._is_async else self._in_thread(scope))
        except ImagegateError:
            raise
        except HTTPException as error:
            if 400 <= error.status_code < 500:
                raise _as_error(error) from None
            raise _failed(error) from None
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            raise _failed(error) from None  # the function's own
        except (Exception, SystemExit, GeneratorExit) as error:  # which must not end the server
            raise _failed(error) from None
        if found is None or isinstance(found, Principal):
            return found
        get_logger().error("the access function returned something else than a Principal", found=type(found).__name__)
        raise AccessUnavailable

    async def _awaited(self, scope: Scope) -> Any:
        permit = self._permits.take()
        if permit is None:
            raise AccessUnavailable
        try:
            found = self._source(scope)
            return await found if inspect.isawaitable(found) else found
        finally:
            permit.release()

    async def _in_thread(self, scope: Scope) -> Any:
        permit = self._permits.take()
        if permit is None:
            raise AccessUnavailable
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="imagegate-access")
        loop = asyncio.get_running_loop()
        future = self._threads.submit(contextvars.copy_context().run, self._source, scope)

        def release(_: Future[Any]) -> None:  # an abandoned thread still counts
            if not loop.is_closed():
                loop.call_soon_threadsafe(permit.release)

        future.add_done_callback(release)
        found = await asyncio.wrap_future(future)
        return await found if inspect.isawaitable(found) else found

    def close(self) -> None:
        """Let the threads end."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


def _failed(error: BaseException) -> AccessUnavailable:
    """Log where a function failed, without the text of its error, which may quote a credential."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    get_logger().error("the access function failed", error=type(error).__name__, where=where)
    return AccessUnavailable()


def _as_error(error: HTTPException) -> ImagegateError:
    """Return what a dependency of FastAPI or Starlette raises, in OpenAI's envelope."""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (error.headers or {}).items()
    ]
    return ImagegateError(
        str(error.detail),
        status=error.status_code,
        type="invalid_request_error",
        code="invalid_api_key" if error.status_code == 401 else "access_denied",
        headers=headers,
    )
