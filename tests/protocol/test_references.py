"""The images of a JSON request in all the ways in which clients write them."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.errors import RequestError
from imagegate.protocol.references import (
    LIST_MEMBERS,
    MASK_MEMBERS,
    MAX_LINK,
    Source,
    check_link,
    data_url,
    references_of,
)

A, B, C = "https://a.example/a.png", "https://b.example/b.png", "data:image/png;base64,iVBORw0KGgo="

SPELLINGS: dict[str, tuple[dict[str, Any], list[Source]]] = {
    "OpenAI": ({"images": [{"image_url": A}]}, [Source("images[0]", url=A)]),
    "OpenAI, several": (
        {"images": [{"image_url": A}, {"image_url": B}, {"image_url": C}]},
        [Source("images[0]", url=A), Source("images[1]", url=B), Source("images[2]", url=C)],
    ),
    "OpenAI, file ids": (
        {"images": [{"file_id": "file-1"}, {"image_url": A}]},
        [Source("images[0]", file_id="file-1"), Source("images[1]", url=A)],
    ),
    "OpenAI, null for the other": ({"images": [{"image_url": A, "file_id": None}]}, [Source("images[0]", url=A)]),
    "chat completions": ({"images": [{"image_url": {"url": A}}]}, [Source("images[0]", url=A)]),
    "strings": ({"images": [A, B]}, [Source("images[0]", url=A), Source("images[1]", url=B)]),
    "one string": ({"images": A}, [Source("images", url=A)]),
    "xAI": ({"image": {"url": A, "type": "image_url"}}, [Source("image", url=A)]),
    "xAI, several": (
        {"images": [{"url": A, "type": "image_url"}, {"url": B, "type": "image_url"}]},
        [Source("images[0]", url=A), Source("images[1]", url=B)],
    ),
    "image as a string": ({"image": C}, [Source("image", url=C)]),
    "image as a list": ({"image": [A, C]}, [Source("image[0]", url=A), Source("image[1]", url=C)]),
    "image_url": ({"image_url": A}, [Source("image_url", url=A)]),
    "image_url as an object": ({"image_url": {"url": A}}, [Source("image_url", url=A)]),
    "image_urls": ({"image_urls": [A, B]}, [Source("image_urls[0]", url=A), Source("image_urls[1]", url=B)]),
    "reference_image_urls": ({"reference_image_urls": [A]}, [Source("reference_image_urls[0]", url=A)]),
    "reference_images": ({"reference_images": [A]}, [Source("reference_images[0]", url=A)]),
    "several members": (
        {"reference_image_urls": [B], "image_url": A},
        [Source("image_url", url=A), Source("reference_image_urls[0]", url=B)],
    ),
    "none": ({}, []),
}


@pytest.mark.parametrize(("fields", "expected"), SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_of_images(fields, expected):
    """All images come out in their order, and everything else stays as it was."""
    others = {"model": "m", "prompt": "p", "size": "1024x1024"}
    assert (others, expected, None) == references_of({**others, **fields})


MASKS: dict[str, tuple[dict[str, Any], Source]] = {
    "OpenAI": ({"mask": {"image_url": A}}, Source("mask", url=A)),
    "OpenAI, file id": ({"mask": {"file_id": "file-1"}}, Source("mask", file_id="file-1")),
    "a string": ({"mask": C}, Source("mask", url=C)),
    "a list of one": ({"mask": [{"image_url": A}]}, Source("mask[0]", url=A)),
    "mask_url": ({"mask_url": A}, Source("mask_url", url=A)),
    "xAI's shape": ({"mask": {"url": A}}, Source("mask", url=A)),
}


@pytest.mark.parametrize(("fields", "expected"), MASKS.values(), ids=MASKS)
def test_every_spelling_of_the_mask(fields, expected):
    """The mask comes out beside the images, never among them."""
    rest, images, mask = references_of({"images": [{"image_url": B}], **fields})
    assert ({}, [Source("images[0]", url=B)], expected) == (rest, images, mask)


ERRORS: dict[str, tuple[dict[str, Any], str, str]] = {
    "empty list": ({"images": []}, "images", "empty_array"),
    "empty image_urls": ({"image_urls": []}, "image_urls", "empty_array"),
    "empty mask": ({"mask": []}, "mask", "empty_array"),
    "number": ({"images": [1]}, "images[0]", "invalid_type"),
    "null in the list": ({"images": [{"image_url": A}, None]}, "images[1]", "invalid_type"),
    "list in the list": ({"images": [[A]]}, "images[0]", "invalid_type"),
    "number as a list": ({"image_urls": 5}, "image_urls", "invalid_type"),
    "boolean": ({"image_url": True}, "image_url", "invalid_type"),
    "both": ({"images": [{"image_url": A, "file_id": "f"}]}, "images[0]", "invalid_value"),
    "neither": ({"images": [{}]}, "images[0]", "invalid_value"),
    "neither, something else": ({"images": [{"b64_json": "AAAA"}]}, "images[0]", "invalid_value"),
    "url is a number": ({"images": [{"image_url": 5}]}, "images[0].image_url", "invalid_type"),
    "url is empty": ({"images": [{"image_url": ""}]}, "images[0].image_url", "invalid_type"),
    "url is a list": ({"images": [{"image_url": [A]}]}, "images[0].image_url", "invalid_type"),
    "url in url in url": ({"images": [{"image_url": {"url": {"url": A}}}]}, "images[0].image_url", "invalid_type"),
    "file id is a number": ({"images": [{"file_id": 5}]}, "images[0].file_id", "invalid_type"),
    "file id is empty": ({"images": [{"file_id": ""}]}, "images[0].file_id", "invalid_type"),
    "mask is a number": ({"mask": 1}, "mask", "invalid_type"),
    "mask with both": ({"mask": {"image_url": A, "file_id": "f"}}, "mask", "invalid_value"),
    "two masks": ({"mask": [{"image_url": A}, {"image_url": B}]}, "mask", "invalid_value"),
    "two members with a mask": ({"mask": {"image_url": A}, "mask_url": B}, "mask", "invalid_value"),
}


@pytest.mark.parametrize(("fields", "param", "code"), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_read_is_refused_by_name(fields, param, code):
    """The error names the member at fault, down to its place in a list."""
    with pytest.raises(RequestError) as caught:
        references_of(fields)
    assert (param, code) == (caught.value.param, caught.value.code)


@pytest.mark.parametrize(
    "item",
    [
        {"image_url": A, "detail": "high"},
        {"image_url": A, "url": B},
        {"file_id": "file-1", "filename": "a.png"},
    ],
)
def test_members_that_would_be_lost_are_refused(item):
    """OpenAI takes nothing else beside the reference; what cannot be passed on is an error, not silence."""
    with pytest.raises(RequestError) as caught:
        references_of({"images": [item]})
    assert (caught.value.param or "").startswith("images[0]")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([A, C]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["image_url", "url", "file_id", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*LIST_MEMBERS, *MASK_MEMBERS, "prompt", "n"]), _JSON, max_size=4))
def test_any_json_is_read_or_refused(fields):
    """Whatever stands in these members, no image is lost in silence and nothing but `RequestError` is raised."""
    try:
        rest, images, mask = references_of(fields)
    except RequestError:
        return
    written = [fields[name] for name in LIST_MEMBERS if name in fields]
    assert sum(len(value) if isinstance(value, list) else 1 for value in written) == len(images)
    assert any(name in fields for name in MASK_MEMBERS) == (mask is not None)
    assert {name: value for name, value in fields.items() if name in ("prompt", "n")} == rest
    for source in (*images, *([mask] if mask else [])):
        assert (source.url is None) != (source.file_id is None)


# Links


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/",
        "https://a.example",
        "HTTPS://A.example/x y",
        "https://[::1]:8000/a.png",
        "http://ä.example/",
    ],
)
def test_links(url):
    """What has a scheme of the web and a host passes; where it leads is checked when it is fetched."""
    check_link("images[0]", url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.png",
        "/a.png",
        "//a.example/a.png",
        "ftp://a.example/a.png",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://",
        "https:///a.png",
        "http:a.png",
        "https://[::1/a.png",
        "https://a.example/" + "x" * MAX_LINK,
        None,
        5,
    ],
)
def test_what_is_no_link(url):
    """Anything else is refused by the member that holds it."""
    with pytest.raises(RequestError) as caught:
        check_link("images[0].image_url", url)
    assert (caught.value.param, caught.value.code) == ("images[0].image_url", "invalid_url")


# Data URLs


@pytest.mark.parametrize(
    ("url", "media_type", "content"),
    [
        ("data:image/png;base64,AAEC", "image/png", b"\0\1\2"),
        ("DATA:Image/PNG;BASE64,AAEC", "image/png", b"\0\1\2"),
        ("data:;base64,AAEC", "", b"\0\1\2"),
        ("data:image/png;charset=utf-8;base64,AAEC", "image/png", b"\0\1\2"),
        ("data:image/png; base64 ,AAEC", "image/png", b"\0\1\2"),
    ],
)
def test_data_urls(url, media_type, content):
    """Media type and bytes of a data URL in every spelling."""
    assert (media_type, content) == data_url("image_url", url)


@pytest.mark.parametrize("url", [A, "http://a.example/data:image/png;base64,AAEC", "", "dat", "database://x"])
def test_ordinary_urls_are_no_data_urls(url):
    """A link is left to others."""
    assert data_url("image_url", url) is None


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("data:image/png;base64", "invalid_url"),
        ("data:", "invalid_url"),
        ("data:image/png;base64,", "invalid_image_file"),
        ("data:image/png;base64,ÄÄÄÄ", "invalid_base64"),
        ("data:image/png;base64,AAEC====", "invalid_base64"),
        ("data:image/png;base64,A=EC", "invalid_base64"),
    ],
)
def test_broken_data_urls(url, code):
    """Without base64, without content, or with base64 that is none."""
    with pytest.raises(RequestError) as caught:
        data_url("mask.image_url", url)
    assert ("mask.image_url", code) == (caught.value.param, caught.value.code)


@pytest.mark.parametrize(
    "media_type",
    ["image/png\r\nx-own: 1", "image/png\n", "image/p\0ng", "image/" + "x" * 1000, "bild/größe"],
    ids=["line end", "line feed", "NUL", "1000 characters", "not ASCII"],
)
def test_media_types_of_data_urls_are_such(media_type):
    """The type goes into the head of a part and into the file name: what is no media type never gets that far."""
    try:
        found = data_url("image_url", f"data:{media_type};base64,AAEC")
    except RequestError:
        return
    assert found is not None
    assert found.media_type == ""


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_survive_a_data_url(content):
    """What was put into a data URL comes out."""
    found = data_url("x", "data:image/png;base64," + base64.b64encode(content).decode())
    assert found is not None
    assert content == found.data
