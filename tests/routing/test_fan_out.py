"""Fan-out: one request as several, and several replies as one."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.contracts.contract import Contract
from imagegate.contracts.documents import load_contracts
from imagegate.contracts.parameter import Parameter
from imagegate.errors import ModerationBlocked, NoRoom, Overloaded, StorageError, UpstreamRefused, UpstreamUncertain
from imagegate.protocol.messages import Exchange, ImageReply, ImageRequest, ReplyImage, Target
from imagegate.registry import load_adapter
from imagegate.routing.fan_out import gravest, image_shares, incomplete, merge, part_of, seeds_of, shares


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


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        ("gpt-image-2.6-flare", {"n": 3}, (3,)),
        ("gpt-image-2.6-flare", {"n": 3, "output_format": "svg"}, (1, 1, 1)),
        ("gpt-image-2.6-flare", {"n": 3, "output_format": "gif"}, (3,)),
        ("gpt-image-2", {"n": 3, "output_format": "svg"}, (3,)),
    ],
)
def test_what_is_for_one_image_is_several_requests(model, fields, expected):
    """openai-python 3.57: "SVG generation requires n=1"."""
    contract = load_contracts(load_adapter("openai").contracts())[model]
    request = ImageRequest(operation="generations", fields={"model": model, "prompt": "A hat", **fields})
    exchange = Exchange(
        request=request,
        public_model=model,
        operation="generations",
        target=Target(upstream="openai", model=model, contract=contract),
    )
    assert image_shares(exchange, 10) == expected


def test_images_are_merged_in_order_with_all_that_they_carry():
    """The first reply's images come first, and each keeps its own members."""
    first = ImageReply(images=(ReplyImage(url="a", fields={"revised_prompt": "x"}),), created=5, fields={"size": "s"})
    second = ImageReply(images=(ReplyImage(b64_json="AAAA"), ReplyImage(url="b")), created=9, fields={"size": "s"})
    expected = ImageReply(images=(*first.images, *second.images), created=5, fields={"size": "s"})
    assert expected == merge([first, second])


def test_what_replies_do_not_agree_on_is_told_of_their_images():
    """A seed made the images of its own reply, which know it better where they have one themselves."""
    first = reply("a", "b", seed=101, background="opaque")
    second = ImageReply(
        images=(ReplyImage(url="c", fields={"seed": 7, "index": 0}), ReplyImage(url="d")),
        created=1,
        fields={"seed": 102, "background": "opaque", "request_id": "r2"},
    )
    merged = merge([first, second])
    assert merged.fields == {"background": "opaque"}
    assert [image.fields for image in merged.images] == [
        {"seed": 101},
        {"seed": 101},
        {"seed": 7, "request_id": "r2"},
        {"seed": 102, "request_id": "r2"},
    ]


def test_what_was_billed_is_added_up():
    """Recraft says what a reply cost beside its images; what is no number is told of each reply's."""
    assert merge([reply("a", credits=240), reply("b", credits=80)]).fields == {"credits": 320}
    odd = merge([reply("a", credits=240), reply("b", credits="80")])
    assert odd.fields == {}
    assert [image.fields for image in odd.images] == [{"credits": 240}, {"credits": "80"}]


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
        Overloaded("The gateway waited for a permit in vain."),
    ],
    ids=["rate", "server", "timeout", "moderation", "ours"],
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
OURS = Overloaded("No room.")
NOT_SENT = NoRoom()
LOST = StorageError("The picture was made, and could not be stored.")
UNKNOWN = ValueError("a mistake of ours")


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([BUSY, UNCERTAIN, REFUSED], UNCERTAIN),
        ([BUSY, REFUSED], REFUSED),
        ([REFUSED, BUSY], REFUSED),
        ([BUSY], BUSY),
        ([BUSY, UNCERTAIN, UNKNOWN], UNKNOWN),
        ([OURS, UNCERTAIN, BUSY], UNCERTAIN),
        ([BUSY, OURS], OURS),
        ([NOT_SENT, LOST, BUSY], LOST),
        ([BUSY, NOT_SENT, REFUSED], REFUSED),
        ([UNCERTAIN, UpstreamUncertain("Later.")], UNCERTAIN),
    ],
)
def test_of_several_failures_the_gravest_counts(failures, expected):
    """What may have been paid forbids another try, whatever the other parts say."""
    assert gravest(failures) is expected


def exchange(*, seed: object = None, from_form: bool = False, low: int = 0, high: int = 99) -> Exchange:
    fields = {"model": "m", "prompt": "a hat", "n": 5} | ({} if seed is None else {"seed": seed})
    request = ImageRequest(operation="generations", fields=fields, from_form=from_form)
    parameters = {"n": Parameter(type="integer", max=2), "seed": Parameter(type="integer", min=low, max=high)}
    target = Target(upstream="u", model="m", contract=Contract(parameters=parameters))
    return Exchange(request=request, public_model="m", operation="generations", target=target)


@pytest.mark.parametrize(
    ("seed", "expected"),
    [(7, (7, 9, 11)), (98, (98, 0, 2)), (99, (99, 1, 3)), (None, ()), ("7", ()), (True, ()), (100, ()), (-1, ())],
)
def test_each_part_has_a_seed_of_its_own(seed, expected):
    """It grows as in one request, stays in the model's range, and one that the model refuses is left alone."""
    asked = exchange(seed=seed)
    assert expected == seeds_of(asked, (2, 2, 1))
    sent = [part_of(asked, (2, 2, 1), place).request.fields for place in range(3)]
    assert [fields.get("n", 1) for fields in sent] == [2, 2, 1]
    assert [fields.get("seed") for fields in sent] == list(expected or [seed] * 3)


def test_seeds_of_forms_are_text():
    """The first part keeps its own."""
    asked = exchange(seed="7", from_form=True)
    assert [part_of(asked, (1,) * 5, place).request.fields["seed"] for place in range(3)] == ["7", 8, 9]


def test_a_seed_that_the_model_does_not_have_is_left_to_the_contract():
    """It is dropped there, and disclosed."""
    asked = exchange(seed=7)
    bare = Target(upstream="u", model="m", contract=Contract(parameters={}))
    assert seeds_of(asked.replace(target=bare), (1, 1)) == ()


@given(st.integers(0, 50), st.integers(0, 50), st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers())
def test_no_two_images_have_the_same_seed(low, span, sizes, seed):
    """As long as there are enough of them."""
    seeds = seeds_of(exchange(seed=seed, low=low, high=low + span), sizes)
    own = [value + step for value, size in zip(seeds, sizes, strict=False) for step in range(size)]
    assert bool(seeds) == (low <= seed <= low + span)
    assert all(low <= value <= low + span for value in seeds)
    if seeds and sum(sizes) <= span + 1 and max(own) <= low + span:
        assert len(set(own)) == sum(sizes)
