"""What a request can cost at most, and what becomes of it when its POSTs have ended."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.contract import load_contracts, read_document
from imagegate.errors import RequestError
from imagegate.protocol.messages import FileID, ImageRequest, Link, Target
from imagegate.protocol.prices import ModelPrice, PriceVariant
from imagegate.registry import load_adapter
from imagegate.spending.costs import charge, most_cost, outcome_of
from imagegate.spending.money import MOST, NANO, nanos
from imagegate.telemetry.exchange import UpstreamCall

PRICES = {
    ("a", "flat"): ModelPrice(image=0.04, variants=(PriceVariant(when={"quality": ("high",)}, image=0.08),)),
    ("b", "tokens"): ModelPrice(tokens={"input_text": 5, "output": 30}, reserve=0.2),
    ("b", "edits"): ModelPrice(tokens={"input_text": 5, "input_image": 8, "output": 30}, reserve=0.2, reference=1000),
    ("b", "unknown"): ModelPrice(tokens={"input": 8, "output": 30}, reserve=0.2),
    ("b", "endless"): ModelPrice(tokens={"output": 30}),
}
outcomes = st.sampled_from(["ok", "not_sent", "rejected", "uncertain", "cancelled"])


def price_of(upstream: str, model: str) -> ModelPrice | None:
    return PRICES.get((upstream, model))


def most(*targets: tuple[str, str], n: int = 1, prompt: str = "", fallback: float = 0.0, own: str = "") -> int:
    request = ImageRequest(operation="generations", fields={"model": "m", "prompt": prompt, "n": n})
    found = [Target(upstream=upstream, model=model, contract=None) for upstream, model in targets]
    return most_cost(request, found, price_of, lambda upstream: upstream != own, fallback)


def test_the_dearest_candidate_counts() -> None:
    assert most(("a", "flat"), n=3) == nanos(0.24)
    assert most(("a", "flat"), ("b", "tokens"), n=3) == nanos(0.6 + 3 * 64 * 5e-6)
    assert most(("a", "flat"), ("b", "tokens"), own="b") == nanos(0.08)  # paid with the client's own key
    assert most(("b", "tokens"), prompt="é" * 500) == nanos(0.2 + 1064 * 5e-6)  # a token is at least a byte


SIZED = ModelPrice(image=0.01, megapixel=0.02, reference_megapixel=0.01, round_up=True)


def test_the_largest_image_of_the_contract_is_reserved() -> None:
    """With every reference of the request as large as one is charged at most, for each image."""
    contract = load_contracts(
        read_document(
            "[models.m]\nparameters = { prompt = {} }\nsize = { rule = 'flexible', max_pixels = 4000000 }\n"
            "[models.m.edits]\nreferences = { max = 3 }\nsize = { rule = 'ratio', ratios = ['1:1'] }\n"
        )
    )["m"]
    target = Target(upstream="a", model="m", contract=contract)
    request = ImageRequest(operation="generations", fields={"model": "m", "prompt": "", "n": 2})
    assert most_cost(request, [target], lambda upstream, name: SIZED, lambda _: True, 0.0) == nanos(0.18)
    images = (FileID("a"), Link("https://x/b.png"))
    edit = ImageRequest(operation="edits", fields={"model": "m", "prompt": "", "n": 2}, images=images)
    with pytest.raises(RequestError, match="is not known"):  # a ratio does not bind the pixels
        most_cost(edit, [target], lambda upstream, name: SIZED, lambda _: True, 0.0)
    bound = msgspec.structs.replace(SIZED, megapixels=1.5)
    assert most_cost(edit, [target], lambda upstream, name: bound, lambda _: True, 0.0) == nanos(2 * (0.05 + 2 * 0.04))
    free = msgspec.structs.replace(edit, fields={"model": "m", "prompt": "", "size": "1000x1000"})
    unknown = Target(upstream="a", model="m", contract=None)
    assert most_cost(free, [unknown], lambda upstream, name: SIZED, lambda _: True, 0.0) == nanos(0.03 + 2 * 0.04)


def test_what_was_made_is_charged() -> None:
    """By its sizes and references; the reservation, where these are not known."""
    done = [UpstreamCall("a", "flat", "ok", 0.1, 2)]
    sizes = ["1000x1000", "1000x1001"]
    found = outcome_of(nanos(9), 2, calls=done, made=2, usage=None, price=SIZED, sizes=sizes, references=[1_000_000, 0])
    assert found == (nanos(0.03 + 0.05 + 2 * (0.01 + 0.04)), 0)
    assert outcome_of(nanos(9), 2, calls=done, made=2, usage=None, price=SIZED) == (nanos(9), 0)
    cost = ModelPrice(usage_cost="cost", reserve=1)
    assert outcome_of(nanos(9), 2, calls=done, made=2, usage={"cost": 0.5}, price=cost) == (nanos(0.5), 0)


class Live:
    """Files that are still coming in."""


@pytest.mark.parametrize(
    ("members", "fields", "references"),
    [
        ({"images": (FileID("a"), Link("https://x/b.png")), "mask": FileID("m")}, {}, 3),
        ({}, {"images": [{"image_url": "https://x/a.png"}, {"file_id": "b"}], "mask": {"file_id": "m"}}, 3),
        ({"images": (FileID("a"),)}, {"image_url": "https://x/b.png"}, 2),
        ({}, {}, 0),
        ({}, {"images": []}, 18),  # faulty, as far as we know
        ({"live": Live()}, {}, 18),
    ],
)
@pytest.mark.parametrize("n", [1, 3])
def test_references_are_reserved(members: Any, fields: dict[str, Any], references: int, n: int) -> None:
    """For each image, as they are charged."""
    request = ImageRequest(operation="edits", fields={"model": "m", "prompt": "A cat", "n": n, **fields}, **members)
    for model, tokens in (("edits", 1000), ("unknown", 10_000)):
        text = (64 + 5) * (8e-6 if model == "unknown" else 5e-6)
        found = most_cost(request, [Target(upstream="b", model=model, contract=None)], price_of, lambda _: True, 0.0)
        assert found == nanos(n * (0.2 + text + references * tokens * 8e-6))
    assert most_cost(
        request, [Target(upstream="a", model="flat", contract=None)], price_of, lambda _: True, 0.0
    ) == nanos(n * 0.08)


def test_files_that_are_coming_in_are_as_many_as_the_model_takes() -> None:
    contract = load_contracts(
        read_document("[models.m]\nparameters = { prompt = {} }\n[models.m.edits]\nreferences = { max = 3 }\n")
    )["m"]
    live: Any = Live()
    request = ImageRequest(operation="edits", fields={"model": "m", "prompt": "A cat"}, live=live)
    found = most_cost(request, [Target(upstream="b", model="edits", contract=contract)], price_of, lambda _: True, 0.0)
    assert found == nanos(0.2 + 69 * 5e-6 + 5 * 1000 * 8e-6)


@pytest.mark.parametrize(
    ("model", "fields", "image_tokens"),
    [
        # What OpenAI's API has said of edits: a square of gpt-image-1; the dearest reference of each model.
        ("gpt-image-1", {}, 194),
        ("gpt-image-1", {"input_fidelity": "high"}, 6240 + 65 + 12 * 129),
        ("gpt-image-1.5", {"input_fidelity": "high"}, 6240 + 65 + 3 * 129),
        ("gpt-image-1-mini", {}, 65 + 3 * 129),
        ("gpt-image-2", {}, 1536),
    ],
)
def test_an_edit_is_settled_within_its_reservation(model: str, fields: dict[str, Any], image_tokens: int) -> None:
    """By the prices that ship: 16 references and the longest answer, and the tokens of text that edits add."""
    prices = load_adapter("openai").prices().models
    price = next(each for name, each in prices.items() if fnmatchcase(model, name))
    references = tuple(FileID(str(number)) for number in range(16))
    request = ImageRequest(operation="edits", fields={"model": model, "prompt": "A cat", **fields}, images=references)
    target = Target(upstream="o", model=model, contract=None)
    reserved = most_cost(request, [target], lambda upstream, name: price, lambda _: True, 0.0)
    text, images, output = 13 + 16 * 40, 16 * image_tokens, 6240 if "-1" in model else 23_719
    usage = {
        "input_tokens": text + images,
        "input_tokens_details": {"text_tokens": text, "image_tokens": images},
        "output_tokens": output,
        "output_tokens_details": {"image_tokens": output},
    }
    assert nanos(price.cost(1, usage, fields)) <= reserved


GROUPS = read_document(
    "[models.m]\nparameters = { prompt = {} }\n"
    "group = { member = 'options.most', most = 15, when = { mode = ['group'] } }\n"
    "[models.m.edits]\n"
)


@pytest.mark.parametrize(
    ("fields", "images"),
    [
        ({}, 1),
        ({"mode": "single", "options": {"most": 4}}, 1),
        ({"mode": "group", "options": {"most": 4}}, 4),
        ({"mode": "group", "options": {"most": 4}, "n": 2}, 8),
        *(
            ({"mode": "group", "options": options}, 15)
            for options in ({}, {"most": "4"}, {"most": 99}, {"most": 0}, 7, None)
        ),
    ],
)
@pytest.mark.parametrize("operation", ["generations", "edits", "variations"])
def test_a_group_is_reserved_whole(operation: Any, fields: dict[str, Any], images: int) -> None:
    """What a request says of its number counts as far as the model would take it; else the most that it makes."""
    target = Target(upstream="a", model="flat", contract=load_contracts(GROUPS)["m"])
    request = ImageRequest(operation=operation, fields={"model": "m", **fields})
    assert target.most_images(request) == images
    assert most_cost(request, [target], price_of, lambda upstream: True, 0.0) == nanos(0.08 * images)


@pytest.mark.parametrize("target", [("b", "endless"), ("a", "unknown")])
def test_what_is_not_known_is_refused_or_as_the_operator_says(target: tuple[str, str]) -> None:
    with pytest.raises(RequestError, match="is not known") as found:
        most(target)
    assert (found.value.code, found.value.param) == ("price_unknown", "model")
    assert most(target, n=2, fallback=0.5) == nanos(1.0)


@pytest.mark.parametrize(
    ("calls", "made", "settled", "held"),
    [
        ([], 0, 0, 0),
        ([("not_sent", 4)], 0, 0, 0),
        ([("rejected", 4), ("not_sent", 4)], 0, 0, 0),
        ([("ok", 4)], 4, 0.16, 0),
        ([("ok", 4)], 3, 0.12, 0),  # the provider made fewer
        ([("ok", 4)], 0, 0.16, 0),  # made, but never read
        ([("rejected", 4), ("ok", 4)], 4, 0.16, 0),
        ([("uncertain", 4)], 0, 0, 0.4),
        ([("cancelled", 4)], 0, 0, 0.4),
        ([("ok", 2), ("uncertain", 2)], 2, 0.08, 0.2),
        ([("ok", 1), ("ok", 1), ("rejected", 1), ("uncertain", 1)], 2, 0.08, 0.1),
        ([("uncertain", 4)], 4, 0, 0.4),  # a stream that broke after its pictures
    ],
)
def test_how_a_reservation_ends(calls: list[tuple[Any, int]], made: int, settled: float, held: float) -> None:
    done = [UpstreamCall("a", "flat", outcome, 0.1, images) for outcome, images in calls]
    found = outcome_of(nanos(0.4), 4, calls=done, made=made, usage=None, price=PRICES["a", "flat"])
    assert found == (nanos(settled), nanos(held))


def test_tokens_are_charged_where_the_reply_names_them_and_the_most_where_not() -> None:
    price = PRICES["b", "tokens"]
    assert charge(nanos(0.2), 1, {"output_tokens": 1000}, price) == nanos(0.03)
    assert charge(nanos(0.2), 1, None, price) == charge(nanos(0.2), 1, {}, price) == nanos(0.2)
    assert charge(nanos(0.2), 2, None, None) == nanos(0.2)
    high = {"quality": "high"}
    assert charge(0, 2, None, PRICES["a", "flat"], high) == nanos(0.16)


@given(st.lists(st.tuples(outcomes, st.integers(1, 3)), max_size=6), st.integers(0, 10), st.integers(1, 10))
def test_nothing_that_may_have_been_charged_is_released(calls: list[tuple[Any, int]], made: int, images: int) -> None:
    """By price, what is settled and held covers the bill as long as the request asked for what its parts did."""
    done = [UpstreamCall("a", "flat", outcome, 0.1, count) for outcome, count in calls]
    reserved = nanos(0.08 * images)
    found = outcome_of(reserved, images, calls=done, made=made, usage=None, price=PRICES["a", "flat"])
    assert found.settled >= 0
    assert 0 <= found.held <= reserved
    open_ = sum(count for outcome, count in calls if outcome in ("uncertain", "cancelled"))
    answered = sum(count for outcome, count in calls if outcome == "ok")
    if made <= answered and open_ + answered <= images:
        assert found.settled == (nanos(0.04 * (made or answered)) if answered else 0)
        assert found.settled + found.held >= nanos(0.04 * open_) + found.settled
    if not answered and not open_:
        assert found == (0, 0)


@given(st.floats(0, 1e12))
def test_amounts_are_rounded_up(amount: float) -> None:
    assert 0 <= nanos(amount) <= MOST
    assert nanos(amount) >= min(amount * NANO * (1 - 1e-12), MOST) - 1
    assert nanos(0.1) == 100_000_000
    assert sum([nanos(0.04)] * 100) == nanos(4.0)
