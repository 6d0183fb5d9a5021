"""Calls an application's moderation hooks: for a bounded time, and by a rule for when they fail."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable
from typing import Any, Final

from imagegate.access.principal import Principal
from imagegate.asgi.background import is_cancelled
from imagegate.errors import ConfigError, ImagegateError, ModerationUnavailable
from imagegate.logger import get_logger
from imagegate.moderation.subjects import ModeratedImages, ModerationRequest
from imagegate.moderation.verdicts import Refuse, Replace, Withhold

_LONGEST_REASON: Final = 1000
"""Characters."""


class Moderator:
    """The hooks of a gateway.

    Args:
        hooks: has ``async before(request, principal)``, ``async after(images)``, or both.
        timeout: seconds for one call.
        fails_open: whether what could not be asked about passes; else it is refused.
        max_prompt: characters of a prompt.

    Raises:
        ConfigError: `hooks` has neither.
    """

    def __init__(
        self, hooks: object, *, timeout: float = 10.0, fails_open: bool = False, max_prompt: int = 32_000
    ) -> None:
        self._before: Callable[[ModerationRequest, Principal | None], Any] | None = getattr(hooks, "before", None)
        self._after: Callable[[ModeratedImages], Any] | None = getattr(hooks, "after", None)
        if not callable(self._before) and not callable(self._after):
            raise ConfigError("moderation.hooks: must have a method 'before', a method 'after', or both")
        self._timeout = timeout
        self._fails_open = fails_open
        self._max_prompt = max_prompt

    @property
    def looks_before(self) -> bool:
        """Whether there is a hook for requests."""
        return self._before is not None

    @property
    def looks_after(self) -> bool:
        """Whether there is a hook for images."""
        return self._after is not None

    async def before(self, request: ModerationRequest, principal: Principal | None) -> Refuse | Replace | None:
        """Ask about a request. Raises `ModerationUnavailable`, or an `ImagegateError` of the hook's own."""
        hook = self._before
        if hook is None:
            return None
        found = await self._ask("before", lambda: hook(request, principal))
        if isinstance(found, Refuse):
            return Refuse(found.reason[:_LONGEST_REASON], found.field)
        if found is None or (isinstance(found, Replace) and self._is_prompt(found.prompt)):
            return found
        self._reject("before")
        return None

    async def after(self, images: ModeratedImages) -> Withhold | None:
        """Ask about images. Raises as `before`."""
        hook = self._after
        if hook is None:
            return None
        found = await self._ask("after", lambda: hook(images))
        if isinstance(found, Withhold):
            return Withhold(found.reason[:_LONGEST_REASON])
        if found is not None:
            self._reject("after")
        return None

    async def _ask(self, name: str, hook: Callable[[], Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                found = hook()
                return await found if inspect.isawaitable(found) else found
        except ImagegateError:
            raise
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            _log(name, error)  # the hook's own
        except (Exception, SystemExit, GeneratorExit) as error:  # which must not end the server
            _log(name, error)
        self._refuse_unless_open()
        return None

    def _reject(self, name: str) -> None:
        """Treat what a hook returned as a failure."""
        get_logger().error("a moderation hook returned something that is no verdict, or an unusable prompt", hook=name)
        self._refuse_unless_open()

    def _refuse_unless_open(self) -> None:
        if not self._fails_open:
            raise ModerationUnavailable

    def _is_prompt(self, text: object) -> bool:
        return isinstance(text, str) and bool(text.strip()) and len(text) <= self._max_prompt


def _log(hook: str, error: BaseException) -> None:
    """Log where a hook failed, without the text of its error, which may quote the prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    get_logger().error("a moderation hook failed", hook=hook, error=type(error).__name__, where=where)
