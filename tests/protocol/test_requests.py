"""Reading requests with OpenAI's own checks and words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.contracts.parameter import Parameter
from imagegate.errors import RequestError
from imagegate.protocol import requests as openai
from imagegate.protocol.requests import (
    _DECODER,
    MAX_NESTING,
    _plain_object,
    from_text,
    parse_object,
    read_form_fields,
    read_json,
)

STRINGS = (
    "aspect_ratio",
    "background",
    "moderation",
    "output_format",
    "quality",
    "resolution",
    "response_format",
    "safety_identifier",
    "size",
    "style",
    "user",
)
INTEGERS = ("n", "output_compression", "partial_images")
BOOLEANS = ("stream",)
VALUES = {
    "a string": '"auto"',
    "an integer": "1",
    "a decimal number": "1.5",
    "a boolean": "true",
    "an array": "[1]",
    "an object": "{}",
}


def body(**members: str) -> bytes:
    """A valid request, with the members as raw JSON beside it."""
    parts = {"model": '"gpt-image-2"', "prompt": '"a hat"', **members}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in parts.items()) + "}").encode()


def read(source: bytes, *, max_prompt: int = 32_000) -> Any:
    return read_json(source, "generations", max_prompt=max_prompt)


def refusal(source: bytes, **options: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(source, **options)
    assert caught.value.status == 400
    return caught.value


# Types and null


@pytest.mark.parametrize(
    ("name", "words", "fitting"),
    [
        *((name, "a string", "a string") for name in STRINGS if name != "response_format"),
        *((name, "an integer", "an integer") for name in INTEGERS),
        *((name, "a boolean", "a boolean") for name in BOOLEANS),
    ],
)
@pytest.mark.parametrize("got", VALUES)
def test_known_members_have_their_type(name, words, fitting, got):
    """A member of another JSON type is refused in OpenAI's words, before any contract is looked at."""
    source = body(**{name: VALUES[got]})
    if got == fitting:
        assert json.loads(VALUES[got]) == read(source).fields[name]
        return
    error = refusal(source)
    expected = (f"Invalid type for '{name}': expected {words}, but got {got} instead.", name, "invalid_type")
    assert expected == (error.message, error.param, error.code)


@pytest.mark.parametrize("name", [*STRINGS, *INTEGERS, *BOOLEANS, "input_fidelity", "anything"])
def test_null_means_omitted(name):
    """A member that is null is as good as not there, and the bytes are not passed on with it."""
    request = read(body(**{name: "null"}))
    assert (request.fields, request.body) == ({"model": "gpt-image-2", "prompt": "a hat"}, None)


@pytest.mark.parametrize("name", ["model", "prompt"])
def test_null_is_an_error_for_what_is_required(name):
    """The required members must be there."""
    error = refusal(body(**{name: "null"}))
    message = f"Invalid type for '{name}': expected a string, but got null instead."
    assert (message, name, "invalid_type") == (error.message, error.param, error.code)


@pytest.mark.parametrize(
    ("source", "name"),
    [(b'{"prompt":"a hat"}', "model"), (b'{"model":"m"}', "prompt"), (b"{}", "model")],
)
def test_required_members_that_are_missing_are_named(source, name):
    """The model is asked for first."""
    error = refusal(source)
    expected = (f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    assert expected == (error.message, error.param, error.code)


@pytest.mark.parametrize(
    ("name", "value", "message", "code"),
    [
        ("n", "0", "integer below minimum value. Expected a value >= 1, but got 0 instead.", "integer_below_min_value"),
        (
            "n",
            "-1",
            "integer below minimum value. Expected a value >= 1, but got -1 instead.",
            "integer_below_min_value",
        ),
        (
            "output_compression",
            "101",
            "integer above maximum value. Expected a value <= 100, but got 101 instead.",
            "integer_above_max_value",
        ),
        (
            "partial_images",
            "4",
            "integer above maximum value. Expected a value <= 3, but got 4 instead.",
            "integer_above_max_value",
        ),
    ],
)
def test_numbers_out_of_bounds_are_refused(name, value, message, code):
    """The bounds that hold for every model are checked here, the models' own by their contracts."""
    error = refusal(body(**{name: value}))
    assert (f"Invalid '{name}': {message}", name, code) == (error.message, error.param, error.code)


def test_a_response_format_is_one_of_two():
    """What no delivery knows is refused at once."""
    error = refusal(body(response_format='"b64"'))
    expected = ("Invalid value: 'b64'. Supported values are: 'url', and 'b64_json'.", "response_format")
    assert expected == (error.message, error.param)


@pytest.mark.parametrize("name", ["size", "aspect_ratio", "resolution"])
def test_sizes_have_a_length(name):
    """64 characters are read, more are refused before anything is made of them."""
    read(body(**{name: f'"{"1" * 64}"'}))
    error = refusal(body(**{name: f'"{"1" * 65}"'}))
    assert (name, "string_above_max_length") == (error.param, error.code)


@pytest.mark.parametrize("value", ["1024", "true", "[1024,1024]", '{"width":1024,"height":1024}'])
def test_a_size_is_text(value):
    """Numbers, pairs and objects are refused as OpenAI refuses them."""
    error = refusal(body(size=value))
    assert (error.param, error.code) == ("size", "invalid_type")


# Model and prompt


@pytest.mark.parametrize("value", ['""', '" "', '"\\n\\t"'])
def test_a_model_has_a_name(value):
    """An empty name is no model."""
    error = refusal(body(model=value))
    assert (error.param, error.code) == ("model", "invalid_value")


def test_an_empty_prompt_is_refused():
    """OpenAI has a code of its own for it."""
    error = refusal(body(prompt='""'))
    message = (
        "Invalid 'prompt': empty string. Expected a string with minimum length 1, but got an empty string instead."
    )
    assert (message, "prompt", "empty_string") == (error.message, error.param, error.code)


@pytest.mark.parametrize("prompt", [" ", "\n", "x" * 20, "日" * 20, "😀" * 20])
def test_prompts_are_counted_in_characters(prompt):
    """Blank prompts pass as they do at OpenAI, and the limit counts characters, not bytes."""
    assert prompt == read(body(prompt=json.dumps(prompt)), max_prompt=20).fields["prompt"]


def test_a_prompt_that_is_too_long_is_refused():
    """The message has both numbers."""
    error = refusal(body(prompt='"123456"'), max_prompt=5)
    message = (
        "Invalid 'prompt': string too long. Expected a string with maximum length 5, "
        "but got a string with length 6 instead."
    )
    assert (message, "prompt", "string_above_max_length") == (error.message, error.param, error.code)


def test_variations_need_no_prompt():
    """A variation starts from an image alone, and a prompt that is there is checked all the same."""
    request = read_json(b'{"model":"m"}', "variations", max_prompt=10)
    assert (request.fields, request.operation) == ({"model": "m"}, "variations")
    with pytest.raises(RequestError) as caught:
        read_json(b'{"model":"m","prompt":5}', "variations", max_prompt=10)
    assert caught.value.param == "prompt"


# JSON


@pytest.mark.parametrize("source", [b"", b" ", b"null", b"true", b"5", b'"text"', b"[]", b'[{"model":"m"}]'])
def test_a_body_is_an_object(source):
    """Nothing else is a request."""
    error = refusal(source)
    assert (error.param, error.code) == (None, "invalid_json")
    assert error.message in ("The body must be a JSON object.", "The body is no valid JSON.")


@pytest.mark.parametrize(
    "source",
    [
        b"{",
        b'{"model":"m",}',
        b"{'model':'m'}",
        b'{"model":"m"} x',
        b'{"model":"m"}{"model":"m"}',
        b'{model:"m"}',
        b'{"a":01}',
        b'{"a":.5}',
        b'{"a":1.}',
        b'{"a":+1}',
        b'{"a":0x10}',
        b'{"a":1 /* one */}',
        b'{"a":"line\nbreak"}',
        b'{"a":"\\x41"}',
        b'{"a":"\\u12"}',
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":"\xc3"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\xaf"}',
        '{"a":1}'.encode("utf-16"),
        b"model=m&prompt=x",
    ],
)
def test_what_is_no_json_is_refused(source):
    """Broken JSON and broken UTF-8 are an error of the request."""
    error = refusal(source)
    assert (error.message, error.param, error.code) == ("The body is no valid JSON.", None, "invalid_json")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("NaN", "NaN is no JSON number."),
        ("Infinity", "Infinity is no JSON number."),
        ("-Infinity", "-Infinity is no JSON number."),
        ("[NaN]", "NaN is no JSON number."),
        ("1e999", "A number is out of range."),
        ("-1e999", "A number is out of range."),
        pytest.param("1" + "0" * 400 + ".0", "A number is out of range.", id="401 digits and a point"),
        (str(2**63), "An integer is out of range."),
        (str(-(2**63) - 1), "An integer is out of range."),
        ("9" * 24, "An integer is out of range."),
        pytest.param("-" + "9" * 100_000, "An integer is out of range.", id="100,000 digits"),
        ('{"a":1,"a":1}', "The member 'a' appears twice."),
        ('[{"a":null,"b":1,"a":2}]', "The member 'a' appears twice."),
        ('{"\\ud800":1,"\\ud800":2}', "The member '\\ud800' appears twice."),
    ],
)
def test_json_that_python_reads_and_others_do_not_is_refused(value, reason):
    """Constants, numbers that nothing can hold and members that appear twice are told as such."""
    error = refusal(body(extra=value))
    assert (f"The body is no valid JSON. {reason}", "invalid_json") == (error.message, error.code)


def test_a_member_of_the_request_appears_once():
    """Two models would be read differently by different readers."""
    error = refusal(b'{"model":"a","prompt":"x","model":"b"}')
    assert error.message == "The body is no valid JSON. The member 'model' appears twice."


def test_a_long_name_that_appears_twice_is_not_quoted_whole():
    """An error stays short, whatever was sent."""
    name = "x" * 100_000
    assert len(refusal(body(extra=f'{{"{name}":1,"{name}":2}}')).message) < 200


@pytest.mark.parametrize(
    "value",
    ['"\\ud800"', '"\\udc00x"', '{"\\ud800":1}', '["\\ud83d"]', '"\\ude00\\ud83d"'],
)
def test_lone_surrogates_are_refused(value):
    """No provider could be sent half a character."""
    error = refusal(body(extra=value))
    assert (error.message, error.code) == ("The body is no valid JSON.", "invalid_json")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"\\ud83d\\ude00"', "😀"),
        ('"😀"', "😀"),
        ('"\\u0000"', "\x00"),
        ('"\\\\ud800"', "\\ud800"),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        ("1e308", 1e308),
        ("1e-999", 0.0),
        ("-0", 0),
        ("1.0", 1.0),
        ('""', ""),
        ("false", False),
        ("[null]", [None]),
        ('{"a":null}', {"a": None}),
    ],
)
def test_other_values_are_read_as_they_are(value, expected):
    """Pairs of surrogates are a character, numbers keep their type, and null inside a member stays."""
    found = read(body(extra=value)).fields["extra"]
    assert (expected, type(expected)) == (found, type(found))


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize(
    ("depth", "legal"),
    [(MAX_NESTING - 1, True), (MAX_NESTING, False), (500, False), (990, False), (5000, False), (100_000, False)],
)
def test_nesting_has_a_bound(opened, closed, depth, legal):
    """64 levels are read, the body's own among them; any more are refused, however many."""
    source = body(extra=opened * depth + "1" + closed * depth)
    if legal:
        assert read(source).model == "gpt-image-2"
        return
    assert refusal(source).code == "invalid_json"


def test_unclosed_brackets_are_refused():
    """100,000 opened brackets overflow nothing."""
    for source in (b"[" * 100_000, b'{"a":' * 100_000, body(extra="[" * 100_000)):
        assert refusal(source).code == "invalid_json"


@pytest.mark.parametrize("inner", ["[]", "{}", "1"])
def test_members_have_a_bound(inner):
    """No request needs hundreds of thousands of values; they are refused before they are read."""
    error = refusal(body(extra="[" + f"{inner}," * 250_000 + "1]"))
    assert (error.message, error.code) == ("The body has more members than any request needs.", "invalid_json")


class Counted(str):
    """Text that counts how often it is compared."""

    compared = 0
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)


def test_finding_a_member_that_appears_twice_takes_one_look_at_each():
    """A body of many members with a pair at the end costs no more than one without: 32 MiB hold two million names."""
    count = 2000
    names = [Counted(number) for number in [*range(count), count - 1]]
    Counted.compared = 0
    with pytest.raises(ValueError, match=f"'{count - 1}' appears twice"):
        openai._unique([(name, None) for name in names])
    assert Counted.compared < 20 * count


# What comes out


def test_bytes_are_kept_where_they_say_the_same():
    """A request without nulls goes on in the client's own bytes, spaces and order included."""
    source = b' { "prompt" : "\\u0061 hat", "n":1, "model":"m" } '
    request = read(source)
    assert source == request.encode()
    assert list(request.fields) == ["prompt", "n", "model"]
    assert (request.model, request.n, request.operation) == ("m", 1, "generations")


def test_bytes_with_null_are_written_anew():
    """Null would be an error for some models, so it is not sent."""
    request = read(b'{"model":"m","n":null,"prompt":"p","extra":{"a":null}}')
    assert request.encode() == b'{"model":"m","prompt":"p","extra":{"a":null}}'


@pytest.mark.parametrize(("member", "n"), [({}, 1), ({"n": "4"}, 4)])
def test_n_is_one_where_nothing_is_said(member, n):
    """A request asks for one image unless it says otherwise."""
    assert n == read(body(**member)).n


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(st.characters(exclude_categories=()), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(
    st.sampled_from(["model", "prompt", *STRINGS, *INTEGERS, *BOOLEANS, "metadata"]) | st.text(max_size=4),
    JSON | st.sampled_from(["auto", "url", "gpt-image-2", "1024x1024", 1, 2, True]),
    max_size=6,
)


@given(OBJECTS, st.booleans(), st.sampled_from([None, 2]))
def test_any_object_is_read_as_python_reads_it_or_refused(members, escape, indent):
    """Members come out equal to `json.loads`, without the nulls, or a `RequestError` says what is wrong."""
    members = {"model": "m", "prompt": "p", **members}
    source = json.dumps(members, ensure_ascii=escape, indent=indent).encode("utf-8", "surrogatepass")
    try:
        request = read(source)
    except RequestError as error:
        refused = error
    else:
        expected = {name: value for name, value in json.loads(source).items() if value is not None}
        assert json.dumps(expected) == json.dumps(dict(request.fields))
        assert json.loads(request.encode()) == expected
        return
    assert (refused.status, refused.type) == (400, "invalid_request_error")
    assert refused.param in (None, *members)
    assert len(refused.body()) < 2000


@given(st.binary(max_size=60) | st.text('{}[]",:\\u0d8e1.-+ntf', max_size=40).map(str.encode))
def test_any_bytes_are_an_object_or_refused(source):
    """Whatever the bytes, an object comes out or a `RequestError`."""
    try:
        found = parse_object(source)
    except RequestError as error:
        refused = error
    else:
        assert json.loads(source) == found
        return
    assert refused.code == "invalid_json"


# Forms


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("integer", "3", 3),
        ("integer", " 3 ", 3),
        ("integer", "-3", -3),
        ("integer", "+3", 3),
        ("integer", "007", 7),
        ("number", "0.5", 0.5),
        ("number", "2", 2.0),
        ("boolean", "true", True),
        ("boolean", "True", True),
        ("boolean", "1", True),
        ("boolean", "false", False),
        ("boolean", "0", False),
        ("object", ' {"a": 1}', {"a": 1}),
        ("object", "a", "a"),
        ("string", " x ", " x "),
        ("string", "3", "3"),
    ],
)
def test_a_forms_text_becomes_the_parameters_type(kind, text, expected):
    """Forms know only text; numbers and booleans are read from it."""
    found = from_text("x", text, Parameter(type=kind))
    assert (expected, type(expected)) == (found, type(found))


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("integer", "abc", "an integer"),
        ("integer", "1.5", "an integer"),
        ("integer", "", "an integer"),
        ("integer", "١", "an integer"),
        ("integer", "1_0", "an integer"),
        pytest.param("integer", "9" * 5000, "an integer", id="5000 digits"),
        ("number", "nan", "a number"),
        ("number", "1e5", "a number"),
        ("number", "inf", "a number"),
        ("boolean", "yes", "a boolean"),
        ("boolean", "", "a boolean"),
        ("object", '{"a": 1, "a": 2}', "an object"),
    ],
)
def test_a_forms_text_of_another_type_is_refused(kind, text, words):
    """The error has OpenAI's words for forms."""
    with pytest.raises(RequestError) as caught:
        from_text("x", text, Parameter(type=kind))
    message = (
        f"Invalid type for 'x': expected {words}, but got a string value that could not be converted into {words}."
    )
    assert (message, "x", "invalid_type") == (caught.value.message, caught.value.param, caught.value.code)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("n", "2"), ("stream", "false")], {"n": 2, "stream": False}),
        ([("refs[]", "a"), ("refs[]", "b")], {"refs": ["a", "b"]}),
        (
            [("svg[model]", "x"), ("svg[reasoning][effort]", "low")],
            {"svg": {"model": "x", "reasoning": {"effort": "low"}}},
        ),
        ([("size", "1024x1024"), ("unknown", "5")], {"size": "1024x1024", "unknown": "5"}),
        ([("odd]name", "x"), ("[", "y")], {"odd]name": "x", "[": "y"}),
    ],
)
def test_the_text_parts_of_a_form_are_members(pairs, expected):
    """Names with brackets are lists and objects, as the official clients write them."""
    pairs = [("model", "m"), ("prompt", "p"), *pairs]
    assert {"model": "m", "prompt": "p", **expected} == read_form_fields(pairs, "edits", max_prompt=100)


@pytest.mark.parametrize(
    ("pairs", "param"),
    [
        ([("n", "1"), ("n", "2")], "n"),
        ([("a", "1"), ("a[]", "2")], "a[]"),
        ([("a", "1"), ("a[b]", "2")], "a[b]"),
        ([("a[b]", "1"), ("a[b]", "2")], "a[b]"),
        ([("a[]", "1"), ("a[b]", "2")], "a[b]"),
        ([("a[b]", "1"), ("a", "2")], "a"),
    ],
)
def test_parts_of_a_form_that_contradict_each_other_are_refused(pairs, param):
    """A part that appears twice, or as two things, is named."""
    with pytest.raises(RequestError) as caught:
        read_form_fields([("model", "m"), ("prompt", "p"), *pairs], "edits", max_prompt=100)
    assert (param, f"The part '{param}' appears twice.") == (caught.value.param, caught.value.message)


@pytest.mark.parametrize(
    ("pairs", "param", "code"),
    [
        ([("prompt", "p")], "model", "missing_required_parameter"),
        ([("model", "m")], "prompt", "missing_required_parameter"),
        ([("model", "m"), ("prompt", "")], "prompt", "empty_string"),
        ([("model", "m"), ("prompt", "p"), ("n", "0")], "n", "integer_below_min_value"),
        ([("model", "m"), ("prompt", "p"), ("n", "abc")], "n", "invalid_type"),
        ([("model[]", "m"), ("prompt", "p")], "model", "invalid_type"),
        ([("model", "m"), ("prompt", "p"), ("size[]", "1:1")], "size", "invalid_type"),
    ],
)
def test_forms_are_checked_like_json(pairs, param, code):
    """What holds for a body in JSON holds for a form."""
    with pytest.raises(RequestError) as caught:
        read_form_fields(pairs, "edits", max_prompt=100)
    assert (param, code) == (caught.value.param, caught.value.code)


@given(st.lists(st.tuples(st.text("ab[]n", max_size=8), st.text(max_size=4)), max_size=6))
def test_any_form_is_read_or_refused(pairs):
    """Whatever the names of the parts, members come out or a `RequestError`."""
    try:
        found = read_form_fields([("model", "m"), ("prompt", "p"), *pairs], "edits", max_prompt=100)
    except RequestError as error:
        refused = error
    else:
        assert (found["model"], found["prompt"]) == ("m", "p")
        return
    assert refused.status == 400


_NAMES = st.sampled_from(["model", "n", "a/b", r"a\/b", r"\u006e", r"x\":", ""])
_NUMBERS = ["1", "-0", "65536", "1.0", "1e2", "01", "NaN", str(2**63 - 1), str(2**63), str(-(2**63)), "9" * 30]
_VALUES = st.sampled_from([*_NUMBERS, '"p"', r'"\":"', r'"\ud800"', "true", "null", "{}", "[1]"])


@given(st.lists(st.tuples(_NAMES, st.sampled_from(["", " ", "\n\t"]), _VALUES), max_size=5))
def test_plain_bodies_read_as_careful_ones(members):
    """The short way gives what the long one gives, or leaves it to it: types, duplicates, escapes, odd numbers."""
    body = "{" + ",".join(f'"{name}"{space}:{space}{value}' for name, space, value in members) + "}"
    plain = _plain_object(body.encode())
    if plain is not None:
        careful = _DECODER.decode(body)
        assert plain == careful
        assert [*map(type, plain.values())] == [*map(type, careful.values())]


def test_what_most_clients_send_is_plain():
    """Else the short way would be no use."""
    body = rb'{"model": "m", "prompt": "a\nb", "n": 1, "size": "1024x1024", "stream": false, "user": null}'
    assert _plain_object(body) == json.loads(body)
