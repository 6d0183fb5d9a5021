"""Moderation hooks: what they may answer, and what happens where they fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from imagegate import ConfigError, ImagegateError
from imagegate.errors import ContentWithheld, ModerationUnavailable, Overloaded, RequestError
from imagegate.http.guarded_fetch import Fetcher
from imagegate.moderation import ModeratedImage, ModeratedImages, ModerationRequest, Refuse, Replace, Withhold
from imagegate.moderation.inspector import Inspector
from imagegate.moderation.moderator import Moderator
from imagegate.protocol.messages import ReplyImage
from imagegate.telemetry.progress import Progress

REQUEST = ModerationRequest(operation="generations", model="m", prompt="A cat", fields={"prompt": "A cat"})
IMAGES = ModeratedImages([], principal=None, model="m", prompt="A cat")


class Hooks:
    """Answers, raises or waits, as the test says."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def before(self, *_: Any) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        if self.answer == "wait":
            await asyncio.sleep(60)
        return self.answer

    async def after(self, *_: Any) -> Any:
        return await self.before()


def before(answer: Any, **options: Any) -> Any:
    return asyncio.run(Moderator(Hooks(answer), **{"timeout": 0.05, **options}).before(REQUEST, None))


def after(answer: Any, **options: Any) -> Any:
    return asyncio.run(Moderator(Hooks(answer), **{"timeout": 0.05, **options}).after(IMAGES))


@pytest.mark.parametrize("answer", [None, Refuse("no"), Refuse("no", "model"), Replace("A dog")])
def test_verdicts_on_requests(answer: Any) -> None:
    assert before(answer) == answer


@pytest.mark.parametrize("answer", [None, Withhold("no")])
def test_verdicts_on_images(answer: Any) -> None:
    assert after(answer) == answer


BROKEN = [True, False, "no", Withhold("x"), Replace(" "), Replace("x" * 101), Replace(3), ValueError("A cat"), "wait"]
BROKEN += [SystemExit("A cat"), GeneratorExit(), asyncio.CancelledError()]


@pytest.mark.parametrize("answer", BROKEN)
def test_a_failure_refuses(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """By default; where the configuration says so, it lets pass. The log does not quote the prompt."""
    with caplog.at_level(logging.ERROR), pytest.raises(ModerationUnavailable) as failed:
        before(answer, max_prompt=100)
    assert (failed.value.status, failed.value.nothing_sent) == (503, True)
    assert caplog.records
    assert "A cat" not in caplog.text
    assert before(answer, max_prompt=100, fails_open=True) is None


@pytest.mark.parametrize("answer", [True, Refuse("x"), ValueError(), "wait"])
def test_a_failure_withholds(answer: Any) -> None:
    with pytest.raises(ModerationUnavailable):
        after(answer)
    assert after(answer, fails_open=True) is None


def test_errors_of_its_own_pass() -> None:
    with pytest.raises(ImagegateError, match="closed"):
        before(ImagegateError("closed", status=451), fails_open=True)


def test_reasons_are_bounded() -> None:
    assert len(before(Refuse("x" * 5000)).reason) == 1000
    assert len(after(Withhold("x" * 5000)).reason) == 1000


def test_one_hook_is_enough_and_none_is_a_mistake() -> None:
    class Before:
        def before(self, request: ModerationRequest, principal: None) -> Refuse:
            return Refuse("plain functions answer at once")

    moderator = Moderator(Before())
    assert (moderator.looks_before, moderator.looks_after) == (True, False)
    assert asyncio.run(moderator.before(REQUEST, None)) == Refuse("plain functions answer at once")
    assert asyncio.run(moderator.after(IMAGES)) is None
    with pytest.raises(ConfigError, match="must have a method 'before'"):
        Moderator(object())


def test_images_are_read_as_far_as_wanted() -> None:
    opened: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for place in range(4):
            opened.append(place)
            yield b"x" * 10

    image = ModeratedImage(open=pieces)
    images = ModeratedImages([image], principal=None, model="m", prompt="")
    assert (len(images), list(images), images[0], images[:1]) == (1, [image], image, (image,))
    assert asyncio.run(image.read(40)) == b"x" * 40
    with pytest.raises(ValueError, match="more than 15 bytes"):
        asyncio.run(image.read(15))
    assert opened == [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize(
    "error",
    [Overloaded("busy", headers=[(b"retry-after", b"1")]), RequestError("no", code="mine"), ImagegateError("x")],
)
def test_an_error_of_the_hook_withholds_images_that_are_paid_for(error: ImagegateError) -> None:
    """Whatever it says: not that nothing was sent, for which a client, or its SDK, would ask and pay again."""
    code = error.code or "content_policy_violation"
    inspector = Inspector(Moderator(Hooks(error)), cast("Fetcher", None))
    progress = Progress("generations")
    with pytest.raises(ContentWithheld) as raised:
        asyncio.run(inspector.check([ReplyImage(b64_json="eA==")], progress))
    assert (raised.value.message, raised.value.status, raised.value.code) == (error.message, error.status, code)
    assert raised.value.headers == [(b"x-should-retry", b"false")]
    assert not raised.value.nothing_sent
    assert progress.images_withheld == 1
