"""The catalog: which upstream answers for which model."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.config.routes import Choice
from imagegate.contracts.contract import Contract
from imagegate.contracts.parameter import Parameter
from imagegate.contracts.reference_rule import ReferenceRule
from imagegate.errors import ModelNotFound
from imagegate.protocol.messages import ImageRequest, Target
from imagegate.routing.catalog import Catalog, find_contract, weighted_order


def contract(family: str) -> Contract:
    """Contracts that can be told apart."""
    return Contract(parameters={}, family=family)


UPSTREAMS = {
    "one": {"a": contract("one-a"), "shared": contract("one-shared"), "vendor/x": contract("one-x")},
    "two": {"b": contract("two-b"), "shared": contract("two-shared"), "gem-*": contract("two-gem")},
    "three": {"gem-*": contract("three-gem"), "gem-pro*": contract("three-pro"), "b-2": contract("three-b2")},
}


def target(upstream: str, model: str, family: str | None) -> Target:
    return Target(upstream=upstream, model=model, contract=contract(family) if family else None)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gem-pro-1", "exact"),
        ("gem-pro-2", "pro"),
        ("gem-pro", "pro"),
        ("gem-flash", "gem"),
        ("gem-", "gem"),
        ("gem", None),
        ("Gem-flash", None),
        ("my-gem-flash", None),
        ("", None),
    ],
)
def test_the_longest_pattern_that_matches_wins(model, family):
    """An exact name beats every pattern, a longer pattern beats a shorter one, and case counts."""
    contracts = {"gem-*": contract("gem"), "gem-pro*": contract("pro"), "gem-pro-1": contract("exact")}
    expected = contract(family) if family else None
    assert expected == find_contract(contracts, model)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("a", target("one", "a", "one-a")),
        ("b", target("two", "b", "two-b")),
        ("shared", target("one", "shared", "one-shared")),
        ("gem-flash", target("two", "gem-flash", "two-gem")),
        ("vendor/x", target("one", "vendor/x", "one-x")),
    ],
)
def test_a_model_goes_to_the_first_upstream_that_has_it(model, expected):
    """Without a route the order of the configuration decides."""
    assert (expected,) == tuple(Catalog(UPSTREAMS, {}).resolve(model))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("two/shared", target("two", "shared", "two-shared")),
        ("three/gem-pro-9", target("three", "gem-pro-9", "three-pro")),
        ("one/vendor/x", target("one", "vendor/x", "one-x")),
        ("one/nobody-knows", target("one", "nobody-knows", None)),
        ("one/b", target("one", "b", None)),
    ],
)
def test_an_upstream_in_front_of_the_model_is_an_address(model, expected):
    """`upstream/anything` goes there, and passes unchanged where no contract knows it."""
    assert (expected,) == tuple(Catalog(UPSTREAMS, {}).resolve(model))


def test_a_route_beats_everything_and_keeps_its_order():
    """A routed model has the candidates of the route, whoever has a contract of that name."""
    routes = {"a": ("two/b", "one/a", "three/unknown"), "one/a": ("two/shared",)}
    catalog = Catalog(UPSTREAMS, routes)
    expected = (target("two", "b", "two-b"), target("one", "a", "one-a"), target("three", "unknown", None))
    assert expected == tuple(catalog.resolve("a"))
    assert (target("two", "shared", "two-shared"),) == tuple(catalog.resolve("one/a"))


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("sharde", " Did you mean 'shared'?"),
        ("x", " Did you mean 'vendor/x'?"),
        ("completely-different", ""),
        ("nowhere/a-model-of-theirs", ""),
        ("one/", ""),
        ("/a", ""),
        ("shared ", " Did you mean 'shared'?"),
    ],
)
def test_an_unknown_model_is_404_with_the_nearest_names(model, hint):
    """The error has OpenAI's code, names the parameter and helps with what exists."""
    with pytest.raises(ModelNotFound) as caught:
        Catalog(UPSTREAMS, {}).resolve(model)
    error = caught.value
    assert (
        error.status,
        error.code,
        error.param,
        error.type,
    ) == (404, "model_not_found", "model", "invalid_request_error")
    assert error.message.startswith(f"The model '{model}' does not exist.{hint}")


def test_a_long_name_is_not_quoted_whole():
    """A client's text comes back shortened."""
    with pytest.raises(ModelNotFound) as caught:
        Catalog(UPSTREAMS, {}).resolve("z" * 10_000)
    assert caught.value.message.startswith("The model '" + "z" * 61 + "...' does not exist.")
    assert len(caught.value.message) < 200


def test_names_that_clients_make_up_are_not_kept_by_the_megabyte():
    """A name may be as long as a body; what is remembered of them stays small."""
    catalog = Catalog(UPSTREAMS, {})
    tracemalloc.start()
    try:
        for number in range(16):
            catalog.resolve(f"one/{number}{'x' * 1_000_000}")
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_models_lists_every_name_once_with_who_answers():
    """Routes come first, patterns have no name of their own, and no model is listed twice."""
    catalog = Catalog(UPSTREAMS, {"best": ("three/b-2",), "shared": ("two/shared", "one/shared")})
    found = {name: [f"{item.upstream}/{item.model}" for item in targets] for name, targets in catalog.models()}
    expected = {
        "best": ["three/b-2"],
        "shared": ["two/shared", "one/shared"],
        "a": ["one/a"],
        "vendor/x": ["one/vendor/x"],
        "b": ["two/b"],
        "b-2": ["three/b-2"],
    }
    assert (expected, list(expected)) == (found, list(found))


def test_every_listed_model_resolves_to_what_the_list_says():
    """What the list promises is what a request gets."""
    catalog = Catalog(UPSTREAMS, {"best": ("three/b-2",)})
    listed = catalog.models()
    assert "best" in dict(listed)
    for name, targets in listed:
        assert targets == catalog.resolve(name)


# Weights


def targets(count: int) -> list[Target]:
    return [target("one", str(number), None) for number in range(count)]


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_a_draw_loses_nobody(weights: list[float], random: Random) -> None:
    """Every candidate is in it once, whatever its weight."""
    choices = list(zip(targets(len(weights)), weights, strict=True))
    drawn = weighted_order(choices, random.random)
    assert sorted(target.model for target in drawn) == sorted(target.model for target, _ in choices)


@pytest.mark.parametrize("weights", [(3.0, 1.0), (1.0, 1.0, 2.0), (0.5, 0.1)])
def test_candidates_come_first_in_their_shares(weights: tuple[float, ...]) -> None:
    """Of 20,000 draws each candidate leads its share, within five standard deviations of chance."""
    random, draws = Random(1), 20_000
    choices = list(zip(targets(len(weights)), weights, strict=True))
    first = Counter(weighted_order(choices, random.random)[0].model for _ in range(draws))
    for candidate, weight in choices:
        share = weight / sum(weights)
        assert abs(first[candidate.model] - draws * share) < 5 * (draws * share * (1 - share)) ** 0.5


def test_those_that_follow_come_by_their_shares_too() -> None:
    """Where the first one fails, the others share what was its."""
    random, draws = Random(2), 20_000
    choices = list(zip(targets(3), (8.0, 3.0, 1.0), strict=True))
    orders = [tuple(target.model for target in weighted_order(choices, random.random)) for _ in range(draws)]
    after_first = Counter(order[1] for order in orders if order[0] == "0")
    assert 0.7 < after_first["1"] / after_first.total() < 0.8


ROUTE = ("one/a", Choice(to="two/b", weight=3), Choice(to="two/shared"), "three/b-2", Choice(to="one/shared"))


def test_choices_beside_each_other_are_one_place_in_the_order() -> None:
    """Addresses keep their place, choices change theirs with their neighbours only."""
    catalog = Catalog(UPSTREAMS, {"m": ROUTE})
    assert [target.model for target in catalog.resolve("m")] == ["a", "b", "shared", "b-2", "shared"]
    orders = {tuple(target.model for target in catalog.draw("m", Random(seed).random)) for seed in range(50)}
    assert orders == {("a", "b", "shared", "b-2", "shared"), ("a", "shared", "b", "b-2", "shared")}


def test_a_model_without_a_route_has_nothing_to_draw() -> None:
    """It goes where it always goes, and an unknown one nowhere."""
    catalog = Catalog(UPSTREAMS, {})
    targets = catalog.draw("a", Random(1).random)
    assert targets == catalog.resolve("a")
    assert catalog.settled == {"a": targets}
    with pytest.raises(ModelNotFound):
        catalog.draw("unknown", Random(1).random)
    assert "unknown" not in catalog.settled


def test_candidates_that_change_places_are_not_settled() -> None:
    """A group of one choice has one order; what was resolved for an explanation is no draw."""
    catalog = Catalog(UPSTREAMS, {"m": ROUTE, "alone": (Choice(to="two/b", weight=3), "one/a")})
    catalog.resolve("m")
    catalog.draw("m", Random(1).random)
    assert catalog.draw("alone", Random(1).random) == catalog.resolve("alone")
    assert catalog.settled.keys() == {"alone"}


# Files on the fly


def edits(**rule: object) -> Contract:
    """A model that takes edits as forms, four images at a time."""
    parameters = {"n": Parameter(type="integer", max=4)}
    nested = Contract(parameters=parameters, references=ReferenceRule(**{"forms": ("files",), **rule}))
    return Contract(parameters=parameters, edits=nested)


BRIDGED = Contract(
    parameters={},
    edits=Contract(parameters={}, endpoint="generations", references=ReferenceRule(forms=("files",))),
)


@pytest.mark.parametrize(
    ("contract", "operation", "n", "expected"),
    [
        (edits(), "edits", 1, True),
        (edits(), "edits", 4, True),
        (edits(forms=("objects", "files")), "edits", 1, True),
        (edits(), "edits", 5, False),
        (edits(), "variations", 1, False),
        (edits(forms=("links",)), "edits", 1, False),
        (edits(forms=("objects",)), "edits", 1, False),
        (edits(same_size=True), "edits", 1, False),
        (edits(mask_polarity="white"), "edits", 1, False),
        (edits(live=False), "edits", 1, False),
        (BRIDGED, "edits", 1, False),
        (Contract(parameters={}), "edits", 1, False),
        (Contract(parameters={}, edits=Contract(parameters={})), "edits", 1, False),
    ],
)
def test_files_go_on_as_they_come_where_nothing_is_to_be_done_with_them(contract, operation, n, expected):
    """A form streams to a model that takes it as it is; whatever must be looked at or divided is read first."""
    catalog = Catalog({"one": {"m": contract}}, {})
    asked = ImageRequest(operation=operation, fields={"model": "m", "prompt": "p", "n": n})
    assert expected is catalog.may_stream(asked)


def test_variations_stream_to_a_model_that_has_them():
    """Variations of its own are taken like edits."""
    contract = Contract(parameters={}, variations=Contract(parameters={}, references=ReferenceRule(forms=("files",))))
    asked = ImageRequest(operation="variations", fields={"model": "m"})
    assert Catalog({"one": {"m": contract}}, {}).may_stream(asked) is True


@pytest.mark.parametrize(
    ("model", "routes"),
    [("nobody-knows", {}), ("two/nobody-knows", {}), ("m", {"m": ("one/m", "two/m")})],
)
def test_files_are_held_where_one_candidate_may_not_be_the_last(model, routes):
    """What may be sent again, or passes to a model that no contract knows, must be there a second time."""
    catalog = Catalog({"one": {"m": edits()}, "two": {"m": edits()}}, routes)
    assert catalog.may_stream(ImageRequest(operation="edits", fields={"model": model, "prompt": "p"})) is False


def test_a_contract_for_all_models_claims_none():
    """It fits what is addressed to its upstream; a public name that nobody lists is still not found."""
    catalog = Catalog(
        {"local": {"*": contract("any"), "mine": contract("mine")}, "other": {"gem-*": contract("gem")}},
        {"public": ["local/some-model"]},
    )
    assert catalog.resolve("local/some-model") == (target("local", "some-model", "any"),)
    assert catalog.resolve("public") == (target("local", "some-model", "any"),)
    assert catalog.resolve("mine") == (target("local", "mine", "mine"),)
    assert catalog.resolve("gem-1") == (target("other", "gem-1", "gem"),)
    with pytest.raises(ModelNotFound):
        catalog.resolve("some-model")
