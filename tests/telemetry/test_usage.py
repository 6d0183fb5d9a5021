"""Token counts, sizes, traces and prices: the pure parts of what is counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.config.price_table import PriceTable
from imagegate.config.schema import PricesConfig
from imagegate.protocol.prices import ModelPrice, PriceVariant
from imagegate.protocol.trace_context import read_traceparent, read_tracestate, span_id, trace_id
from imagegate.protocol.usage import TOKEN_KINDS, sum_usage, tokens_by_kind
from imagegate.telemetry.metric_labels import size_class
from imagegate.telemetry.progress import Progress, cost_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["input_tokens", "output_tokens", "prompt_tokens", "completion_tokens", "input_tokens_details", "total_tokens"]
)
details = st.dictionaries(st.sampled_from(["text_tokens", "image_tokens", "cached_tokens"]), json_values)
counts = st.integers(0, 10**6)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"input_tokens": 12, "output_tokens": 300, "total_tokens": 312}, {"input": 12, "output": 300}),
        (
            {
                "input_tokens": 50,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
                "output_tokens": 300,
                "output_tokens_details": {"text_tokens": 20, "image_tokens": 280},
            },
            {"input_text": 10, "input_image": 40, "output_text": 20, "output_image": 280},
        ),
        (
            {"input_tokens": 50, "input_tokens_details": {"text_tokens": 50, "image_tokens": 0, "cached_tokens": 30}},
            {"input_text": 20, "input_cached": 30},
        ),
        ({"input_tokens": 50, "input_tokens_details": {"cached_tokens": 30}}, {"input": 20, "input_cached": 30}),
        ({"prompt_tokens": 7, "completion_tokens": 9}, {"input": 7, "output": 9}),
        ({"prompt_tokens": 7, "prompt_tokens_details": {"image_tokens": 7}}, {"input_image": 7}),
        ({"input_tokens": "12", "output_tokens": True}, {}),
        ({"input_tokens": -5, "output_tokens": 10**15}, {}),
        ({"input_tokens": 12, "input_tokens_details": [1]}, {"input": 12}),
        ({"generated_images": 1, "output_tokens": 1, "total_tokens": 1}, {"output": 1}),
    ],
)
def test_tokens_by_kind(usage: dict[str, object] | None, expected: dict[str, int]) -> None:
    """Usage of the Images API, of chat completions, with and without details, and what is no usage at all."""
    assert tokens_by_kind(usage) == expected


@given(st.dictionaries(names, json_values | details))
def test_any_usage_is_read(usage: dict[str, object]) -> None:
    """Whatever a provider sends, kinds are known ones and counts positive whole numbers."""
    found = tokens_by_kind(usage)
    assert set(found) <= set(TOKEN_KINDS)
    assert all(type(count) is int and count > 0 for count in found.values())


@given(text=counts, image=counts, rest=counts, cached=counts)
def test_no_token_is_counted_twice(text: int, image: int, rest: int, cached: int) -> None:
    """The kinds of a side add up to its total."""
    details = {"text_tokens": text, "image_tokens": image, "cached_tokens": min(cached, text)}
    total = text + image + rest
    found = tokens_by_kind({"input_tokens": total, "input_tokens_details": details, "output_tokens": rest})
    assert sum(count for kind, count in found.items() if kind.startswith("input")) == total
    assert found.get("output", 0) == rest


@given(st.lists(st.dictionaries(st.sampled_from("ab"), counts), min_size=1, max_size=4))
def test_sum_usage(usages: list[dict[str, int]]) -> None:
    """Numbers of several replies are added."""
    for name in "ab":
        assert sum_usage(usages).get(name, 0) == sum(usage.get(name, 0) for usage in usages)


def test_sum_usage_of_nested_members() -> None:
    """Details are added too; what is no number is the first's."""
    first = {"details": {"text": 1}, "model": "a", "odd": {"x": 1}}
    second = {"details": {"text": 2, "image": 3}, "model": "b", "odd": 7}
    assert sum_usage([first, second]) == {"details": {"text": 3, "image": 3}, "model": "a", "odd": {"x": 1}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "none"),
        ("auto", "auto"),
        ("1024x1024", "square_1k"),
        ("1536 × 1024", "landscape_1k"),
        ("1024x1792", "portrait_1k"),
        ("3840x2160", "landscape_4k"),
        ("1:1", "square"),
        ("19.5:9", "landscape"),
        ("9:16", "portrait"),
        ("2K", "2k"),
        ("512", "512"),
        ("1.5k", "2k"),
        ("x" * 200, "other"),
        ("wide", "other"),
    ],
)
def test_size_class(text: str, expected: str) -> None:
    """A size in any spelling belongs to a class."""
    assert size_class(text) == expected


@given(st.text(max_size=20) | st.from_regex(r"[0-9]{1,6}[xX*:][0-9]{1,6}", fullmatch=True))
def test_sizes_have_few_classes(text: str) -> None:
    """Whatever clients write, metrics get one of a few words."""
    shapes, tiers = ("square", "landscape", "portrait"), ("512", "1k", "2k", "4k")
    known = {"none", "auto", "other", *shapes, *tiers, *(f"{shape}_{tier}" for shape in shapes for tier in tiers)}
    assert size_class(text) in known


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("value", [f"00-{TRACE}-{SPAN}-01", f"  00-{TRACE}-{SPAN}-00 ", f"01-{TRACE}-{SPAN}-01-more"])
def test_traceparent(value: str) -> None:
    """A header of this version or a later one is read."""
    found = read_traceparent(value.encode())
    assert found == value.strip()
    assert (trace_id(found), span_id(found)) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"00",
        f"ff-{TRACE}-{SPAN}-01".encode(),
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"00-{TRACE.upper()}-{SPAN}-01".encode(),
        f"00-{TRACE}-{SPAN}-01-more".encode(),
        f"00-{TRACE}-{SPAN}-01\r\nx: y".encode(),
    ],
)
def test_no_traceparent(value: bytes | None) -> None:
    """What the specification calls invalid is taken for none."""
    assert read_traceparent(value) == ""


@given(st.binary(max_size=80))
def test_any_traceparent(value: bytes) -> None:
    """Whatever comes, what goes on is printable ASCII without spaces."""
    assert all("!" <= character <= "~" for character in read_traceparent(value))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([b"vendor=abc"], "vendor=abc"),
        ([b"a=1 , b=2", b"", b",3c@d=x:y"], "a=1,b=2,3c@d=x:y"),
        ([b"a=" + b"x" * 250, b"b=" + b"x" * 250, b"c=1234567"], f"a={'x' * 250},b={'x' * 250}"),
        ([], ""),
        ([b"a=1,a=2"], ""),
        ([b"A=1"], ""),
        ([b"a=1\r\nx: y"], ""),
        ([b"a=\xe9"], ""),
        ([b",".join(b"k%d=1" % number for number in range(33))], ""),
    ],
)
def test_tracestate(values: list[bytes], found: str) -> None:
    """All fields are one list; one that is none is dropped, and one that is too long loses members at its end."""
    assert read_tracestate(values) == found


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_tracestate(values: list[bytes]) -> None:
    assert all(" " <= character <= "~" for character in read_tracestate(values))


PRICES = PriceTable(
    PricesConfig(
        models={
            "a/m": ModelPrice(image=0.1),
            "m": ModelPrice(image=0.2),
            "t": ModelPrice(tokens={"input_text": 5, "output": 40}),
            "s": ModelPrice(megapixel=0.02, reference_megapixel=0.01),
            "r": ModelPrice(usage_cost="cost"),
            "v": ModelPrice(image=0.1, variants=(PriceVariant(when={"quality": ("high",)}, image=0.4),)),
        }
    ),
    {},
)


@pytest.mark.parametrize(
    ("upstream", "model", "images", "usage", "cost"),
    [
        ("a", "m", 2, None, 0.2),
        ("b", "m", 2, None, 0.4),
        ("b", "x", 2, None, None),
        ("b", "m", 0, None, None),
        ("b", "t", 1, {"input_tokens": 10, "output_tokens": 1000}, 0.04),
        ("b", "t", 1, {"input_tokens": 9, "input_tokens_details": {"text_tokens": 9}}, 45e-6),
    ],
)
def test_cost(upstream: str, model: str, images: int, usage: dict[str, object] | None, cost: float | None) -> None:
    """By image, by token, for a model at one upstream or everywhere; none where no price or nothing made."""
    progress = Progress("generations", upstream=upstream, upstream_model=model, images_made=images, usage=usage)
    assert cost_of(progress, PRICES) == pytest.approx(cost)


def test_the_price_depends_on_the_request_that_was_sent() -> None:
    """What the client asked for may have been changed to fit the model."""
    progress = Progress("generations", upstream="a", upstream_model="v", images_made=2)
    assert cost_of(progress, PRICES) == pytest.approx(0.2)
    progress.sent_fields = {"quality": "high"}
    assert cost_of(progress, PRICES) == pytest.approx(0.8)


def test_the_price_depends_on_what_was_made() -> None:
    """By the pictures' sizes as the provider made them, else by the size that was sent; nothing is guessed."""
    progress = Progress("edits", upstream="a", upstream_model="s", images_made=1)
    assert cost_of(progress, PRICES) is None
    progress.sent_fields = {"size": "1000x1000"}
    assert cost_of(progress, PRICES) == pytest.approx(0.02)
    progress.sizes_made = ("2000x1000",)
    assert cost_of(progress, PRICES) == pytest.approx(0.04)
    progress.provider_sizes = ("2000x2000",)
    assert cost_of(progress, PRICES) == pytest.approx(0.08)


def test_the_price_depends_on_references() -> None:
    """Those beside the members of the request, else those in them, else the files that the client sent."""
    progress = Progress("edits", upstream="a", upstream_model="s", images_made=1, sizes_made=("1000x1000",))
    progress.upload_count = 1
    assert cost_of(progress, PRICES) == pytest.approx(0.02 + 0.04)
    progress.sent_fields = {
        "images": [{"image_url": "https://x/a.png"}, {"file_id": "b"}],
        "mask_url": "https://x/m.png",
    }
    assert cost_of(progress, PRICES) == pytest.approx(0.02 + 3 * 0.04)
    progress.sent_references = (500_000, 0)
    assert cost_of(progress, PRICES) == pytest.approx(0.02 + 0.005 + 0.04)


def test_a_reply_names_its_cost() -> None:
    progress = Progress("generations", upstream="a", upstream_model="r", images_made=1)
    assert cost_of(progress, PRICES) is None
    progress.replied(1, {"cost": 0.03})
    progress.replied(1, {"cost": 0.04})
    assert cost_of(progress, PRICES) == pytest.approx(0.07)
