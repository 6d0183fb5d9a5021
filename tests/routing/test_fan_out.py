"""Fan-out: one request as several, and several replies as one."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.errors import ModerationBlocked, UpstreamRefused, UpstreamUncertain
from imagegate.protocol.messages import ImageReply, ReplyImage
from imagegate.routing.fan_out import gravest, incomplete, merge, shares


def reply(*urls: str, created: int = 1, **fields: object) -> ImageReply:
    return ImageReply(images=tuple(ReplyImage(url=url) for url in urls), created=created, fields=fields)


@pytest.mark.parametrize(
    ("n", "most", "expected"),
    [(1, 1, (1,)), (5, 2, (2, 2, 1)), (4, 2, (2, 2)), (3, 10, (3,)), (10, 10, (10,)), (3, 1, (1, 1, 1))],
)
def test_n_is_divided_into_few_parts(n, most, expected):
    """Parts are as large as the model makes, and the rest comes last."""
    assert expected == shares(n, most)


@given(st.integers(1, 1000), st.integers(1, 100))
def test_parts_add_up(n, most):
    """Nothing is lost or asked for twice, and there are no more parts than needed."""
    parts = shares(n, most)
    assert (n, ceil(n / most)) == (sum(parts), len(parts))
    assert all(1 <= part <= most for part in parts)


def test_images_are_merged_in_order_with_all_that_they_carry():
    """The first reply's images come first, and each keeps its own members."""
    first = ImageReply(images=(ReplyImage(url="a", fields={"revised_prompt": "x"}),), created=5, fields={"size": "s"})
    second = ImageReply(images=(ReplyImage(b64_json="AAAA"), ReplyImage(url="b")), created=9, fields={"size": "t"})
    expected = ImageReply(images=(*first.images, *second.images), created=5, fields={"size": "s"})
    assert expected == merge([first, second])


def test_usage_is_added_up_in_depth():
    """Numbers are summed member by member, text is that of the first."""
    usages = [
        {"total_tokens": 10, "input_tokens_details": {"text_tokens": 1, "image_tokens": 0}, "unit": "tokens"},
        {"total_tokens": 5, "input_tokens_details": {"text_tokens": 2}, "cost": 0.5, "unit": "credits"},
        {"total_tokens": 1, "output_tokens_details": {"image_tokens": 7}, "cost": 0.25},
    ]
    expected = {
        "total_tokens": 16,
        "input_tokens_details": {"text_tokens": 3, "image_tokens": 0},
        "output_tokens_details": {"image_tokens": 7},
        "unit": "tokens",
        "cost": 0.75,
    }
    assert expected == merge([reply("u", usage=usage) for usage in usages]).fields["usage"]


def test_usage_that_only_some_replies_have_is_kept():
    """A reply without usage does not hide that of the others."""
    merged = merge([reply("a"), reply("b", usage={"total_tokens": 3}), reply("c", usage=None)])
    assert merged.fields == {"usage": {"total_tokens": 3}}


def test_a_member_of_usage_that_is_null_counts_as_nothing():
    """A provider that says null first does not hide what the next part used."""
    merged = merge([reply("a", usage={"cached_tokens": None}), reply("b", usage={"cached_tokens": 4})])
    assert merged.fields == {"usage": {"cached_tokens": 4}}


def test_merging_one_reply_changes_nothing():
    """One part is the whole."""
    only = reply("a", "b", created=7, usage={"total_tokens": 3}, background="opaque")
    assert only == merge([only])


def test_merging_leaves_its_sources_alone():
    """The usage of the first reply is not added to in place."""
    first = reply("a", usage={"total_tokens": 1, "details": {"text_tokens": 1}})
    merge([first, reply("b", usage={"total_tokens": 2, "details": {"text_tokens": 2}})])
    assert first.fields == {"usage": {"total_tokens": 1, "details": {"text_tokens": 1}}}


def test_a_failure_before_anything_was_made_stays_what_it_is():
    """With no image made the part's error is the whole's, and may be retried like it."""
    error = UpstreamRefused("No.", status=429, retry_after=3)
    assert incomplete(error, [], 4) is error


@pytest.mark.parametrize(
    "error",
    [
        UpstreamRefused("Too many.", status=429, code="rate_limit_exceeded", type="rate_limit_error", param="n"),
        UpstreamRefused("Broken.", status=500, code="server_error"),
        UpstreamUncertain("Timed out.", status=504, code="upstream_timeout"),
        ModerationBlocked("Refused for its content.", code="content_policy_violation"),
    ],
    ids=["rate", "server", "timeout", "moderation"],
)
def test_a_failure_after_something_was_made_lists_it_and_is_not_paid_again(error):
    """The error says how many images were made and where they are, and goes nowhere else."""
    whole = incomplete(error, [reply("a", "b"), reply("c")], 4)
    assert f"3 of 4 images were made, then: {error.message}" == whole.message
    assert (error.status, error.code, error.type, error.param) == (whole.status, whole.code, whole.type, whole.param)
    assert [image.url for image in whole.made] == ["a", "b", "c"]
    assert (whole.allows_fallback, (b"x-should-retry", b"false") in whole.headers) == (False, True)


def test_what_the_error_knew_is_kept():
    """The provider's request id survives in the error of the whole."""
    error = UpstreamRefused("No.", request_id="req_1")
    assert incomplete(error, [reply("a")], 2).details["upstream_request_id"] == "req_1"


def test_what_the_failed_part_itself_had_made_is_listed_too():
    """A part may have failed after some of its own images."""
    error = UpstreamUncertain("1 of 2 images were made, then: No.")
    error.made = (ReplyImage(b64_json="AAAA"),)
    whole = incomplete(error, [reply("a")], 4)
    assert whole.made == (ReplyImage(url="a"), ReplyImage(b64_json="AAAA"))
    assert whole.message.startswith("2 of 4 images were made, then: ")


REFUSED = UpstreamRefused("No.", status=400)
BUSY = UpstreamRefused("Later.", status=429)
UNCERTAIN = UpstreamUncertain("Cut.")
UNKNOWN = ValueError("a mistake of ours")


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([BUSY, UNCERTAIN, REFUSED], UNCERTAIN),
        ([BUSY, REFUSED], REFUSED),
        ([REFUSED, BUSY], REFUSED),
        ([BUSY], BUSY),
        ([BUSY, UNCERTAIN, UNKNOWN], UNKNOWN),
        ([UNCERTAIN, UpstreamUncertain("Later.")], UNCERTAIN),
    ],
)
def test_of_several_failures_the_gravest_counts(failures, expected):
    """What may have been paid forbids another try, whatever the other parts say."""
    assert gravest(failures) is expected
