"""Contracts as data: parameters and their checks, families, merging, and errors that say where."""

from __future__ import annotations

import sys

import pytest

from imagegate.contracts.contract import Contract
from imagegate.contracts.documents import ContractDocument, families, load_contracts, read_document
from imagegate.contracts.parameter import Parameter
from imagegate.contracts.sizes import FlexibleRule, ListRule, NoSizeRule, RatioRule, RatioTierRule
from imagegate.errors import ConfigError, RequestError

VALUES = {
    "a string": "text",
    "an integer": 3,
    "a decimal number": 0.5,
    "a boolean": True,
    "an array": [1],
    "an object": {"a": 1},
}


def load(source: str, name: str = "m"):
    return load_contracts(read_document(source))[name]


# Parameters


@pytest.mark.parametrize(
    ("kind", "words", "fitting"),
    [
        ("string", "a string", {"a string"}),
        ("integer", "an integer", {"an integer"}),
        ("number", "a number", {"an integer", "a decimal number"}),
        ("boolean", "a boolean", {"a boolean"}),
        ("array", "an array", {"an array"}),
        ("object", "an object", {"an object"}),
    ],
)
@pytest.mark.parametrize("got", VALUES)
def test_a_parameter_takes_its_json_type(kind, words, fitting, got):
    """A value of another JSON type is refused in OpenAI's words; a boolean is no number."""
    parameter = Parameter(type=kind)
    if got in fitting:
        parameter.check("field", VALUES[got])
        return
    with pytest.raises(RequestError) as caught:
        parameter.check("field", VALUES[got])
    expected = (f"Invalid type for 'field': expected {words}, but got {got} instead.", "field", "invalid_type", 400)
    assert expected == (caught.value.message, caught.value.param, caught.value.code, caught.value.status)


@pytest.mark.parametrize("value", list(VALUES.values()), ids=list(VALUES))
def test_a_parameter_of_any_type_takes_everything(value):
    """Some members may hold any JSON."""
    Parameter(type="any").check("field", value)


def test_null_is_named_where_it_does_not_fit():
    """OpenAI calls it null."""
    with pytest.raises(RequestError, match=r"^Invalid type for 'model': expected a string, but got null instead\.$"):
        Parameter().check("model", None)


TOO_SHORT = (
    "Invalid 'x': string too short. Expected a string with minimum length 6, but got a string with length 3 instead."
)
TOO_LONG = (
    "Invalid 'x': string too long. Expected a string with maximum length 3, but got a string with length 4 instead."
)


@pytest.mark.parametrize(
    ("parameter", "value", "message", "code"),
    [
        (
            Parameter(type="integer", min=1, max=10),
            0,
            "Invalid 'x': integer below minimum value. Expected a value >= 1, but got 0 instead.",
            "integer_below_min_value",
        ),
        (
            Parameter(type="integer", min=1, max=10),
            11,
            "Invalid 'x': integer above maximum value. Expected a value <= 10, but got 11 instead.",
            "integer_above_max_value",
        ),
        (
            Parameter(type="number", min=0.5, max=1.5),
            0.25,
            "Invalid 'x': decimal below minimum value. Expected a value >= 0.5, but got 0.25 instead.",
            "decimal_below_min_value",
        ),
        (
            Parameter(type="number", min=0.5, max=1.5),
            2,
            "Invalid 'x': decimal above maximum value. Expected a value <= 1.5, but got 2 instead.",
            "decimal_above_max_value",
        ),
        (
            Parameter(type="integer", max=4294967294),
            4294967295,
            "Invalid 'x': integer above maximum value. Expected a value <= 4294967294, but got 4294967295 instead.",
            "integer_above_max_value",
        ),
        (
            Parameter(type="number", min=0.1234567),
            0,
            "Invalid 'x': decimal below minimum value. Expected a value >= 0.1234567, but got 0 instead.",
            "decimal_below_min_value",
        ),
        (
            Parameter(max_length=3),
            "four",
            TOO_LONG,
            "string_above_max_length",
        ),
        (
            Parameter(min_length=6, max_length=128),
            "abc",
            TOO_SHORT,
            "string_below_min_length",
        ),
        (
            Parameter(values=("low", "medium", "high", "auto")),
            "ultra",
            "Invalid value: 'ultra'. Supported values are: 'low', 'medium', 'high', and 'auto'.",
            "invalid_value",
        ),
        (Parameter(values=("auto",)), "", "Invalid value: ''. Supported values are: 'auto'.", "invalid_value"),
        (
            Parameter(type="integer", values=(1, 2)),
            3,
            "Invalid value: '3'. Supported values are: 1, and 2.",
            "invalid_value",
        ),
    ],
)
def test_values_out_of_bounds_are_refused_in_openais_words(parameter, value, message, code):
    """The error names the field, what is allowed and what came."""
    with pytest.raises(RequestError) as caught:
        parameter.check("x", value)
    assert (message, "x", code) == (caught.value.message, caught.value.param, caught.value.code)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (Parameter(type="integer", min=1, max=10), 1),
        (Parameter(type="integer", min=1, max=10), 10),
        (Parameter(type="boolean", min=1), False),
        (Parameter(max_length=3), "日本語"),
        (Parameter(values=("a",)), "a"),
        (Parameter(type="integer", values=(1, 2)), 2),
    ],
)
def test_values_within_bounds_pass(parameter, value):
    """Bounds are inclusive, and lengths count characters."""
    parameter.check("x", value)


@pytest.mark.parametrize(
    ("parameter", "longest"),
    [
        (Parameter(), sys.maxsize),
        (Parameter(max_length=64), 64),
        (Parameter(min_length=1), None),
        (Parameter(type="integer"), None),
        (Parameter(type="any"), None),
        (Parameter(values=("low", "high")), None),
        (Parameter(max_length=64, forbidden=("<",)), None),
        (Parameter(replace={"|": "/"}), None),
        (Parameter(translate={"hd": "high"}), None),
        (Parameter(nearest={"hd": "high"}), None),
        (Parameter(omit=("auto",)), None),
        (Parameter(only_with={"background": ("transparent",)}), None),
        (Parameter(not_with={"background": ("transparent",)}), None),
    ],
)
def test_texts_that_need_no_look(parameter, longest):
    """Only where there is no rule but a length; `check` takes each of them."""
    assert parameter.free_length == longest
    for text in ("", "a|<b", "x" * 64):
        if longest is not None and len(text) <= longest:
            parameter.check("field", text)
    contract = Contract(parameters={"field": parameter})
    assert contract.free_texts == ({} if longest is None else {"field": longest})


@pytest.mark.parametrize(
    ("parameter", "is_choice"),
    [
        (Parameter(values=("low", "high"), translate={"hd": "high"}, nearest={"max": "high"}, omit=("auto",)), True),
        (Parameter(), False),
        (Parameter(type="integer", values=(1, 2)), False),
        (Parameter(type="integer", values=("1",)), False),
        (Parameter(values=("<x>",), forbidden=("<",)), False),
        (Parameter(values=("photo|real", "photo/real"), replace={"|": "/"}), False),
        (Parameter(values=("medium",), max_length=4), False),
        (Parameter(values=("medium",), min_length=9), False),
        (Parameter(values=("png",), only_with={"background": ("transparent",)}), False),
        (Parameter(values=("png",), not_with={"background": ("transparent",)}), False),
    ],
)
def test_lists_of_values_that_are_all_there_is_to_know(parameter, is_choice):
    """A value of the list may still be refused or replaced where there is another rule."""
    assert Contract(parameters={"field": parameter}).choices == ({"field": parameter.values} if is_choice else {})
    if is_choice:
        for value in parameter.values:
            parameter.check("field", value)


def test_a_long_value_is_not_quoted_whole():
    """An error shows at most 64 characters of what the client wrote."""
    with pytest.raises(RequestError) as caught:
        Parameter(values=("a",)).check("x", "y" * 10_000)
    assert caught.value.message == "Invalid value: '" + "y" * 61 + "...'. Supported values are: 'a'."


# Families and merging


def test_every_family_makes_a_contract():
    """The families that ship are valid as they stand."""
    models = {name: {"family": name} for name in families()}
    contracts = load_contracts(ContractDocument(models=models))
    assert list(families()) == list(contracts)
    assert list(families()) == [contract.family for contract in contracts.values()]


@pytest.mark.parametrize(
    ("family", "rule", "field"),
    [
        ("gpt-image-1", ListRule, "size"),
        ("gpt-image-2", FlexibleRule, "size"),
        ("gpt-image-2.5", FlexibleRule, "size"),
        ("dall-e-2", ListRule, "size"),
        ("dall-e-3", ListRule, "size"),
        ("gemini-2-5-flash-image", RatioRule, "aspect_ratio"),
        ("gemini-3-pro-image", RatioTierRule, "aspect_ratio"),
        ("gemini-3-1-flash-image", RatioTierRule, "aspect_ratio"),
        ("grok-imagine-image", RatioTierRule, "aspect_ratio"),
        ("grok-imagine-image-2", RatioTierRule, "aspect_ratio"),
        ("seedream-4", FlexibleRule, "size"),
        ("seedream-4-5", FlexibleRule, "size"),
        ("seedream-5-lite", FlexibleRule, "size"),
        ("seedream-5-pro", FlexibleRule, "size"),
        ("flux-2", FlexibleRule, "size"),
        ("flux-1", FlexibleRule, "size"),
    ],
)
def test_families_have_the_size_rule_of_their_makers(family, rule, field):
    """Each family's size is of the shape that its maker documents."""
    contract = load_contracts(ContractDocument(models={"m": {"family": family}}))["m"]
    assert (rule, field) == (type(contract.size), contract.size.field)


@pytest.mark.parametrize(
    ("family", "limits"),
    [
        ("gpt-image-2", (16, 1, 3840, 655_360, 8_294_400, 3.0)),
        ("gpt-image-2.5", (16, 1, 3840, 655_360, 8_294_400, 3.0)),
        ("seedream-5-pro", (1, 1, 16_384, 921_600, 4_624_220, 16.0)),
        ("seedream-5-lite", (1, 1, 16_384, 3_686_400, 16_777_216, 16.0)),
        ("seedream-4-5", (1, 1, 16_384, 3_686_400, 16_777_216, 16.0)),
        ("seedream-4", (1, 1, 16_384, 921_600, 16_777_216, 16.0)),
        ("flux-2", (16, 64, 16_384, 1, 4_194_304, 100.0)),
        ("flux-1", (32, 256, 1440, 1, 268_435_456, 100.0)),
    ],
)
def test_flexible_families_have_their_makers_limits(family, limits):
    """Multiples, edges, areas and ratios are those of the makers' pages."""
    size = load_contracts(ContractDocument(models={"m": {"family": family}}))["m"].size
    found = (size.multiple, size.min_edge, size.max_edge, size.min_pixels, size.max_pixels, size.max_ratio)
    assert limits == found


def test_a_model_overrides_its_family_member_by_member():
    """Parameters and renames are merged by name, everything else replaces what the family has."""
    contract = load("""
        [families.base]
        size = { rule = "list", values = ["1x100"] }
        parameters = { a = { values = ["1"] }, b = { values = ["2"], max_length = 3 } }
        renames = { x = "a", y = "b" }

        [models.m]
        family = "base"
        size = { rule = "none" }
        parameters = { b = { values = ["3"] }, c = {} }
        renames = { y = "c" }
        """)
    assert {"a": Parameter(values=("1",)), "b": Parameter(values=("3",)), "c": Parameter()} == contract.parameters
    assert ({"x": "a", "y": "c"}, NoSizeRule(), "base") == (contract.renames, contract.size, contract.family)


def test_false_takes_out_what_the_family_has():
    """`false` removes a parameter, a rename or a rule."""
    contract = load("""
        [families.base]
        size = { rule = "list", values = ["1x100"] }
        references = { fields = ["image_urls"] }
        parameters = { a = {}, b = {} }
        renames = { x = "a", y = "b" }

        [models.m]
        family = "base"
        size = false
        references = false
        parameters = { a = false }
        renames = { x = false }
        """)
    assert ({"b": Parameter()}, {"y": "b"}) == (contract.parameters, contract.renames)
    assert (contract.size, contract.references) == (None, None)


def test_what_a_family_took_out_a_model_can_put_back():
    """The last word on a member is the model's."""
    contract = load("""
        [families.base]
        parameters = { a = {}, b = {} }
        [families.less]
        family = "base"
        parameters = { a = false, b = false }
        [models.m]
        family = "less"
        parameters = { a = { max_length = 5 } }
        """)
    assert {"a": Parameter(max_length=5)} == contract.parameters


def test_families_stand_on_families():
    """A chain of families is merged from its root, and the model names the nearest."""
    contract = load("""
        [families.one]
        parameters = { a = {}, b = {} }
        unknown = "pass"
        [families.two]
        family = "one"
        parameters = { b = { type = "integer" } }
        [families.three]
        family = "two"
        parameters = { c = {} }
        [models.m]
        family = "three"
        """)
    assert {"a": Parameter(), "b": Parameter(type="integer"), "c": Parameter()} == contract.parameters
    assert (contract.family, contract.unknown) == ("three", "pass")


def test_later_documents_override_earlier_ones():
    """Users change a shipped model by naming it again, with only what differs."""
    first = read_document("""
        [families.f]
        unknown = "pass"
        [models.m]
        family = "f"
        parameters = { a = {}, b = {} }
        [models.kept]
        parameters = { a = {} }
        """)
    second = read_document("""
        [families.f]
        renames = { x = "a" }
        [models.m]
        parameters = { b = { values = ["1"] } }
        [models.new]
        family = "dall-e-3"
        """)
    contracts = load_contracts(first, second)
    assert list(contracts) == ["m", "kept", "new"]
    assert {"a": Parameter(), "b": Parameter(values=("1",))} == contracts["m"].parameters
    assert (contracts["m"].unknown, contracts["m"].renames) == ("pass", {"x": "a"})


def test_a_document_does_not_change_the_shipped_families():
    """What one provider's file says of a family is nothing to another's."""
    load_contracts(
        read_document('[families.dall-e-3]\nparameters = { style = false }\n[models.m]\nfamily = "dall-e-3"')
    )
    assert "style" in load('[models.m]\nfamily = "dall-e-3"').parameters


def test_a_family_that_leads_back_to_itself_is_an_error():
    """Families that stand on each other are named, not followed for ever."""
    source = '[families.a]\nfamily = "b"\n[families.b]\nfamily = "a"\n[models.m]\nfamily = "a"'
    with pytest.raises(ConfigError, match=r"^models\.m: the family 'a' leads back to itself\.$"):
        load(source)


def test_an_unknown_family_is_an_error_that_lists_the_known_ones():
    """The message names the model, the key and what there is."""
    with pytest.raises(
        ConfigError, match=r"^models\.m\.family: there is no family 'dalle'\. Known: .*dall-e-2, dall-e-3"
    ):
        load('[models.m]\nfamily = "dalle"')


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sizes = 5", "unknown field `sizes`"),
        ("size = 5", "$.size"),
        ('size = { rule = "round" }', "$.size.rule"),
        ('size = { rule = "list" }', "missing required field `values`"),
        ('size = { rule = "list", values = ["1x100"], tiers = [] }', "unknown field `tiers`"),
        ("parameters = 5", "$.parameters"),
        ("parameters = { a = 5 }", "$.parameters"),
        ('parameters = { a = { type = "text" } }', ".type"),
        ('parameters = { a = { vlaues = ["x"] } }', "unknown field `vlaues`"),
        ("references = { fields = 5 }", "$.references.fields"),
        ('unknown = "keep"', "$.unknown"),
    ],
)
def test_a_contract_that_is_wrong_is_an_error_that_says_where(body, said):
    """The message names the model and the key."""
    with pytest.raises(ConfigError) as caught:
        load(f"[models.m]\n{body}")
    assert str(caught.value).startswith("models.m: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        'size = { rule = "list", values = ["huge"] }',
        'size = { rule = "ratio", ratios = ["wide"] }',
        'size = { rule = "ratio_tier", ratios = ["1:1"], tiers = ["big"] }',
        'size = { rule = "ratio_tier", ratios = ["1:1"], tiers = ["1K"], default_tier = "large" }',
        'size = { rule = "flexible", multiple = 0 }',
        'size = { rule = "flexible", tiers = { big = { "1:1" = "1024x1024" } } }',
        'size = { rule = "flexible", tiers = { 1K = { "1:1" = "large" } } }',
    ],
)
def test_sizes_that_no_request_could_be_fitted_to_are_an_error(body):
    """A size rule is looked at when it is loaded, not when the first client asks."""
    with pytest.raises(ConfigError, match=r"^models\.m"):
        load(f"[models.m]\n{body}")


@pytest.mark.parametrize(
    "source",
    [
        '[models.m]\nfamily = ["dall-e-3"]',
        "[models.m]\nfamily = 5",
        "[models.m]\nfamily = { a = 1 }",
    ],
)
def test_values_of_a_wrong_type_are_config_errors(source):
    """Whatever type a key has in the file, the answer is an error with the model's name."""
    with pytest.raises(ConfigError, match=r"^models\.m"):
        load(source)


def test_a_family_can_take_out_all_parameters():
    """A model that stands on a family without any has its own."""
    contract = load("""
        [families.f]
        family = "dall-e-3"
        parameters = false
        [models.m]
        family = "f"
        parameters = { prompt = {} }
        """)
    assert {"prompt": Parameter()} == contract.parameters


@pytest.mark.parametrize("source", ["models", "[models", "models = 5", "[models]\nm = 5", "[model.m]", "a = 1"])
def test_text_that_is_no_contract_file_is_an_error(source):
    """Broken TOML, other tables and other types are refused."""
    with pytest.raises(ConfigError, match=r"^This is no contract file: "):
        read_document(source)


@pytest.mark.parametrize(
    ("parameters", "most"),
    [
        ("{}", 1),
        ("{ n = { type = 'integer', min = 1, max = 10 } }", 10),
        ("{ n = { type = 'integer', max = 1 } }", 1),
        ("{ n = { type = 'integer' } }", 1),
    ],
)
def test_a_contract_knows_how_many_images_one_request_may_ask_for(parameters, most):
    """The maximum of `n`, and one where the model has no `n` or says nothing."""
    assert most == load(f"[models.m]\nparameters = {parameters}").max_images
