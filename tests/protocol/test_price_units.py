"""What an image has at most, as far as its contract or the request binds it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagegate.contract import load_contracts, read_document
from imagegate.contracts.size_syntax import Pixels, Ratio
from imagegate.contracts.sizes import FlexibleRule, Wanted
from imagegate.protocol.price_units import Bounds, area_of, bounds_of, most_area, sent_area, steps_of


@pytest.mark.parametrize(
    ("text", "fields", "found"),
    [
        ("size = { rule = 'list', values = ['auto', '512x512', '1024x1792'] }", {}, Bounds(1024 * 1792, 0)),
        ("size = { rule = 'list', values = ['512x512'], ratios = ['16:9'] }", {}, Bounds(None, 0)),
        ("size = { rule = 'flexible', max_pixels = 4194304 }", {"size": "9000x9000"}, Bounds(4194304, 0)),
        ("size = { rule = 'flexible', max_edge = 1440 }", {}, Bounds(1440 * 1440, 0)),
        ("size = { rule = 'ratio', ratios = ['1:1'] }", {"size": "1024x1024"}, Bounds(None, 0)),
        ("size = { rule = 'none' }", {"size": "1024x1024"}, Bounds(None, 0)),
        ("", {"size": "1024x1024"}, Bounds(1024 * 1024, 0)),
        ("parameters.steps = { type = 'integer', max = 50 }", {"steps": 7}, Bounds(None, 50)),
        ("parameters.num_inference_steps = { type = 'integer' }", {}, Bounds(None, None)),
        ("unknown = 'pass'", {"steps": 7}, Bounds(None, 7)),
    ],
)
def test_bounds_of_contracts(text: str, fields: dict[str, Any], found: Bounds) -> None:
    document = "[models.m]\nparameters.prompt = {}\n" + text
    assert bounds_of(load_contracts(read_document(document))["m"], fields) == found


def test_a_model_without_a_contract_gets_what_the_request_says() -> None:
    assert bounds_of(None) == Bounds(None, 0)
    assert bounds_of(None, {"size": "100x100", "steps": 4}) == Bounds(10_000, 4)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"size": "auto"},
        {"size": "x" * 99},
        {"size": 7},
        {"width": True, "height": 5},
        {"width": -1, "height": 5},
        {"width": 10**400, "height": 5},
    ],
)
def test_what_names_no_size(fields: dict[str, Any]) -> None:
    assert sent_area(fields) is None


@settings(max_examples=50)
@given(
    st.builds(
        FlexibleRule,
        multiple=st.sampled_from([1, 16, 32]),
        min_edge=st.integers(1, 512),
        max_edge=st.integers(512, 4096),
        max_pixels=st.integers(512 * 512, 4096 * 4096),
    ),
    st.integers(64, 9000),
    st.integers(64, 9000),
)
def test_no_size_that_is_fitted_has_more_pixels(rule: FlexibleRule, width: int, height: int) -> None:
    fitted = rule.fit(Wanted(ratio=Ratio(width, height), pixels=Pixels(width, height)))
    for size in fitted.fields.values():
        assert (area_of(size) or 0) <= (most_area(rule) or 0)


@given(st.dictionaries(st.sampled_from(["steps", "num_inference_steps"]), st.integers() | st.booleans() | st.text()))
def test_any_steps(fields: dict[str, Any]) -> None:
    assert 0 < steps_of(fields, 28) <= 10_000
