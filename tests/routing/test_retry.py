"""Who is asked next, and after what pause; what each error allows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.errors import (
    AuthenticationError,
    ImagegateError,
    ModerationBlocked,
    Overloaded,
    RequestError,
    StorageError,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnavailable,
    UpstreamUncertain,
    UpstreamUnreachable,
)
from imagegate.routing.retry import Attempt, Attempts, RetryPolicy


def refused(status: int, code: str | None = None, retry_after: float | None = None) -> UpstreamRefused:
    return UpstreamRefused("No.", status=status, code=code, retry_after=retry_after)


def given_up() -> UpstreamRefused:
    error = UpstreamRefused("The task failed.", status=502)
    error.ends_task = True
    return error


BUSY = UpstreamUnavailable("Full.", code="upstream_busy", retry_after=1)
SHUT = UpstreamUnavailable("Open.", retry_after=30)
WRONG = RequestError("Too large.", param="size")
UNREACHABLE = UpstreamUnreachable("Refused.")
UNCERTAIN = UpstreamUncertain("Reset.")
MODERATED = ModerationBlocked("Not this.")


@pytest.mark.parametrize(
    ("error", "elsewhere", "again", "blames"),
    [
        (UNREACHABLE, True, True, True),
        (UNCERTAIN, False, False, True),
        (refused(429), True, True, False),
        (refused(429, "insufficient_quota"), True, False, False),
        (refused(408), True, True, True),
        (refused(409), True, True, False),
        (refused(500), True, True, True),
        (refused(503), True, True, True),
        (refused(501), True, False, True),
        (refused(503, "model_not_found"), True, False, False),
        (UpstreamRefused("No.", status=500, type="invalid_request_error"), True, False, False),
        (given_up(), True, False, True),
        (refused(400), False, False, False),
        (refused(401), False, False, False),
        (refused(402), False, False, False),
        (refused(404), False, False, False),
        (MODERATED, False, False, False),
        (BUSY, True, True, False),
        (SHUT, True, False, False),
        (WRONG, True, False, False),
        (AuthenticationError("No key."), True, False, False),
        (StorageError("Full."), False, False, False),
        (Overloaded("Full."), False, False, False),
        (ImagegateError("What?"), False, False, False),
    ],
    ids=lambda value: f"{type(value).__name__}-{value.status}" if isinstance(value, ImagegateError) else None,
)
def test_what_an_error_allows(error: ImagegateError, elsewhere: bool, again: bool, blames: bool) -> None:
    """The one classification: another candidate, the same one again, and whether the breaker counts it."""
    assert (elsewhere, again, blames) == (error.allows_fallback, error.is_retryable, error.counts_against_breaker)


@given(
    st.sampled_from(["not_sent", "rejected", "uncertain"]),
    st.integers(300, 599),
    st.sampled_from([None, "own_code", "insufficient_quota"]),
    st.booleans(),
)
def test_what_may_have_been_made_allows_nothing(outcome: str, status: int, code: str | None, ends_task: bool) -> None:
    """Whatever else an error says: uncertain goes nowhere, and nothing is asked again that may not go elsewhere."""
    error = UpstreamError("No.", status=status, code=code)
    error.outcome, error.ends_task = outcome, ends_task  # type: ignore[assignment]
    policy = RetryPolicy(fall_back_on=frozenset(range(401, 500)))
    if outcome == "uncertain":
        assert (error.allows_fallback, error.is_retryable, policy.allows_fallback(error)) == (False, False, False)
    assert error.allows_fallback or not error.is_retryable


def test_a_status_of_the_configuration_goes_elsewhere() -> None:
    """402 where the policy says so; moderation, which other providers hide behind the same status, never."""
    policy = RetryPolicy(fall_back_on=frozenset({402, 403}))
    assert policy.allows_fallback(refused(402))
    assert not policy.allows_fallback(refused(404))
    assert not policy.allows_fallback(ModerationBlocked("Flagged.", status=403))
    assert not policy.allows_fallback(UpstreamUncertain("Cut.", status=402))


@pytest.mark.parametrize("error", [UpstreamUncertain("Cut."), refused(400), refused(500), UpstreamUnreachable("No.")])
def test_what_is_not_paid_for_is_never_uncertain(error: UpstreamError) -> None:
    """A file that perhaps was uploaded may be uploaded again; a refusal stays one."""
    before = error.outcome
    error.costs_nothing()
    assert error.outcome == ("not_sent" if before == "uncertain" else before)
    assert (b"x-should-retry", b"false") not in error.headers
    assert error.is_retryable is (error.status >= 500)


# Pauses

SHARES = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 1000), SHARES, st.floats(0.001, 100), st.floats(0.001, 1000))
def test_backoff_is_exponential_with_full_jitter(retry: int, share: float, backoff: float, longest: float) -> None:
    """From nothing up to twice as long each time, and never above the bound."""
    policy = RetryPolicy(backoff=backoff, longest_wait=longest)
    pause = policy.pause(retry, None, lambda: share)
    assert pause == pytest.approx(share * min(backoff * 2 ** min(retry, 32), longest))
    assert 0 <= pause <= longest


@given(st.integers(0, 10), SHARES, st.floats(0, 100))
def test_retry_after_is_honoured_up_to_a_bound(retry: int, share: float, asked: float) -> None:
    """Never earlier than the provider wants; where that is too late, not at all."""
    pause = RetryPolicy(backoff=0.5, longest_wait=10).pause(retry, asked, lambda: share)
    if asked > 10:
        assert pause is None
    else:
        assert pause is not None
        assert asked <= pause <= 10


# The order


def drive(
    errors: Sequence[Sequence[ImagegateError]], policy: RetryPolicy | None = None, **options: float
) -> tuple[list[int], Attempts, list[Attempt]]:
    """Asks until nobody is left or an error ends it; candidate `i` answers with `errors[i]`, the last one for ever."""
    attempts = Attempts(len(errors), policy or RetryPolicy(), lambda: 0.5, **options)  # type: ignore[arg-type]
    asked: list[int] = []
    steps: list[Attempt] = []
    now = 0.0
    while attempt := attempts.next(now):
        now += attempt.pause
        place = attempt.place
        error = errors[place][min(asked.count(place), len(errors[place]) - 1)]
        asked.append(place)
        steps.append(attempt)
        if not attempts.failed(place, error, now):
            break
        assert len(asked) < 100
    return asked, attempts, steps


@pytest.mark.parametrize(
    ("errors", "retries", "expected"),
    [
        ([[refused(500)]], 2, [0, 0, 0]),
        ([[refused(500)]], 0, [0]),
        ([[refused(500)], [refused(503)]], 0, [0, 1]),
        ([[refused(500), UNCERTAIN]], 5, [0, 0]),
        ([[refused(500)], [UNCERTAIN]], 5, [0, 1]),
        ([[refused(400)], [refused(500)]], 5, [0]),
        ([[WRONG], [refused(500)]], 1, [0, 1, 1]),
        ([[WRONG], [WRONG]], 5, [0, 1]),
        ([[SHUT]], 5, [0]),
        ([[SHUT], [refused(429)]], 1, [0, 1, 1]),
        ([[BUSY]], 5, [0, 0]),
        ([[BUSY], [BUSY]], 5, [0, 1, 0, 1]),
        ([[refused(429, retry_after=60)]], 5, [0]),
        ([[refused(429, retry_after=60)], [refused(500)]], 1, [0, 1, 1]),
        ([[refused(501)], [given_up()]], 3, [0, 1]),
    ],
)
def test_who_is_asked(errors: Sequence[Sequence[ImagegateError]], retries: int, expected: list[int]) -> None:
    """Everybody once before anybody twice, and nobody in vain."""
    assert expected == drive(errors, RetryPolicy(retries=retries))[0]


def test_who_may_be_asked_first_is() -> None:
    """Of two that may be asked again the one that wants the shorter pause."""
    asked, _, steps = drive([[refused(429, retry_after=8)], [refused(500)]], RetryPolicy(retries=1, backoff=1))
    assert asked == [0, 1, 1, 0]
    assert [step.pause for step in steps[:3]] == [0, 0, 0.5]
    assert steps[3].pause == pytest.approx(8.0)


def test_a_place_is_waited_for_when_nobody_else_is_left() -> None:
    """At first nobody waits: another candidate may have a place."""
    asked, _, steps = drive([[BUSY], [refused(500)]], RetryPolicy(retries=0, queue_timeout=7))
    assert asked == [0, 1, 0]
    assert [step.queue_timeout for step in steps] == [0, 0, 7]


def test_waits_for_places_add_up_to_the_bound() -> None:
    """A second full candidate is not waited for as long as the first once more."""
    attempts = Attempts(2, RetryPolicy(queue_timeout=5), lambda: 0.5)
    for place in (0, 1):
        attempts.failed(place, BUSY, 0)
    assert attempts.next(0) == Attempt(0, 0, 5, None, False)
    attempts.failed(0, BUSY, 5, waited=5)
    assert attempts.next(5) == Attempt(1, 0, 0, None, False)
    attempts.failed(1, BUSY, 5)
    assert attempts.next(5) is None


def test_no_pause_outlasts_the_deadline() -> None:
    """Where the exchange would be over soon after the retry, the error comes now: an answer needs time."""
    again, _, _ = drive([[refused(500)]], RetryPolicy(retries=3, backoff=2), until=1.0)
    assert again == [0]
    attempts = Attempts(1, RetryPolicy(queue_timeout=9), lambda: 0.5, until=4.0)
    attempts.failed(0, BUSY, 1)
    assert attempts.next(1) == Attempt(0, 0, 1.5, 4.0, False)


def test_a_form_that_comes_again_has_used_up_a_try() -> None:
    """Its first try was that of other attempts, and is not counted as a retry twice."""
    attempts = Attempts(1, RetryPolicy(retries=1), lambda: 0.5, asked=1)
    first = attempts.next(0)
    assert first is not None
    assert not first.is_retry
    attempts.failed(0, refused(500), 0)
    assert attempts.next(0) is None


@pytest.mark.parametrize(
    ("errors", "place"),
    [
        ([[refused(500)], [refused(503)]], 0),
        ([[SHUT], [refused(500)]], 1),
        ([[WRONG], [SHUT]], 1),
        ([[WRONG], [refused(500)]], 1),
        ([[WRONG], [RequestError("No.")]], 0),
        ([[refused(500), SHUT], [SHUT]], 0),
        ([[BUSY], [SHUT]], 0),
    ],
)
def test_whose_error_is_told(errors: Sequence[Sequence[ImagegateError]], place: int) -> None:
    """The best candidate that was asked; else the best that may be later; else the best."""
    _, attempts, _ = drive(errors, RetryPolicy(retries=1))
    assert (place, errors[place][0]) == attempts.error


ERRORS = st.sampled_from(
    [UNREACHABLE, refused(429, retry_after=3), refused(429, retry_after=90), refused(500), BUSY, SHUT]
)
ENDINGS = st.sampled_from([UNCERTAIN, refused(400), MODERATED, WRONG])


@given(
    st.lists(st.lists(ERRORS | ENDINGS, min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(0, 4),
    st.floats(1, 100) | st.none(),
)
def test_nobody_is_asked_too_often(errors: list[list[ImagegateError]], retries: int, until: float | None) -> None:
    """In any history: nothing after an uncertain error, `retries` and no more, no pause too long or too late."""
    policy = RetryPolicy(retries=retries, longest_wait=10, queue_timeout=10)
    attempts = Attempts(len(errors), policy, lambda: 0.5, until=until)
    sent = [0] * len(errors)
    visits = [0] * len(errors)
    now = 0.0
    while attempt := attempts.next(now):
        assert 0 <= attempt.pause <= 10
        assert until is None or not any(visits) or now + 2 * attempt.pause < until + 1e-9
        assert until is None or attempt.queue_timeout <= max(until - now - attempt.pause, 0.0) / 2
        assert attempt.is_retry is (sent[attempt.place] > 0)
        now += attempt.pause
        error = errors[attempt.place][visits[attempt.place] % len(errors[attempt.place])]
        visits[attempt.place] += 1
        sent[attempt.place] += not isinstance(error, UpstreamUnavailable)
        if not attempts.failed(attempt.place, error, now):
            assert not policy.allows_fallback(error)
            return
        assert policy.allows_fallback(error)
    assert max(sent) <= retries + 1
    assert max(visits) <= retries + 3
    assert all(visits) or (until is not None and now >= until)
    assert isinstance(attempts.error[1], ImagegateError)


@given(st.integers(1, 6))
def test_everybody_is_asked_once_in_order_first(count: int) -> None:
    """Falling back comes before asking again."""
    asked, _, _ = drive([[refused(500)]] * count, RetryPolicy(retries=2))
    assert list(range(count)) == asked[:count]
    assert 3 * count == len(asked)
    assert all(asked.count(place) == 3 for place in range(count))
    assert any(now != then for now, then in pairwise(asked)) or count == 1
