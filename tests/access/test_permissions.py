"""What a principal may ask for: models, sizes and operations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate import Principal
from imagegate.access.permissions import check_operation, check_sizes, matches, may_ask_for
from imagegate.contracts.contract import SIZE_FIELDS
from imagegate.errors import ModelNotFound, NotPermitted
from imagegate.layers.models import model_list
from imagegate.routing.catalog import Catalog


@pytest.mark.parametrize(
    ("model", "patterns", "allowed"),
    [
        ("gpt-image-2", (), True),
        ("gpt-image-2", ("gpt-image-2",), True),
        ("gpt-image-2", ("gpt-*",), True),
        ("gpt-image-2", ("*",), True),
        ("tokenlab/gpt-image-2", ("gpt-*",), False),
        ("tokenlab/gpt-image-2", ("tokenlab/*",), True),
        ("GPT-image-2", ("gpt-*",), False),
        ("gpt-image-2", ("gpt-image",), False),
        ("a", ("[a]",), False),
        ("[a]", ("[a]",), True),
        ("a", ("?",), False),
        ("", ("?*",), False),
    ],
)
def test_models(model: str, patterns: tuple[str, ...], allowed: bool) -> None:
    assert may_ask_for(Principal(id="u", models=patterns), model) is allowed


@given(st.text(max_size=20), st.text(alphabet=st.characters(exclude_characters="*"), max_size=20))
def test_a_pattern_without_a_star_fits_itself_only(text: str, pattern: str) -> None:
    assert matches(text, [pattern]) is (text == pattern)


def test_operations() -> None:
    principal = Principal(id="u", operations=("generations",))
    check_operation(principal, "generations")
    with pytest.raises(NotPermitted, match=r"You may not ask for edits\. Allowed: generations\.") as refused:
        check_operation(principal, "edits")
    assert (refused.value.status, refused.value.param, refused.value.code) == (
        403,
        "operation",
        "operation_not_allowed",
    )


@pytest.mark.parametrize(
    ("sizes", "fields", "refused"),
    [
        ((), {"size": "8192x8192"}, None),
        (("1024x1024",), {"size": "1024x1024"}, None),
        (("1024x1024",), {"size": " 1024 × 1024 "}, None),
        (("1024×1024",), {"size": "1024X1024"}, None),
        (("1024x1024",), {"size": "1536x1024"}, "size"),
        (("1024x1024",), {}, "size"),
        (("1024x1024",), {"size": "auto"}, "size"),
        (("1024x1024", "auto"), {}, None),
        (("1024x1024",), {"size": "1024x1024", "resolution": "4K"}, "resolution"),
        (("1024x1024",), {"size": "1024x1024", "metadata": {"resolution": "4k"}}, "metadata.resolution"),
        (("1024x1024",), {"size": "1024x1024", "metadata": {"note": "x"}}, None),
        (("1024x1024",), {"size": "1024x1024", "aspect_ratio": "21:9"}, "aspect_ratio"),
        (("1024x1024",), {"size": "1024x1024", "image_size": {"width": 4096}}, "image_size"),
        (("1024x1024",), {"size": "1024x1024", "width": 4096}, "width"),
        (("16:9", "2k"), {"aspect_ratio": "16 : 9", "resolution": "2K"}, None),
        (("1024x*",), {"size": "1024x768"}, None),
        (("1024x1024",), {"size": 3}, "size"),
    ],
)
def test_sizes(sizes: tuple[str, ...], fields: dict[str, Any], refused: str | None) -> None:
    """Whatever member says how large a picture is to be, it says one of the allowed sizes, in any spelling."""
    principal = Principal(id="u", sizes=sizes)
    if refused is None:
        check_sizes(principal, fields)
        return
    with pytest.raises(NotPermitted, match=f"Allowed sizes: {sizes[0].replace('*', '.')}") as error:
        check_sizes(principal, fields)
    assert (error.value.param, error.value.code) == (refused, "size_not_allowed")


@given(st.sampled_from([name for name in SIZE_FIELDS if "." not in name]), st.text(max_size=12))
def test_no_member_gets_by(member: str, value: str) -> None:
    """Nothing but the allowed size passes in any member that says one."""
    principal = Principal(id="u", sizes=("640x480",))
    try:
        check_sizes(principal, {"size": "640x480", member: value})
    except NotPermitted:
        return
    assert value.strip().lower().replace("×", "x").replace("*", "x").replace(" ", "") == "640x480"


def test_an_unlisted_model_is_an_unknown_one() -> None:
    """The same message, whose hints name nothing that is not allowed."""
    catalog = Catalog({"a": {}, "b": {}}, {"good-1": ["a/x"], "good-2": ["b/x"], "secret-1": ["a/y"]})
    principal = Principal(id="u", models=("good-*",))
    assert catalog.resolve_for(principal, "good-1") == catalog.resolve("good-1")
    said = {}
    for name in ("secret-1", "secret-2", "good-3", "a/y", "a/z"):
        with pytest.raises(ModelNotFound) as unknown:
            catalog.resolve_for(principal, name)
        said[name] = unknown.value.message
        assert unknown.value.param == "model"
    assert "secret-1" not in said["secret-2"].replace("'secret-2'", "")
    assert said["secret-1"].replace("secret-1", "NAME") == said["secret-2"].replace("secret-2", "NAME")
    assert said["a/y"].replace("a/y", "NAME") == said["a/z"].replace("a/z", "NAME")
    assert "good-1" in said["good-3"]


def test_the_list_has_the_allowed_models_only() -> None:
    catalog = Catalog({"a": {}}, {"good-1": ["a/x"], "secret-1": ["a/y"]})
    assert [each["id"] for each in model_list(catalog, Principal(id="u", models=("good-*",)))["data"]] == ["good-1"]
    assert [each["id"] for each in model_list(catalog, Principal(id="u"))["data"]] == ["good-1", "secret-1"]
