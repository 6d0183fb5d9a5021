"""Fit: what a contract makes of a request, and that every change is told."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.contracts.changes import Change
from imagegate.contracts.contract import Contract
from imagegate.contracts.documents import ContractDocument, load_contracts
from imagegate.contracts.parameter import Parameter
from imagegate.contracts.reference_rule import ReferenceRule
from imagegate.contracts.size_syntax import Pixels, Ratio, Tier
from imagegate.contracts.sizes import ListRule, RatioRule, RatioTierRule, Wanted
from imagegate.errors import RequestError
from imagegate.fitting.fit import VARIATION_PROMPT, fit
from imagegate.fitting.size_fields import wanted_size
from imagegate.protocol.messages import ImageRequest, Link
from imagegate.testing import MemoryFile, png

PROMPT = {"prompt": {"max_length": 32_000}}
GEMINI = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")


def family(name: str, **over: Any) -> Contract:
    """A model of a family, with `prompt` where the family leaves members to relays."""
    return load_contracts(ContractDocument(models={"m": {"family": name, "parameters": PROMPT, **over}}))["m"]


def request(**fields: Any) -> ImageRequest:
    return ImageRequest(operation="generations", fields={"model": "m", "prompt": "a hat", **fields}, body=b"{}")


def ask(contract: Contract, policy: str = "nearest", **fields: Any) -> tuple[dict[str, Any], list[Change]]:
    """What becomes of the members beside model and prompt, and the changes."""
    fitted, changes = fit(request(**fields), contract, policy=policy)
    rest = {name: value for name, value in fitted.fields.items() if name not in ("model", "prompt")}
    return rest, list(changes)


def refusal(contract: Contract, policy: str = "nearest", **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        fit(request(**fields), contract, policy=policy)
    assert caught.value.status == 400
    return caught.value


# What is legal


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("gpt-image-1", {"size": "1536x1024", "quality": "high", "n": 2, "background": "transparent"}),
        ("gpt-image-1", {"size": "auto"}),
        ("gpt-image-2", {"size": "1920x1088", "output_format": "webp", "output_compression": 80}),
        ("gpt-image-2", {"size": "auto", "moderation": "low", "user": "u", "safety_identifier": "s"}),
        ("gpt-image-2.5", {"quality": "max", "output_format": "gif", "frame_count": 4}),
        ("dall-e-3", {"size": "1792x1024", "style": "vivid", "quality": "hd", "response_format": "url", "n": 1}),
        ("dall-e-2", {"size": "256x256", "response_format": "b64_json", "n": 10}),
        ("grok-imagine-image", {"aspect_ratio": "19.5:9", "resolution": "2k", "n": 3}),
        ("grok-imagine-image", {"aspect_ratio": "auto"}),
        ("grok-imagine-image-2", {"aspect_ratio": "1:1", "resolution": "1.5k", "quality": "low"}),
        ("gemini-2-5-flash-image", {"aspect_ratio": "16:9"}),
        ("gemini-3-pro-image", {"aspect_ratio": "16:9", "resolution": "4K"}),
        ("gemini-3-1-flash-image", {"aspect_ratio": "8:1", "resolution": "512"}),
        ("seedream-4-5", {"size": "2K"}),
        ("seedream-5-lite", {"size": "3K"}),
        ("seedream-5-pro", {"size": "1.5K"}),
        ("seedream-4", {"size": "2720x1536"}),
        ("flux-2", {"size": "1024x768"}),
    ],
)
@pytest.mark.parametrize("policy", ["nearest", "strict", "pass"])
def test_what_is_legal_is_not_touched(name, fields, policy):
    """A request that the model takes is handed on as the very same object, without a change."""
    asked = request(**fields)
    fitted, changes = fit(asked, family(name), policy=policy)
    assert fitted is asked
    assert changes == ()


def test_pass_touches_nothing_at_all():
    """With the policy `pass` the provider decides, whatever the contract says."""
    asked = request(size="bogus", style=5, mask="x", image_urls=[1], operation="y", background="transparent")
    assert fit(asked, family("gpt-image-1"), policy="pass") == (asked, ())


def test_a_changed_request_loses_its_bytes_and_nothing_else():
    """The client's bytes go only where they are still true; members keep their order."""
    asked = request(style="vivid", size="1792x1024", n=2)
    fitted, _ = fit(asked, family("gpt-image-1"))
    assert fitted.body is None
    assert list(fitted.fields) == ["model", "prompt", "size", "n"]
    assert asked.fields["size"] == "1792x1024"


# Names


@pytest.mark.parametrize(
    ("name", "fields", "expected", "changes"),
    [
        (
            "gpt-image-2",
            {"compression": 50, "output_format": "jpeg"},
            {"output_compression": 50, "output_format": "jpeg"},
            [Change("compression", "renamed", "compression", "output_compression")],
        ),
        (
            "gpt-image-2",
            {"compression": 50, "output_compression": 60, "output_format": "jpeg"},
            {"output_compression": 60, "output_format": "jpeg"},
            [Change("compression", "dropped")],
        ),
        (
            "dall-e-3",
            {"safety_identifier": "s"},
            {"user": "s"},
            [Change("safety_identifier", "renamed", "safety_identifier", "user")],
        ),
        (
            "dall-e-3",
            {"safety_identifier": "s", "user": "u"},
            {"user": "s"},
            [Change("user", "dropped"), Change("safety_identifier", "renamed", "safety_identifier", "user")],
        ),
        (
            "dall-e-3",
            {"safety_identifier": "", "user": "u"},
            {"user": "u"},
            [Change("safety_identifier", "dropped")],
        ),
    ],
)
def test_members_with_a_twin_are_renamed(name, fields, expected, changes):
    """The model's own name, where it was sent too, wins over the other one; but a safety identifier beats a user."""
    assert (expected, changes) == ask(family(name), **fields)


def test_what_was_renamed_and_then_dropped_is_one_change():
    """The model's name of it is in no request that goes out."""
    speed = {"values": ["TURBO", "QUALITY"], "translate": {"high": "QUALITY"}, "omit": ["auto"]}
    contract = family(
        "dall-e-3", renames={"quality": "rendering_speed"}, parameters={**PROMPT, "rendering_speed": speed}
    )
    assert ask(contract, quality="auto") == ({}, [Change("quality", "dropped")])
    expected = [
        Change("quality", "renamed", "quality", "rendering_speed"),
        Change("rendering_speed", "mapped", "high", "QUALITY"),
    ]
    assert ask(contract, quality="high") == ({"rendering_speed": "QUALITY"}, expected)


def test_a_size_that_becomes_the_default_is_one_change():
    """It was left out for the model's sake, and then the default was put in its place."""
    size = {"rule": "list", "values": ["1328x1328"]}
    contract = family("dall-e-3", size=size, parameters={**PROMPT, "size": {"default": "1328x1328"}})
    assert ask(contract, size="auto") == ({"size": "1328x1328"}, [Change("size", "mapped", "auto", "1328x1328")])
    assert ask(contract) == ({"size": "1328x1328"}, [Change("size", "added", to="1328x1328")])


FLAT = ["width", "height"]
EDGES = {"size": {"rule": "flexible", "multiple": 32, "min_edge": 256, "max_edge": 1440}}


@pytest.mark.parametrize(
    ("edges", "fields", "expected", "changes"),
    [
        (["width", "height"], {"width": 1024, "height": 768}, {"size": "1024x768"}, []),
        (["width", "height"], {"width": 1000, "height": 750}, {"size": "1024x768"}, ["size"]),
        (
            ["image_size.width", "image_size.height"],
            {"image_size": {"width": 512, "height": 512}},
            {"size": "512x512"},
            [],
        ),
        (
            ["width", "height"],
            {"width": 1024, "height": 768, "size": "512x512"},
            {"size": "512x512"},
            ["width", "height"],
        ),
        (["width", "height"], {"width": 1024}, {}, ["width"]),
        (["width", "height"], {"width": 1024, "height": True}, {}, ["width", "height"]),
        (["width", "height"], {"width": 1024, "height": -1}, {}, ["width", "height"]),
    ],
)
def test_width_and_height_of_the_models_own_are_a_size(edges, fields, expected, changes):
    """They are fitted like any other; half a size is none."""
    contract = family("dall-e-3", body={"edges": edges}, **EDGES)
    found, told = ask(contract, **fields)
    assert (found, [change.field for change in told]) == (expected, changes)


def test_width_and_height_of_a_form_are_text():
    fields = {"model": "m", "prompt": "a hat", "width": "1024", "height": "768"}
    asked = ImageRequest(operation="generations", fields=fields, from_form=True)
    fitted, changes = fit(asked, family("dall-e-3", body={"edges": FLAT}, **EDGES))
    assert (fitted.fields["size"], changes) == ("1024x768", ())


@pytest.mark.parametrize(
    ("said", "expected", "changes"),
    [
        ({"image_size": "landscape_4_3"}, {"size": "1024x768"}, []),
        ({"image_size": "tall"}, {"size": "480x1440"}, ["size"]),
        ({"image_size": "unknown"}, {}, ["image_size"]),
        ({"image_size": "landscape_4_3", "size": "512x512"}, {"size": "512x512"}, ["image_size"]),
    ],
)
def test_a_providers_words_are_sizes(said, expected, changes):
    """They are fitted like any other; the client's `size` wins."""
    words = {"landscape_4_3": "1024x768", "tall": "512x1500"}
    body = {"edges": ["image_size.width", "image_size.height"], "size_words": words}
    found, told = ask(family("dall-e-3", body=body, **EDGES), **said)
    assert (found, [change.field for change in told]) == (expected, changes)


def test_errors_about_a_size_name_the_clients_member():
    """Also where it came as width and height, or under a name that the model does not have."""
    ratios = {"rule": "list", "values": ["1024x1024"]}
    nested = family("dall-e-3", body={"edges": ["image_size.width", "image_size.height"]}, size=ratios)
    assert refusal(nested, image_size={"width": 100, "height": 4000}).param == "image_size"
    renamed = family("dall-e-3", renames={"image_size": "size"}, size=ratios)
    assert refusal(renamed, image_size="100x4000").param == "image_size"
    assert refusal(renamed, image_size={"width": 1024, "height": 1024}).param == "image_size"


PICTURE = "https://images.example/1.png"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("input_image", PICTURE),
        ("input_image_2", "data:image/png;base64,iVBORw0KGgo="),
        ("image_input", [PICTURE]),
        ("input_references", [{"type": "image_url", "image_url": {"url": PICTURE}}]),
        ("mask_image_url", PICTURE),
        ("input_image_mask", {"file_id": "f"}),
        ("reference_image_b64", base64.b64encode(png(64, 64)).decode()),
    ],
)
def test_references_under_a_providers_own_name_are_never_dropped(member, value):
    """Without them another picture would be made, and paid for."""
    error = refusal(family("dall-e-3"), **{member: value})
    assert (error.param, error.code) == (member, "unsupported_parameter")
    assert ask(family("dall-e-3", unknown="pass"), **{member: value}) == ({member: value}, [])


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("image_size", "landscape_4_3"),
        ("image_prompt_strength", 0.5),
        ("mask_blur", 4),
        ("reference_mode", "style"),
        ("image_format", {"type": "png"}),
        ("callback", PICTURE),
        ("images_per_prompt", []),
    ],
)
def test_members_that_only_sound_like_references_are_dropped(member, value):
    assert ask(family("dall-e-3"), **{member: value}) == ({}, [Change(member, "dropped")])


@pytest.mark.parametrize("member", ["input_fidelity", "style", "response_format", "seed", "größe", ""])
def test_members_that_the_model_does_not_have_are_dropped(member):
    """An unknown member is left out, which is told."""
    assert ({}, [Change(member, "dropped")]) == ask(family("gpt-image-2"), **{member: "x"})


def test_members_that_no_contract_names_pass_where_it_says_so():
    """A contract may leave unknown members to the provider."""
    assert ask(family("gpt-image-2", unknown="pass"), seed=5) == ({"seed": 5}, [])


def test_strict_refuses_unknown_members_as_openai_does():
    """Nothing is dropped from a strict request."""
    error = refusal(family("gpt-image-2"), "strict", style="vivid")
    assert (error.message, error.param, error.code) == ("Unknown parameter: 'style'.", "style", "unknown_parameter")


@pytest.mark.parametrize("policy", ["nearest", "strict"])
def test_response_format_is_ours_to_honour(policy):
    """The gateway delivers the form itself, so leaving it out for the model loses nothing."""
    dropped = [Change("response_format", "dropped")]
    assert ({}, dropped) == ask(family("gpt-image-2"), policy, response_format="url")


# Values

QUALITY = [
    ("gpt-image-1", "standard", "medium"),
    ("gpt-image-2", "standard", "medium"),
    ("gpt-image-2", "hd", "high"),
    ("gpt-image-2", "xhigh", "high"),
    ("gpt-image-2", "max", "high"),
    ("gpt-image-2.5", "hd", "high"),
    ("dall-e-3", "medium", "standard"),
    ("dall-e-3", "high", "hd"),
    ("dall-e-3", "low", "standard"),
    ("grok-imagine-image-2", "standard", "medium"),
    ("grok-imagine-image-2", "high", "medium"),
]


@pytest.mark.parametrize(("name", "asked", "expected"), QUALITY)
def test_quality_speaks_the_models_words(name, asked, expected):
    """`standard` and `hd` are `medium` and `high` in other families; the next best word is told like a twin."""
    assert ({"quality": expected}, [Change("quality", "mapped", asked, expected)]) == ask(family(name), quality=asked)


@pytest.mark.parametrize(
    ("name", "asked"),
    [("gpt-image-2.5", "xhigh"), ("gpt-image-2", "low"), ("gpt-image-2", "auto"), ("dall-e-3", "hd")],
)
def test_quality_in_the_models_own_words_stays(name, asked):
    """A word that the model has is not translated."""
    assert ({"quality": asked}, []) == ask(family(name), quality=asked)


@pytest.mark.parametrize("policy", ["nearest", "strict"])
def test_a_value_that_asks_for_the_default_is_left_out(policy):
    """`auto` is what dall-e-3 does without a quality."""
    assert ({}, [Change("quality", "dropped")]) == ask(family("dall-e-3"), policy, quality="auto")


@pytest.mark.parametrize(("name", "word"), [("gpt-image-2", "hd"), ("dall-e-3", "high")])
def test_strict_translates_what_means_the_same(name, word):
    """A twin is no compromise."""
    assert len(ask(family(name), "strict", quality=word)[1]) == 1


@pytest.mark.parametrize(("name", "word"), [("gpt-image-2", "max"), ("dall-e-3", "low")])
def test_strict_refuses_the_next_best_value(name, word):
    """The next best is refused, with the words that the model has."""
    error = refusal(family(name), "strict", quality=word)
    assert (error.param, error.code) == ("quality", "invalid_value")
    assert error.message.startswith(f"Invalid value: '{word}'. Supported values are: ")


@pytest.mark.parametrize(
    ("name", "fields", "message", "code"),
    [
        (
            "gpt-image-2",
            {"quality": "ultra"},
            "Invalid value: 'ultra'. Supported values are: 'auto', 'low', 'medium', and 'high'.",
            "invalid_value",
        ),
        (
            "gpt-image-2",
            {"quality": ""},
            "Invalid value: ''. Supported values are: 'auto', 'low', 'medium', and 'high'.",
            "invalid_value",
        ),
        (
            "gpt-image-2",
            {"output_format": "gif"},
            "Invalid value: 'gif'. Supported values are: 'png', 'jpeg', and 'webp'.",
            "invalid_value",
        ),
        (
            "gpt-image-2",
            {"moderation": "bogus"},
            "Invalid value: 'bogus'. Supported values are: 'auto', and 'low'.",
            "invalid_value",
        ),
        (
            "gpt-image-2",
            {"n": 11},
            "Invalid 'n': integer above maximum value. Expected a value <= 10, but got 11 instead.",
            "integer_above_max_value",
        ),
        (
            "dall-e-3",
            {"n": 2},
            "Invalid 'n': integer above maximum value. Expected a value <= 1, but got 2 instead.",
            "integer_above_max_value",
        ),
        (
            "gpt-image-2.5",
            {"quality": 5},
            "Invalid type for 'quality': expected a string, but got an integer instead.",
            "invalid_type",
        ),
        (
            "gpt-image-2.5",
            {"output_format": "svg", "svg": "x"},
            "Invalid type for 'svg': expected an object, but got a string instead.",
            "invalid_type",
        ),
    ],
)
@pytest.mark.parametrize("policy", ["nearest", "strict"])
def test_values_that_the_model_does_not_take_are_refused(name, fields, message, code, policy):
    """What has neither a twin nor a next best is an error in OpenAI's words, under either policy."""
    error = refusal(family(name), policy, **fields)
    assert (message, list(fields)[-1], code) == (error.message, error.param, error.code)


def test_a_prompt_longer_than_the_model_takes_is_refused():
    """dall-e-2 takes 1000 characters."""
    contract = load_contracts(ContractDocument(models={"m": {"family": "dall-e-2"}}))["m"]
    fit(request(prompt="y" * 1000), contract)
    error = refusal(contract, prompt="y" * 1001)
    assert (error.param, error.code) == ("prompt", "string_above_max_length")


# Members that need company


@pytest.mark.parametrize(
    ("fields", "expected", "changes"),
    [
        ({"output_compression": 50, "output_format": "jpeg"}, {"output_compression", "output_format"}, []),
        ({"output_compression": 50, "output_format": "webp"}, {"output_compression", "output_format"}, []),
        ({"output_compression": 50, "output_format": "png"}, {"output_format"}, ["output_compression"]),
        ({"output_compression": 50}, set(), ["output_compression"]),
    ],
)
def test_compression_goes_with_jpeg_and_webp_only(fields, expected, changes):
    """PNG has nothing to compress with loss."""
    rest, found = ask(family("gpt-image-2"), **fields)
    assert (expected, [Change(name, "dropped") for name in changes]) == (set(rest), found)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        (
            {"output_format": "gif", "frame_count": 4, "frame_duration_ms": 100, "svg": {}},
            {"frame_count", "frame_duration_ms"},
        ),
        ({"svg": {"model": "x"}, "output_format": "svg", "frame_count": 4}, {"svg"}),
        ({"frame_count": 4, "svg": {}}, set()),
    ],
)
def test_members_of_a_format_go_with_that_format(fields, kept):
    """Frames belong to GIF and `svg` to SVG, in whichever order they were sent."""
    rest, changes = ask(family("gpt-image-2.5"), **fields)
    lost = set(fields) - kept - {"output_format"}
    assert (kept, lost) == (set(rest) - {"output_format"}, {change.field for change in changes})


def test_company_is_looked_at_after_it_was_fitted():
    """What counts is the format that is sent, not the one that was asked for."""
    contract = Contract(
        parameters={
            "prompt": Parameter(),
            "output_compression": Parameter(type="integer", only_with={"output_format": ("jpeg",)}),
            "output_format": Parameter(values=("png", "jpeg"), nearest={"webp": "png"}, translate={"jpg": "jpeg"}),
        }
    )
    answers = [ask(contract, output_compression=5, output_format=name)[0] for name in ("webp", "jpg")]
    assert answers == [{"output_format": "png"}, {"output_compression": 5, "output_format": "jpeg"}]


# Transparency


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"background": "transparent", "output_format": "jpeg"}, "JPEG has no transparency"),
        ({"output_format": "jpeg", "background": "transparent"}, "JPEG has no transparency"),
    ],
)
def test_transparent_jpeg_is_refused(fields, said):
    """A picture that would lose its transparency is not made."""
    error = refusal(family("gpt-image-1"), **fields)
    assert error.param == "background"
    assert said in error.message


@pytest.mark.parametrize("name", ["png", "webp"])
def test_transparency_passes_with_formats_that_have_it(name):
    """PNG and WebP are as they should be."""
    assert ask(family("gpt-image-1"), background="transparent", output_format=name)[1] == []


@pytest.mark.parametrize("name", ["dall-e-3", "dall-e-2", "grok-imagine-image", "gemini-3-pro-image", "seedream-4"])
def test_transparency_is_refused_where_the_model_has_none(name):
    """Dropping `transparent` would give another picture, dropping the rest would not."""
    assert refusal(family(name), background="transparent").param == "background"
    assert [Change("background", "dropped")] == ask(family(name), background="opaque")[1]


# References


@pytest.mark.parametrize("member", ["mask", "mask_url"])
@pytest.mark.parametrize("policy", ["nearest", "strict"])
def test_a_mask_is_never_dropped(member, policy):
    """Without its mask the whole picture would be made anew."""
    error = refusal(family("gpt-image-2"), policy, **{member: "https://a.example/m.png"})
    assert (member, "unsupported_parameter") == (error.param, error.code)


def test_a_mask_stays_where_the_model_takes_it():
    """The member that the contract names passes, any other is refused."""
    contract = Contract(
        parameters={"prompt": Parameter()}, references=ReferenceRule(fields=("image_urls",), mask_field="mask_url")
    )
    fields = {"image_urls": ["https://a.example/1"], "mask_url": "https://a.example/m"}
    assert (fields, []) == ask(contract, **fields)
    assert refusal(contract, mask="https://a.example/m").param == "mask"


@pytest.mark.parametrize(
    "member", ["image", "images", "image_url", "image_urls", "reference_image_urls", "reference_images"]
)
def test_references_are_never_dropped(member):
    """A model without references refuses them under the name that the client used."""
    value = "https://a.example/1" if member in ("image", "image_url") else ["https://a.example/1"]
    error = refusal(family("gpt-image-2"), **{member: value})
    assert (member, "unsupported_parameter") == (error.param, error.code)


LINKS = [f"https://a.example/{number}.png" for number in range(20)]


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        ({"image_urls": LINKS[:3]}, 3),
        ({"image_url": LINKS[0], "image_urls": LINKS[1:3]}, 3),
        ({"reference_images": LINKS[:4]}, 4),
        ({"image_url": LINKS[0], "image_urls": LINKS[1:3], "reference_images": LINKS[3:5]}, 5),
    ],
)
def test_references_are_counted_over_all_members(fields, counted):
    """The maximum holds for all images together, and more are an error, not fewer images."""
    contract = Contract(
        parameters={"prompt": Parameter()}, references=ReferenceRule(fields=("image_urls", "reference_images"), max=3)
    )
    if counted <= 3:
        ask(contract, **fields)
        return
    error = refusal(contract, **fields)
    assert (error.param in fields, error.message) == (True, "This model takes at most 3 reference images.")


@pytest.mark.parametrize("member", ["image_url", "reference_image_urls", "reference_images"])
def test_references_go_to_the_member_that_the_model_has(member):
    """Links keep their order and are told to have moved."""
    contract = Contract(parameters={"prompt": Parameter()}, references=ReferenceRule(fields=("image_urls",)))
    value = LINKS[0] if member == "image_url" else LINKS[:3]
    expected = [value] if isinstance(value, str) else value
    changes = [Change(member, "renamed", member, "image_urls")]
    assert ({"image_urls": expected}, changes) == ask(contract, **{member: value})


def test_references_of_several_members_are_all_kept():
    """What moves is added to what is there already."""
    contract = Contract(parameters={"prompt": Parameter()}, references=ReferenceRule(fields=("image_urls",)))
    rest, _ = ask(contract, image_urls=LINKS[:2], reference_images=LINKS[2:4])
    assert rest == {"image_urls": LINKS[:4]}


@pytest.mark.parametrize("value", [5, True, {"a": 1}, [5], [["https://a.example/1"]], [None], [{}]])
def test_references_of_another_type_are_refused(value):
    """The error names the member, and nothing is passed on that cannot be a link."""
    contract = Contract(parameters={"prompt": Parameter()}, references=ReferenceRule(fields=("image_urls",)))
    assert refusal(contract, reference_images=value).param.startswith("reference_images")


@pytest.mark.parametrize("value", [False, 0, {}, 5, True])
def test_the_models_own_member_for_references_holds_links_too(value):
    """What is no link is refused also where the member's name is right."""
    contract = Contract(parameters={"prompt": Parameter()}, references=ReferenceRule(fields=("image_urls",)))
    assert refusal(contract, image_urls=value).param.startswith("image_urls")


@pytest.mark.parametrize(
    ("sent", "change"),
    [
        ({}, Change("operation", "added", to="image-to-image")),
        ({"operation": "text-to-image"}, Change("operation", "mapped", "text-to-image", "image-to-image")),
        ({"operation": "image-to-image"}, None),
    ],
)
def test_references_name_their_operation_where_the_provider_wants_it(sent, change):
    """Some providers need to be told that there are images to start from."""
    contract = Contract(
        parameters={"prompt": Parameter(), "operation": Parameter()},
        references=ReferenceRule(fields=("image_urls",), operation="image-to-image"),
    )
    rest, changes = ask(contract, image_urls=LINKS[:1], **sent)
    assert ("image-to-image", [change] if change else []) == (rest["operation"], changes)
    assert (sent, []) == ask(contract, **sent)


# Sizes

SIZES = [
    # family, members sent, members that are left
    ("gpt-image-1", {"size": "1792x1024"}, {"size": "1536x1024"}),
    ("gpt-image-1", {"size": "1024x1792"}, {"size": "1024x1536"}),
    ("gpt-image-1", {"size": "512x512"}, {"size": "1024x1024"}),
    ("gpt-image-1", {"aspect_ratio": "16:9"}, {"size": "1536x1024"}),
    ("gpt-image-1", {"size": "1024X1536"}, {"size": "1024x1536"}),
    ("gpt-image-2", {"size": "1920x1080"}, {"size": "1920x1088"}),
    ("gpt-image-2", {"size": "512x512"}, {"size": "816x816"}),
    ("gpt-image-2", {"size": "16:9", "resolution": "2K"}, {"size": "2048x1152"}),
    ("gpt-image-2", {"aspect_ratio": "16:9", "resolution": "2K"}, {"size": "2048x1152"}),
    ("gpt-image-2", {"aspect_ratio": "21:9", "resolution": "1k"}, {"size": "2016x864"}),
    ("gpt-image-2", {"aspect_ratio": "21:9", "resolution": "2k"}, {"size": "2688x1152"}),
    ("gpt-image-2", {"aspect_ratio": "21:9", "resolution": "4k"}, {"size": "3840x1648"}),
    ("gpt-image-2", {"size": "16x9"}, {"size": "1536x864"}),
    ("gpt-image-2", {"size": "3840x2160", "aspect_ratio": "1:1"}, {"size": "2880x2880"}),
    ("dall-e-2", {"size": "1024x1000"}, {"size": "1024x1024"}),
    ("dall-e-3", {"size": "1536x1024"}, {"size": "1792x1024"}),
    ("dall-e-3", {"size": "1024x1536"}, {"size": "1024x1792"}),
    ("dall-e-3", {"size": "256x256"}, {"size": "1024x1024"}),
    ("dall-e-3", {"size": "auto"}, {}),
    ("gemini-2-5-flash-image", {"size": "3840x2160"}, {"aspect_ratio": "16:9"}),
    ("gemini-2-5-flash-image", {"aspect_ratio": "16:9", "resolution": "2K"}, {"aspect_ratio": "16:9"}),
    ("gemini-2-5-flash-image", {"size": "auto"}, {}),
    ("gemini-3-pro-image", {"size": "1792x1024"}, {"aspect_ratio": "16:9", "resolution": "1K"}),
    ("gemini-3-pro-image", {"size": "1024x1792"}, {"aspect_ratio": "9:16", "resolution": "1K"}),
    ("gemini-3-pro-image", {"size": "1536x1024"}, {"aspect_ratio": "3:2", "resolution": "1K"}),
    ("gemini-3-pro-image", {"size": "1024x1536"}, {"aspect_ratio": "2:3", "resolution": "1K"}),
    ("gemini-3-pro-image", {"size": "2048x2048"}, {"aspect_ratio": "1:1", "resolution": "2K"}),
    ("gemini-3-pro-image", {"size": "3840x2160"}, {"aspect_ratio": "16:9", "resolution": "4K"}),
    ("gemini-3-pro-image", {"size": "2688x1536"}, {"aspect_ratio": "16:9", "resolution": "2K"}),
    ("gemini-3-pro-image", {"size": "1376x768"}, {"aspect_ratio": "16:9", "resolution": "1K"}),
    ("gemini-3-pro-image", {"size": "1344x768"}, {"aspect_ratio": "16:9", "resolution": "1K"}),
    ("gemini-3-pro-image", {"size": "1424x800"}, {"aspect_ratio": "16:9", "resolution": "1K"}),
    ("gemini-3-pro-image", {"size": "2848x1600"}, {"aspect_ratio": "16:9", "resolution": "2K"}),
    ("gemini-3-pro-image", {"size": "5504x3072"}, {"aspect_ratio": "16:9", "resolution": "4K"}),
    ("gemini-3-pro-image", {"size": "1365x1024"}, {"aspect_ratio": "4:3", "resolution": "1K"}),
    ("gemini-3-pro-image", {"size": "1820x1024"}, {"aspect_ratio": "16:9", "resolution": "1K"}),
    ("gemini-3-pro-image", {"size": "1434x1024"}, {"aspect_ratio": "4:3", "resolution": "1K"}),
    ("gemini-3-pro-image", {"size": "1200x630"}, {"aspect_ratio": "16:9", "resolution": "1K"}),
    ("gemini-3-pro-image", {"size": "1152x1536"}, {"aspect_ratio": "3:4", "resolution": "1K"}),
    ("gemini-3-pro-image", {"size": "256x256"}, {"aspect_ratio": "1:1", "resolution": "1K"}),
    ("gemini-3-pro-image", {"resolution": "2k"}, {"resolution": "2K"}),
    ("gemini-3-pro-image", {"size": "2k"}, {"resolution": "2K"}),
    ("gemini-3-pro-image", {"size": "auto", "resolution": "2K"}, {"resolution": "2K"}),
    ("gemini-3-pro-image", {"size": "auto"}, {}),
    ("gemini-3-1-flash-image", {"size": "256x256"}, {"aspect_ratio": "1:1", "resolution": "512"}),
    ("gemini-3-1-flash-image", {"size": "8192x1024"}, {"aspect_ratio": "8:1", "resolution": "4K"}),
    ("grok-imagine-image", {"size": "3840x2160"}, {"aspect_ratio": "16:9", "resolution": "2k"}),
    ("grok-imagine-image", {"size": "2340x1080"}, {"aspect_ratio": "19.5:9", "resolution": "2k"}),
    ("grok-imagine-image", {"size": "auto"}, {"aspect_ratio": "auto"}),
    ("grok-imagine-image", {"aspect_ratio": "1:1", "resolution": "1.5K"}, {"aspect_ratio": "1:1", "resolution": "2k"}),
    (
        "grok-imagine-image-2",
        {"aspect_ratio": "1:1", "resolution": "1.5K"},
        {"aspect_ratio": "1:1", "resolution": "1.5k"},
    ),
    ("seedream-4-5", {"size": "2k"}, {"size": "2K"}),
    ("seedream-4-5", {"resolution": "4K"}, {"size": "4K"}),
    ("seedream-4-5", {"size": "1024x1024"}, {"size": "1920x1920"}),
    ("seedream-4-5", {"size": "auto"}, {}),
    ("seedream-4", {"size": "1024*1024"}, {"size": "1024x1024"}),
    ("flux-2", {"size": "1920x1080"}, {"size": "1920x1088"}),
    ("flux-2", {"size": "auto"}, {}),
    ("flux-1", {"size": "1024x768"}, {"size": "1024x768"}),
]


@pytest.mark.parametrize(("name", "fields", "expected"), SIZES)
def test_sizes_become_the_nearest_that_the_model_makes(name, fields, expected):
    """Pixels, ratios, tiers and `auto` arrive in the members and spelling of each family."""
    assert expected == ask(family(name), **fields)[0]


@pytest.mark.parametrize(("name", "fields", "expected"), SIZES)
def test_a_size_that_was_fitted_fits(name, fields, expected):
    """What comes out is left alone when it comes in again."""
    assert (expected, []) == ask(family(name), **expected)


@pytest.mark.parametrize(
    ("name", "size", "limits"),
    [
        ("flux-1", "1920x1080", (32, 1440, 1440 * 1440)),
        ("flux-1", "1080x1920", (32, 1440, 1440 * 1440)),
        ("flux-2", "3840x2160", (16, 16_384, 4_194_304)),
        ("seedream-5-pro", "4096x4096", (1, 16_384, 4_624_220)),
        ("gpt-image-2", "4096x4096", (16, 3840, 8_294_400)),
    ],
)
def test_sizes_that_are_too_large_shrink_in_their_ratio(name, size, limits):
    """The ratio is kept to a hundredth or two, and most of the allowed area is used."""
    multiple, edge, area = limits
    width, height = map(int, size.split("x"))
    got = tuple(map(int, ask(family(name), size=size)[0]["size"].split("x")))
    assert got[0] * got[1] <= area
    assert max(got) <= edge
    assert (got[0] % multiple, got[1] % multiple) == (0, 0)
    assert got[0] / got[1] == pytest.approx(width / height, rel=0.03)
    assert max(got) >= edge - multiple or got[0] * got[1] > 0.9 * area


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("seedream-5-pro", {"size": "4K"}, {"size": "2K"}),
        ("seedream-4-5", {"size": "1K"}, {"size": "2K"}),
        ("seedream-5-lite", {"resolution": "1.5K"}, {"size": "2K"}),
        ("gpt-image-1", {"resolution": "2K"}, {}),
        ("dall-e-3", {"resolution": "4k"}, {}),
    ],
)
def test_a_tier_alone_never_becomes_a_ratio(name, fields, expected):
    """Who names no shape gets none: the tier goes to the nearest word that the model has, or is left out."""
    assert expected == ask(family(name), **fields)[0]


@pytest.mark.parametrize(
    ("name", "fields", "changes"),
    [
        (
            "gemini-3-pro-image",
            {"size": "1792x1024"},
            [Change("size", "mapped", "1792x1024", "aspect_ratio=16:9,resolution=1K")],
        ),
        ("gpt-image-1", {"size": "1792x1024"}, [Change("size", "mapped", "1792x1024", "1536x1024")]),
        ("gemini-3-pro-image", {"size": "auto"}, [Change("size", "dropped")]),
        ("gemini-3-pro-image", {"resolution": "2k"}, [Change("resolution", "mapped", "2k", "2K")]),
        (
            "gemini-2-5-flash-image",
            {"aspect_ratio": "1:1", "resolution": "2K"},
            [Change("resolution", "dropped")],
        ),
        (
            "gpt-image-2",
            {"aspect_ratio": "16:9", "resolution": "2K"},
            [Change("aspect_ratio", "mapped", "16:9", "size=2048x1152"), Change("resolution", "dropped")],
        ),
    ],
)
def test_changes_of_size_are_told_in_the_providers_terms(name, fields, changes):
    """The field that asked for the shape says what became of it, and those that fell away are named."""
    assert changes == ask(family(name), **fields)[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"size": "1024x1024", "resolution": "4K"},
        {"aspect_ratio": "7:4", "resolution": "4K"},
    ],
)
def test_every_member_that_changed_has_an_item_of_its_own(fields):
    """A tier that was clamped is told as such, also where the shape changed too."""
    rest, changes = ask(family("grok-imagine-image"), **fields)
    assert rest["resolution"] == "2k"
    assert set(fields) == {change.field for change in changes}


# What the size members say together


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"size": "1792x1024"}, Wanted(ratio=Ratio(1792, 1024), pixels=Pixels(1792, 1024))),
        ({"size": "16:9"}, Wanted(ratio=Ratio(16, 9))),
        ({"size": "2K"}, Wanted(tier=Tier(2048))),
        ({"size": "auto"}, Wanted(auto=True)),
        ({"size": "auto", "resolution": "2K"}, Wanted(auto=True, tier=Tier(2048))),
        ({"size": "1024x1024", "aspect_ratio": "16:9"}, Wanted(ratio=Ratio(16, 9), tier=Tier(1024))),
        ({"size": "2048x2048", "aspect_ratio": "16:9"}, Wanted(ratio=Ratio(16, 9), tier=Tier(2048))),
        ({"size": "1024x1024", "resolution": "2K"}, Wanted(ratio=Ratio(1024, 1024), tier=Tier(2048))),
        (
            {"size": "1024x1024", "aspect_ratio": "16:9", "resolution": "4k"},
            Wanted(ratio=Ratio(16, 9), tier=Tier(4096)),
        ),
        ({"size": "2K", "aspect_ratio": "16:9"}, Wanted(ratio=Ratio(16, 9), tier=Tier(2048))),
        ({"size": "2K", "resolution": "4K"}, Wanted(tier=Tier(4096))),
        ({"resolution": "2K"}, Wanted(tier=Tier(2048))),
        ({"resolution": "auto"}, Wanted(auto=True)),
        ({"metadata.resolution": "2K", "size": "1:1"}, Wanted(ratio=Ratio(1, 1), tier=Tier(2048))),
        ({"resolution": "1K", "metadata.resolution": "2K"}, Wanted(tier=Tier(1024))),
        ({"aspect_ratio": "auto", "size": "1024x1024"}, Wanted(auto=True)),
        ({"resolution": "1920x1080"}, Wanted(ratio=Ratio(1920, 1080), pixels=Pixels(1920, 1080))),
        (
            {"size": "1024x1024", "resolution": "1920x1080"},
            Wanted(ratio=Ratio(1920, 1080), pixels=Pixels(1920, 1080)),
        ),
    ],
)
def test_an_explicit_ratio_or_tier_beats_the_size(sent, expected):
    """`aspect_ratio` says the shape and `resolution` the tier; `size` says what they leave open."""
    assert expected == wanted_size(sent)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"aspect_ratio": "16:9", "size": "1024x1024"}, {"aspect_ratio": "16:9", "resolution": "1K"}),
        ({"aspect_ratio": "9:16", "size": "3840x2160"}, {"aspect_ratio": "9:16", "resolution": "4K"}),
        ({"size": "1024x1024", "resolution": "4k"}, {"aspect_ratio": "1:1", "resolution": "4K"}),
        ({"size": "2K", "aspect_ratio": "16:9"}, {"aspect_ratio": "16:9", "resolution": "2K"}),
    ],
)
def test_members_of_the_size_complete_each_other(fields, expected):
    """The tier of a size is kept where only its shape is overruled."""
    assert expected == ask(family("gemini-3-pro-image"), **fields)[0]


# What is too far


@pytest.mark.parametrize(
    ("name", "fields", "param"),
    [
        ("gpt-image-2", {"size": "8:1"}, "size"),
        ("gpt-image-2", {"aspect_ratio": "8:1", "size": "1024x1024"}, "aspect_ratio"),
        ("gpt-image-2", {"size": "1000x10"}, "size"),
        ("gpt-image-1", {"size": "1000x10"}, "size"),
        ("gpt-image-1", {"size": "3072x1024"}, "size"),
        ("dall-e-2", {"size": "1792x1024"}, "size"),
        ("dall-e-3", {"aspect_ratio": "1:3"}, "aspect_ratio"),
        ("gemini-2-5-flash-image", {"size": "8192x1024"}, "size"),
        ("gemini-3-pro-image", {"size": "1024x3072"}, "size"),
        ("grok-imagine-image", {"size": "4096x1024"}, "size"),
        ("seedream-4-5", {"size": "30000x1000"}, "size"),
    ],
)
def test_a_shape_that_is_nowhere_near_is_refused(name, fields, param):
    """Beyond half as wide again it is no rewrite any more; the error says what there is and what is nearest."""
    error = refusal(family(name), **fields)
    assert (param, "invalid_value", "image_generation_user_error") == (error.param, error.code, error.type)
    assert error.message.startswith(f"Invalid {param} '{fields[param]}': it is too far from every shape")
    assert " The nearest is " in error.message
    assert len(error.message) < 1000


@pytest.mark.parametrize(
    ("tolerance", "refused"), [(0.0, True), (0.333_333, True), (1 / 3, False), (0.34, False), (0.5, False)]
)
def test_the_tolerance_is_how_far_a_ratio_may_be_moved(tolerance, refused):
    """4:1 becomes 3:1, which is a third off: exactly a third is allowed."""
    asked = request(size="4:1")
    if refused:
        with pytest.raises(RequestError, match="too far"):
            fit(asked, family("gpt-image-2"), tolerance=tolerance)
    else:
        fitted, _ = fit(asked, family("gpt-image-2"), tolerance=tolerance)
        width, height = map(int, fitted.fields["size"].split("x"))
        assert width == 3 * height


def test_no_tolerance_still_takes_what_is_there():
    """With a tolerance of nothing a legal size passes."""
    asked = request(size="1536x1024")
    assert fit(asked, family("gpt-image-1"), tolerance=0.0) == (asked, ())


@pytest.mark.parametrize(
    "size", ["", "bogus", "0x0", "1024", "1024x1024px", "1:0", "x" * 64, "square_hd", "ASPECT_16_9"]
)
@pytest.mark.parametrize("member", ["size", "aspect_ratio", "resolution"])
def test_text_that_is_no_size_is_refused(size, member):
    """The error quotes the text, shows the spellings and names the member."""
    error = refusal(family("gemini-3-pro-image"), **{member: size})
    assert (member, "invalid_value", "image_generation_user_error") == (error.param, error.code, error.type)
    assert error.message.startswith(f"Invalid {member} '{size}'. Expected WIDTHxHEIGHT, for example '1024x1024'")


def test_long_text_that_is_no_size_is_not_quoted_whole():
    """An error stays below a thousand characters, whatever was sent."""
    error = refusal(NESTED, metadata={"resolution": "y" * 10_000})
    assert error.param == "metadata.resolution"
    assert len(error.message) < 1000


# Strict

STRICT_EXACT = [
    ("gpt-image-1", {"size": "1024X1024"}),
    ("gemini-3-pro-image", {"size": "1376x768"}),
    ("gemini-3-pro-image", {"size": "1024x1024"}),
    ("gemini-3-pro-image", {"resolution": "4k"}),
    ("gemini-3-pro-image", {"size": "auto"}),
    ("gpt-image-2", {"aspect_ratio": "21:9", "resolution": "4K"}),
    ("seedream-4-5", {"size": "2k"}),
]


@pytest.mark.parametrize(("name", "fields"), STRICT_EXACT)
def test_strict_rewrites_what_means_the_same(name, fields):
    """Another spelling of a size that the model makes is no compromise, and is told."""
    assert ask(family(name), "strict", **fields)[1] != []


@pytest.mark.parametrize(
    ("name", "fields", "param", "nearest"),
    [
        ("gpt-image-1", {"size": "1792x1024"}, "size", "size '1536x1024'"),
        ("gpt-image-2", {"size": "1920x1080"}, "size", "size '1920x1088'"),
        ("gemini-3-pro-image", {"size": "1200x630"}, "size", "aspect_ratio '16:9' and resolution '1K'"),
        ("gemini-3-pro-image", {"aspect_ratio": "2:1"}, "aspect_ratio", "aspect_ratio '16:9'"),
        ("grok-imagine-image", {"size": "3840x2160"}, "size", "aspect_ratio '16:9' and resolution '2k'"),
        ("grok-imagine-image", {"resolution": "4K"}, "resolution", "resolution '2k'"),
        ("gemini-2-5-flash-image", {"aspect_ratio": "1:1", "resolution": "2K"}, "resolution", "aspect_ratio '1:1'"),
        ("grok-imagine-image", {"aspect_ratio": "1:1", "resolution": "4K"}, "resolution", "resolution '2k'"),
    ],
)
def test_strict_refuses_another_size_and_says_the_nearest(name, fields, param, nearest):
    """The error names the member that cannot be had, and a value that can."""
    error = refusal(family(name), "strict", **fields)
    assert f"The nearest is {nearest}" in error.message or f"and {nearest}." in error.message
    assert (param, "invalid_value") == (error.param, error.code)
    assert error.message.startswith(f"Invalid {param} '{fields[param]}'")


# Members of other names

NESTED = Contract(
    parameters={"prompt": Parameter(), "metadata": Parameter(type="object")},
    size=RatioTierRule(ratios=GEMINI, field="size", tiers=("1K", "2K"), tier_field="metadata.resolution"),
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"size": "2048x2048"}, {"size": "1:1", "metadata": {"resolution": "2K"}}),
        ({"size": "1:1", "metadata": {"trace": "x"}}, {"size": "1:1", "metadata": {"trace": "x"}}),
        (
            {"size": "2048x2048", "metadata": {"trace": "x"}},
            {"size": "1:1", "metadata": {"trace": "x", "resolution": "2K"}},
        ),
        (
            {"size": "1:1", "metadata": {"resolution": "2k", "trace": "x"}},
            {"size": "1:1", "metadata": {"resolution": "2K", "trace": "x"}},
        ),
        ({"aspect_ratio": "16:9", "resolution": "2k"}, {"size": "16:9", "metadata": {"resolution": "2K"}}),
        ({"metadata": {"resolution": "auto"}}, {}),
    ],
)
def test_a_nested_member_is_written_beside_its_neighbours(fields, expected):
    """`metadata.resolution` is one member of an object that may hold others."""
    asked = request(**fields)
    before = {name: dict(value) if isinstance(value, dict) else value for name, value in asked.fields.items()}
    assert expected == ask(NESTED, **fields)[0]
    assert before == asked.fields


@pytest.mark.parametrize("metadata", ["text", 5, True, [1], ["resolution"]])
def test_an_object_that_is_none_is_refused_by_its_name(metadata):
    """A tier that has to go into `metadata` finds no place in a string: the error names the member."""
    error = refusal(NESTED, size="2048x2048", metadata=metadata)
    assert (error.param, error.code) == ("metadata", "invalid_type")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (RatioRule(ratios=GEMINI, field="image_ratio"), {"image_ratio": "16:9"}),
        (ListRule(values=("1024x1024", "1536x864"), field="image_size"), {"image_size": "1536x864"}),
        (
            RatioTierRule(
                ratios=GEMINI, field="imageConfig.aspectRatio", tiers=("1K",), tier_field="imageConfig.imageSize"
            ),
            {"imageConfig": {"aspectRatio": "16:9", "imageSize": "1K"}},
        ),
        (
            RatioTierRule(ratios=GEMINI, field="size", tiers=("1K",), tier_field="metadata.resolution"),
            {"size": "16:9", "metadata": {"resolution": "1K"}},
        ),
    ],
)
def test_a_size_goes_to_whatever_member_the_contract_names(rule, expected):
    """The fields of a size rule need no parameter of their own: `parameters` is the list of all others."""
    contract = Contract(parameters={"prompt": Parameter()}, size=rule)
    rest, changes = ask(contract, size="1920x1080")
    assert expected == rest
    assert [change.field for change in changes] == ["size"]


def test_a_model_whose_sizes_nobody_documents_gets_them_as_they_are():
    """Without a size rule size, ratio and tier pass untouched, even what could not be read."""
    fields = {"size": "square_hd", "aspect_ratio": "wide", "resolution": "9K"}
    assert (fields, []) == ask(Contract(parameters={"prompt": Parameter()}), **fields)


@pytest.mark.parametrize(
    ("references", "expected"),
    [({}, {"aspect_ratio": "1:1", "resolution": "2K"}), ({"image_urls": LINKS[:1]}, {"aspect_ratio": "1:1"})],
)
def test_the_tier_is_left_out_beside_references_where_the_model_wants_that(references, expected):
    """Image-to-image takes the resolution of its source at some providers."""
    contract = Contract(
        parameters={"prompt": Parameter()},
        size=RatioTierRule(ratios=GEMINI, tiers=("1K", "2K"), tier_with_references=False),
        references=ReferenceRule(fields=("image_urls",)),
    )
    assert {**expected, **references} == ask(contract, size="2048x2048", **references)[0]


def test_an_operation_that_the_model_does_not_have_is_refused():
    """The error names the model and the operation."""
    asked = ImageRequest(operation="edits", fields={"model": "m", "prompt": "p"})
    with pytest.raises(RequestError, match=r"^The model 'm' has no edits at this provider") as caught:
        fit(asked, Contract(parameters={"prompt": Parameter()}))
    assert caught.value.param == "model"


# Edits and variations


def edit(operation: str = "edits", **fields: Any) -> ImageRequest:
    return ImageRequest(
        operation=operation, fields={"model": "m", "prompt": "a hat", **fields}, images=(Link(LINKS[0]),)
    )


def test_an_edit_is_fitted_to_the_contract_of_edits():
    """What generations drop may be what edits are for."""
    contract = family("gpt-image-1")
    asked = edit(input_fidelity="high", size="1024x1024")
    assert fit(asked, contract) == (asked, ())
    assert ask(contract, input_fidelity="high")[1] == [Change("input_fidelity", "dropped")]


def test_an_edit_may_be_a_generation_with_links():
    """Where the provider edits at its generations endpoint, the request goes there with all that it carries."""
    contract = Contract(
        parameters={},
        edits=Contract(
            parameters={"prompt": Parameter()}, endpoint="generations", references=ReferenceRule(fields=("image_urls",))
        ),
    )
    asked = edit()
    fitted, changes = fit(asked, contract)
    assert (fitted.operation, fitted.images, changes) == ("generations", asked.images, ())
    assert fitted.fields == asked.fields


def test_a_variation_is_an_edit_with_a_prompt_of_ours_where_there_is_no_other():
    """A model without variations is asked for one in words, which is told."""
    asked = ImageRequest(operation="variations", fields={"model": "m"}, images=(Link(LINKS[0]),))
    fitted, changes = fit(asked, family("gpt-image-1"))
    assert (fitted.operation, fitted.fields["prompt"]) == ("edits", VARIATION_PROMPT)
    assert list(changes) == [
        Change("endpoint", "mapped", "variations", "edits"),
        Change("prompt", "added", to=VARIATION_PROMPT),
    ]


def test_a_variation_keeps_the_clients_own_prompt():
    """What the client says about the variation is what is asked."""
    fitted, changes = fit(edit("variations"), family("gpt-image-1"))
    assert (fitted.fields["prompt"], [change.field for change in changes]) == ("a hat", ["endpoint"])


def test_a_variation_stays_one_where_the_model_has_them():
    """dall-e-2 makes variations, and takes no prompt for them."""
    contract = load_contracts(ContractDocument(models={"m": {"family": "dall-e-2"}}))["m"]
    fitted, changes = fit(edit("variations"), contract)
    assert (fitted.operation, list(changes)) == ("variations", [Change("prompt", "dropped")])


@pytest.mark.parametrize(("member", "code"), [("mask", "unsupported_parameter"), ("markup", "unsupported_parameter")])
def test_an_edits_mask_is_refused_where_the_model_takes_none(member, code):
    """A mask that came as a file is no more dropped than one that came as a link."""
    contract = Contract(
        parameters={},
        edits=Contract(parameters={"prompt": Parameter()}, references=ReferenceRule(forms=("files",))),
    )
    asked = msgspec.structs.replace(edit(), **{member: Link(LINKS[1])})
    with pytest.raises(RequestError) as caught:
        fit(asked, contract)
    assert (member, code) == (caught.value.param, caught.value.code)


def test_images_of_an_edit_are_counted():
    """More images than the model takes are refused under the part's name."""
    contract = Contract(
        parameters={},
        edits=Contract(parameters={"prompt": Parameter()}, references=ReferenceRule(forms=("objects",), max=2)),
    )
    asked = msgspec.structs.replace(edit(), images=tuple(Link(link) for link in LINKS[:3]))
    with pytest.raises(RequestError, match="at most 2 reference images") as caught:
        fit(asked, contract)
    assert caught.value.param == "image"


# Texts that a server would obey or misread

OBEYED = Contract(parameters={"prompt": Parameter(forbidden=("<do>",), replace={"|": "/", "~": ""})})


@pytest.mark.parametrize("policy", ["nearest", "strict"])
@pytest.mark.parametrize("prompt", ["<do>", "a <do>b</do>"])
def test_a_text_that_the_server_would_obey_is_refused(prompt, policy):
    """The message names the field and the text, and not the rest of the value."""
    error = refusal(OBEYED, policy, prompt=prompt)
    assert (error.param, error.message) == ("prompt", "Invalid 'prompt': it must not contain '<do>'.")


def test_a_text_that_the_server_would_misread_is_replaced():
    """Each is disclosed once, and nothing else of the value."""
    fitted, changes = fit(request(prompt="a|b|c~"), OBEYED)
    assert fitted.fields["prompt"] == "a/b/c"
    assert list(changes) == [Change("prompt", "mapped", "|", "/"), Change("prompt", "mapped", "~", "")]
    assert refusal(OBEYED, "strict", prompt="a|b").param == "prompt"
    assert fit(request(prompt="a b"), OBEYED)[1] == ()


@given(st.text(alphabet="ab|~/<do>", max_size=30))
def test_what_is_left_holds_none_of_them(prompt):
    """Whatever the value is."""
    try:
        fitted, _ = fit(request(prompt=prompt or "a"), OBEYED)
    except RequestError:
        assert "<do>" in prompt.replace("|", "/").replace("~", "")
        return
    assert not {"|", "~"} & set(fitted.fields["prompt"])
    assert "<do>" not in fitted.fields["prompt"]


def test_members_that_have_no_place_beside_a_mask_go_and_are_named():
    """The provider's endpoint for masks has fewer members; a strict policy refuses instead."""
    rule = ReferenceRule(forms=("files",), mask=True, mask_without=("size", "seed"))
    parameters = {"prompt": Parameter(), "seed": Parameter(type="integer", default=7)}
    contract = Contract(parameters=parameters, edits=Contract(parameters=parameters, references=rule))
    image = MemoryFile(png())
    fields = {"model": "m", "prompt": "A hat", "size": "1024x1024", "seed": 1}
    plain = ImageRequest(operation="edits", fields=fields, images=(image,))
    assert fit(plain, contract)[0].fields == fields
    masked = ImageRequest(operation="edits", fields=fields, images=(image,), mask=MemoryFile(png(), part="mask"))
    fitted, changes = fit(masked, contract)
    assert dict(fitted.fields) == {"model": "m", "prompt": "A hat"}
    assert [(change.field, change.kind) for change in changes] == [("size", "dropped"), ("seed", "dropped")]
    unsaid = msgspec.structs.replace(masked, fields={"model": "m", "prompt": "A hat"})
    assert fit(unsaid, contract) == (unsaid, ())  # a default has no place there either
    with pytest.raises(RequestError, match="With a mask") as caught:
        fit(masked, contract, policy="strict")
    assert caught.value.param == "size"


def test_a_contract_that_passes_what_it_does_not_know_passes_transparency_too():
    """Whether the model can make it is the provider's to say."""
    contract = Contract(parameters={"prompt": Parameter()}, unknown="pass")
    asked = request(background="transparent")
    assert fit(asked, contract) == (asked, ())
