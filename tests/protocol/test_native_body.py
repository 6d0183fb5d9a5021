"""Bodies in a provider's own words, as contracts describe them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.adapter import FileID, ImageRequest, Link, model_path, native_body
from imagegate.contract import BodyRule, load_contracts, read_document
from imagegate.errors import ConfigError, RequestError
from imagegate.fitting.fit import fit
from imagegate.protocol.request_encoding import InlineFile
from imagegate.testing import MemoryFile, png

ONE, TWO = MemoryFile(png(shade=1), filename="one.png"), MemoryFile(png(shade=2), filename="two.png")


def body(rule: BodyRule, **members: Any) -> dict[str, Any]:
    images, mask = members.pop("images", ()), members.pop("mask", None)
    request = ImageRequest(
        operation="generations",
        fields={"model": "m", "prompt": "a hat", **members},
        images=tuple(images),
        mask=mask,
        body_rule=rule,
    )
    return shown(native_body(request))


def shown(node: Any) -> Any:
    if isinstance(node, InlineFile):
        return f"{node.head}<{node.upload.filename}>"
    if isinstance(node, dict):
        return {name: shown(value) for name, value in node.items()}
    return [shown(value) for value in node] if isinstance(node, list) else node


@pytest.mark.parametrize(
    ("rule", "asked", "written"),
    [
        (BodyRule(), {"size": "64x32", "seed": 1}, {"prompt": "a hat", "size": "64x32", "seed": 1}),
        (BodyRule(separator="*"), {"size": "64x32"}, {"prompt": "a hat", "size": "64*32"}),
        (BodyRule(separator="*"), {"size": "auto"}, {"prompt": "a hat", "size": "auto"}),
        (BodyRule(separator="*"), {"size": "2K"}, {"prompt": "a hat", "size": "2K"}),
        (
            BodyRule(edges=("width", "height"), with_size={"aspect_ratio": "custom"}),
            {"size": "64x32"},
            {"prompt": "a hat", "aspect_ratio": "custom", "width": 64, "height": 32},
        ),
        (BodyRule(edges=("width", "height"), with_size={"aspect_ratio": "custom"}), {}, {"prompt": "a hat"}),
        (
            BodyRule(edges=("image_size.width", "image_size.height"), names={"n": "num_images"}),
            {"size": "64x32", "n": 2},
            {"prompt": "a hat", "image_size": {"width": 64, "height": 32}, "num_images": 2},
        ),
        (
            BodyRule(names={"prompt": "input.text", "n": "", "size": "at.size"}, constants={"input.lang": "en"}),
            {"size": "64x32", "n": 1},
            {"input": {"lang": "en", "text": "a hat"}, "at": {"size": "64x32"}},
        ),
        (BodyRule(), {"prompt.a": 1, "a.b": 2}, {"prompt": "a hat", "prompt.a": 1, "a.b": 2}),
    ],
)
def test_members_stand_where_the_rule_says(rule: BodyRule, asked: dict[str, Any], written: dict[str, Any]) -> None:
    """Renamed, nested, left out; a size as a text or as two integers; constants beside them."""
    assert body(rule, **asked) == written


def test_a_clients_member_in_the_way_of_the_models() -> None:
    """A client's own text stands where the rule puts an object: it is refused by its name."""
    rule = BodyRule(edges=("image_size.width", "image_size.height"))
    with pytest.raises(RequestError) as caught:
        body(rule, size="64x32", image_size="square_hd")
    assert caught.value.param == "image_size"
    with pytest.raises(RequestError):
        body(rule, image_size="square_hd", size="64x32")


def test_references_and_masks() -> None:
    """In a list, or in a member for each; as data URLs or as plain base64; links stay links where they are taken."""
    link = Link("https://a.example/1.png")
    data = "data:image/png;base64,"
    assert body(BodyRule(images="image_urls", mask="mask_url"), images=[ONE, TWO], mask=ONE) == {
        "prompt": "a hat",
        "image_urls": [f"{data}<one.png>", f"{data}<two.png>"],
        "mask_url": f"{data}<one.png>",
    }
    each = BodyRule(images=("input_image", "input_image_2"), files="base64")
    assert body(each, images=[ONE, TWO]) == {
        "prompt": "a hat",
        "input_image": "<one.png>",
        "input_image_2": "<two.png>",
    }
    assert body(each, images=[link, ONE]) == {"prompt": "a hat", "input_image": link.url, "input_image_2": "<one.png>"}


@pytest.mark.parametrize(
    ("rule", "asked", "param"),
    [
        (BodyRule(), {"images": [ONE]}, "image"),
        (BodyRule(images=("image",)), {"images": [ONE, TWO]}, "image"),
        (BodyRule(images="images"), {"images": [ONE], "mask": TWO}, "mask"),
        (BodyRule(images="images", required=("image",)), {}, "image"),
        (BodyRule(images="images", mask="mask", required=("image", "mask")), {"images": [ONE]}, "mask"),
    ],
)
def test_what_has_no_place_is_refused(rule: BodyRule, asked: dict[str, Any], param: str) -> None:
    """Nothing is dropped."""
    with pytest.raises(RequestError) as caught:
        body(rule, **asked)
    assert caught.value.param == param


@pytest.mark.parametrize("files", ["base64", "data_url"])
def test_files_that_were_uploaded_are_written_as_their_ids(files: Any) -> None:
    rule = BodyRule(images="images", mask="cover", files=files)
    written = body(rule, images=[FileID("file-1"), FileID("file-2")], mask=FileID("file-3"))
    assert written == {"prompt": "a hat", "images": ["file-1", "file-2"], "cover": "file-3"}


DOCUMENT = """
    [families.flux.body]
    names = { n = "num_images", seed = "random_seed" }
    constants = { sync_mode = false }
    images = "image_urls"
    [models.dev]
    family = "flux"
    edits = { references = { forms = ["inline"] }, parameters = {}, body = { mask = "mask_url", names = { n = "" } } }
    [models.plain]
    family = "flux"
    body = false
"""


def test_the_body_of_a_family_is_merged_key_by_key() -> None:
    """Edits say what differs; a model may take it away."""
    contracts = load_contracts(read_document(DOCUMENT))
    whole, edits = contracts["dev"].body, contracts["dev"].edits
    assert whole is not None
    assert edits is not None
    assert edits.body is not None
    assert (edits.body.mask, edits.body.images) == ("mask_url", "image_urls")
    assert edits.body.names == {"n": "", "seed": "random_seed"}
    assert edits.body.constants == {"sync_mode": False}
    assert whole.mask == ""
    assert contracts["plain"].body is None


@pytest.mark.parametrize("policy", ["nearest", "pass"])
def test_a_fitted_request_knows_its_body(policy: Any) -> None:
    """Also where nothing is changed; requests of other contracts stay the same object."""
    contracts = load_contracts(read_document(DOCUMENT))
    request = ImageRequest(operation="edits", fields={"model": "dev"}, images=(ONE,))
    rule = fit(request, contracts["dev"], policy=policy)[0].body_rule
    assert rule is not None
    assert rule.mask == "mask_url"
    plain = ImageRequest(operation="generations", fields={"model": "plain"})
    assert fit(plain, contracts["plain"], policy=policy)[0] is plain


def test_a_model_is_a_path() -> None:
    """Slashes stay."""
    assert model_path("fal-ai/flux-2/klein/4b") == "fal-ai/flux-2/klein/4b"
    assert model_path("owner/name_1.5") == "owner/name_1.5"


@given(st.one_of(st.text(max_size=20), st.text(alphabet="a./?#%: \\", max_size=8)))
def test_a_model_leads_nowhere_else(model: str) -> None:
    """What could be another path, query or host is refused."""
    try:
        path = model_path(model)
    except RequestError as error:
        assert error.param == "model"  # noqa: PT017 - either is right
    else:
        assert path == model
        assert not any(segment in ("", ".", "..") for segment in path.split("/"))
        assert not set(path) & set("?#%: \\")


def test_a_size_has_two_edges() -> None:
    """Or none."""
    with pytest.raises(ConfigError, match="two members, for width and height"):
        load_contracts(read_document('models.m.body.edges = ["width"]'))


NAMES = st.text(alphabet="abcdef", min_size=1, max_size=4)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: ".".join(["at", *parts]))


@given(
    st.dictionaries(NAMES, st.integers(), max_size=6),
    st.dictionaries(NAMES, PATHS, max_size=6),
    st.booleans(),
)
def test_every_member_arrives(fields: dict[str, int], names: dict[str, str], edges: bool) -> None:
    """Wherever the rule puts it, and only once, as long as no two of its places lie in one another."""
    used = {names.get(name, name) for name in fields}
    if len(used) < len(fields) or any(one != two and two.startswith(f"{one}.") for one in used for two in used):
        return
    rule = BodyRule(names=names, edges=("edges.wide", "edges.high") if edges else ())
    asked = {"model": "m", **fields, "size": "64x32"}
    document = native_body(ImageRequest(operation="generations", fields=asked, body_rule=rule))
    leaves = flat(document)
    expected = {names.get(name, name): value for name, value in fields.items()}
    assert {path: value for path, value in leaves.items() if path in expected} == expected
    assert len(leaves) == len(fields) + (2 if edges else 1)
    assert (leaves["edges.wide"], leaves["edges.high"]) == (64, 32) if edges else leaves["size"] == "64x32"


def flat(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {path: node}
    return {
        key: value for name, each in node.items() for key, value in flat(each, f"{path}.{name}".lstrip(".")).items()
    }
