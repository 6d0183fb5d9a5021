"""The parts of one request: order, bounds, and what is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagegate.errors import UpstreamError, UpstreamRefused, UpstreamUncertain, UpstreamUnreachable
from imagegate.protocol.messages import ImageReply, ReplyImage
from imagegate.routing.parts import FanOut
from imagegate.routing.retry import Attempt, RetryPolicy
from imagegate.telemetry.progress import Progress

ATTEMPT = Attempt(place=0, pause=0, queue_timeout=0, until=None, is_retry=False)
BUSY = UpstreamRefused("Later.", status=429)


class Provider:
    """Makes parts of one image each, in its own time and with its own errors; counts what it is asked."""

    def __init__(self, errors: Callable[[int], BaseException | None] = lambda number: None) -> None:
        self.errors = errors
        self.asked = 0
        self.made = 0
        self.at_work = self.most_at_work = 0
        self.queue_timeout: list[float] = []

    async def __call__(self, place: int, n: int, attempt: Attempt) -> ImageReply:
        number, self.asked = self.asked, self.asked + 1
        self.queue_timeout.append(attempt.queue_timeout)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            for _ in range(7 - number % 7):  # later ones are faster
                await asyncio.sleep(0)
            if error := self.errors(number):
                raise error
        finally:
            self.at_work -= 1
        self.made += n
        return ImageReply(images=(ReplyImage(url=f"{number}"),) * n, created=number)


def run(
    provider: Provider, sizes: tuple[int, ...], *, retries: int = 2, parallel: int = 4, progress: Progress | None = None
) -> list[str]:
    """The links of all images, in order."""
    policy = RetryPolicy(retries=retries, backoff=0.001)
    parts = FanOut(
        sizes,
        provider,
        parallel=parallel,
        policy=policy,
        random=lambda: 0.5,
        progress=progress or Progress("generations"),
    )
    replies = asyncio.run(parts.run(ATTEMPT))
    return [str(image.url) for reply in replies for image in reply.images]


def test_order_is_kept_and_so_is_the_bound() -> None:
    """Whichever part is ready first, and no more at a time than allowed."""
    provider = Provider()
    assert run(provider, (2, 2, 1, 1, 1), parallel=2) == ["0", "0", "1", "1", "2", "3", "4"]
    assert (provider.asked, provider.most_at_work) == (5, 2)


def test_only_the_first_part_is_impatient() -> None:
    """Where it gets no place, another candidate may; where it does, the others wait for theirs."""
    provider = Provider()
    run(provider, (1, 1, 1))
    assert provider.queue_timeout == [0, 10, 10]


def test_a_refused_part_is_asked_for_again_alone() -> None:
    """What was made is kept and paid once."""
    provider, progress = Provider(lambda number: BUSY if number == 1 else None), Progress("generations")
    assert run(provider, (1, 1, 1), progress=progress) == ["0", "3", "2"]
    assert (provider.asked, provider.made, progress.retries) == (4, 3, 1)


def test_where_nothing_was_made_nothing_is_asked_for_again() -> None:
    """The whole may go elsewhere, which is not for the parts to decide."""
    provider = Provider(lambda number: BUSY)
    with pytest.raises(UpstreamError) as caught:
        run(provider, (1, 1, 1))
    assert (caught.value, provider.asked, caught.value.made) == (BUSY, 3, ())


@pytest.mark.parametrize(
    "error",
    [
        UpstreamUncertain("Cut."),
        UpstreamRefused("Wrong.", status=400),
        UpstreamRefused("Tomorrow.", status=429, retry_after=3600),
        UpstreamRefused("Not implemented.", status=501),
    ],
)
def test_what_must_not_or_need_not_be_asked_again_is_an_error_with_what_was_made(error: UpstreamError) -> None:
    """The other parts are listed, and nobody pays for them again."""
    provider = Provider(lambda number: error if number == 1 else None)
    with pytest.raises(UpstreamUncertain) as caught:
        run(provider, (1, 1, 1))
    assert (provider.asked, len(caught.value.made)) == (3, 2)
    assert (caught.value.status, caught.value.message) == (
        error.status,
        f"2 of 3 images were made, then: {error.message}",
    )


def test_retries_end() -> None:
    """A part that is always refused is asked for `retries` times more."""
    provider = Provider(lambda number: BUSY if number >= 2 else None)
    with pytest.raises(UpstreamUncertain, match=r"2 of 3 images were made"):
        run(provider, (1, 1, 1), retries=3)
    assert provider.asked == 6


def test_no_retry_outlasts_the_deadline() -> None:
    """There is no pause that ends after it."""
    provider = Provider(lambda number: BUSY if number == 1 else None)

    async def test() -> None:
        until = asyncio.get_running_loop().time() + 0.1
        policy = RetryPolicy(retries=3, backoff=60, longest_wait=60)
        parts = FanOut(
            (1, 1), provider, parallel=2, policy=policy, random=lambda: 0.5, progress=Progress("generations")
        )
        await parts.run(msgspec.structs.replace(ATTEMPT, until=until))

    with pytest.raises(UpstreamUncertain, match="1 of 2 images were made"):
        asyncio.run(test())
    assert provider.asked == 2


def test_a_mistake_of_ours_is_told_as_it_is() -> None:
    """It is not hidden behind what the provider made."""
    provider = Provider(lambda number: ValueError("a mistake of ours") if number == 1 else None)
    with pytest.raises(ValueError, match="a mistake of ours"):
        run(provider, (1, 1))


def test_cancelling_ends_every_part() -> None:
    """Nothing is left running when the client leaves."""
    provider = Provider()

    async def test() -> None:
        parts = FanOut(
            (1,) * 6,
            provider,
            parallel=6,
            policy=RetryPolicy(),
            random=lambda: 0.5,
            progress=Progress("generations"),
        )
        task = asyncio.create_task(parts.run(ATTEMPT))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (provider.at_work, provider.asked > 0) == (0, True)

    asyncio.run(test())


def test_a_part_that_is_cancelled_from_below_is_missed() -> None:
    """There is no reply with fewer images, whoever cancelled the request for the others."""
    provider = Provider(lambda number: asyncio.CancelledError() if number == 1 else None)
    with pytest.raises(UpstreamUncertain, match="1 of 2 images were made"):
        run(provider, (1, 1))


REFUSED = UpstreamRefused("No.", status=400)
ERRORS = [None, None, BUSY, UpstreamUnreachable("Refused."), UpstreamUncertain("Cut."), REFUSED]


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from(ERRORS), max_size=20),
    st.lists(st.integers(1, 3), min_size=2, max_size=5),
    st.integers(0, 2),
)
def test_all_or_an_error_that_lists_what_was_made(
    history: list[UpstreamError | None], sizes: list[int], retries: int
) -> None:
    """Whatever the provider does: never fewer than asked, nothing made is forgotten, nothing is asked for in vain."""
    provider = Provider(lambda number: history[number] if number < len(history) else None)
    error: UpstreamError | None = None
    links: list[str] = []
    try:
        links = run(provider, tuple(sizes), retries=retries)
    except UpstreamError as failure:
        error = failure
    assert provider.made == (len(links) if error is None else len(error.made))
    assert (error is None) is (provider.made == sum(sizes))
    assert provider.asked <= len(sizes) * (retries + 1)
    final = [place for place, refusal in enumerate(history[: provider.asked]) if refusal and not refusal.is_retryable]
    # Those that are at work beside a failure that ends everything may still end; none is begun after them.
    assert not final or provider.asked <= final[0] + len(sizes)
