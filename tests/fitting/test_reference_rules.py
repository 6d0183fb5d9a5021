"""Checks of files against a contract, from their heads, before anything is sent."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from imagegate.contracts.changes import Change
from imagegate.contracts.contract import Contract
from imagegate.contracts.reference_rule import ReferenceRule
from imagegate.contracts.sizes import FlexibleRule, ListRule
from imagegate.errors import RequestError
from imagegate.fitting.fit import fit
from imagegate.fitting.reference_rules import added_size, check_uploads, size_of_source
from imagegate.protocol.messages import FileID, ImageRequest, Link
from imagegate.spool.budget import Budget
from imagegate.spool.upload import Upload

BUDGET = Budget(total=2**30, memory=2**30)
OPENED: list[Upload] = []
RULE = ReferenceRule(forms=("files",), mask=True)
DALL_E_2 = ReferenceRule(
    forms=("files",),
    max=1,
    mask=True,
    kinds=("image/png",),
    max_bytes=4_000_000,
    square=True,
    alpha=True,
    same_size=True,
)


@pytest.fixture(autouse=True)
def closed_in_the_end() -> Iterator[None]:
    """No test leaves a file open."""
    yield
    while OPENED:
        OPENED.pop().close()


def picture(width: int = 64, height: int = 64, mode: str = "RGBA", form: str = "PNG", **options: Any) -> bytes:
    """A real picture."""
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, form, **options)
    return buffer.getvalue()


def upload(
    content: bytes | None = None, declared: str = "image/png", *, part: str = "image", name: str = "a.png"
) -> Upload:
    """A whole file as it came in."""

    async def made() -> Upload:
        file = Upload(part, name, declared, budget=BUDGET)
        await file.write(picture() if content is None else content)
        await file.complete()
        OPENED.append(file)
        return file

    return asyncio.run(made())


def shown(value: object) -> str | None:
    """Files are no names for tests."""
    return "file" if isinstance(value, bytes) else None


def mask(content: bytes | None = None, declared: str = "image/png") -> Upload:
    return upload(content, declared, part="mask", name="mask.png")


def edit(*images: Any, mask: Any = None, **fields: Any) -> ImageRequest:
    """An edit as it is before it goes upstream."""
    return ImageRequest(operation="edits", fields={"model": "m", "prompt": "p", **fields}, images=images, mask=mask)


def refusal(request: ImageRequest, rule: ReferenceRule = RULE) -> RequestError:
    """Why the request is refused, which must be said with the field and a code."""
    with pytest.raises(RequestError) as caught:
        check_uploads(request, rule)
    assert caught.value.status == 400
    assert caught.value.code
    return caught.value


# Kinds and sizes


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_kinds_that_the_model_takes(form):
    """PNG, JPEG and WebP pass without a word."""
    content = picture(mode="RGB", form=form)
    assert check_uploads(edit(upload(content, f"image/{form.lower()}")), RULE) == []


@pytest.mark.parametrize(
    ("content", "declared", "rule", "told"),
    [
        (picture(mode="P", form="GIF"), "image/gif", RULE, ["image/gif", "PNG, JPEG, WEBP"]),
        (picture(mode="P", form="GIF"), "image/png", RULE, ["image/gif"]),
        (b"\x00\x00\x00\x1cftypavif" + bytes(20), "image/avif", RULE, ["image/avif"]),
        (b"\x00\x00\x00\x18ftypheic" + bytes(20), "image/heic", RULE, ["image/heic"]),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", RULE, ["image/svg+xml"]),
        (picture(mode="RGB", form="JPEG"), "image/png", DALL_E_2, ["image/jpeg", "PNG"]),
    ],
    ids=shown,
)
def test_kinds_that_the_model_does_not_take(content, declared, rule, told):
    """Another format is refused by what the file is, whatever it says it is, and the message names what is taken."""
    error = refusal(edit(upload(content, declared, part="image[]", name="cat.dat")), rule)
    assert (error.param, error.code) == ("image[]", "invalid_image_file")
    assert all(word in error.message for word in ("cat.dat", *told))


@pytest.mark.parametrize(("limit", "fits"), [(3000, True), (2999, False)])
def test_the_largest_file(limit, fits):
    """A file may have as many bytes as the contract says, and not one more."""
    content = picture() + bytes(3000 - len(picture()))
    rule = ReferenceRule(forms=("files",), max_bytes=limit)
    if fits:
        assert check_uploads(edit(upload(content)), rule) == []
    else:
        error = refusal(edit(upload(content)), rule)
        assert (error.param, error.code) == ("image", "image_too_large")
        assert "3,000" in error.message
        assert "2,999" in error.message


# Square, alpha


def test_dall_e_2_takes_a_square_png_with_alpha():
    """What the documentation asks for passes."""
    assert check_uploads(edit(upload(picture(256, 256))), DALL_E_2) == []
    palette = Image.new("P", (256, 256))
    palette.putpalette(bytes(768))
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=0)
    assert check_uploads(edit(upload(buffer.getvalue())), DALL_E_2) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (picture(256, 255), ["256x255", "square"]),
        (picture(256, 256, "RGB"), ["alpha", "RGBA"]),
        (picture(256, 256, "L"), ["alpha"]),
        (picture(256, 256, "P"), ["alpha"]),
    ],
    ids=shown,
)
def test_dall_e_2_refuses_and_says_what_to_change(content, words):
    """Not square, or without alpha: the error names the file, its size and the remedy."""
    error = refusal(edit(upload(content, name="cat.png")), DALL_E_2)
    assert (error.param, error.code) == ("image", "invalid_image_file")
    assert all(word in error.message for word in ("cat.png", *words))


def test_a_head_that_says_nothing_is_not_refused():
    """A PNG that is cut after its signature is left for the provider to judge."""
    assert check_uploads(edit(upload(b"\x89PNG\r\n\x1a\n")), DALL_E_2) == []


def test_every_image_is_checked():
    """The third image is checked like the first."""
    good, bad = upload(), upload(picture(mode="P", form="GIF"), "image/gif", part="image[]", name="third.gif")
    assert "third.gif" in refusal(edit(good, good, bad)).message


@pytest.mark.parametrize("content", [b"no picture at all", b"<!doctype html>", b"%PDF-1.7", bytes(100)])
def test_what_only_says_that_it_is_a_picture(content):
    """The type that a client declares is believed of nothing that can be read, and of nothing that cannot."""
    error = refusal(edit(upload(content, "image/png", name="a.png")))
    assert (error.param, error.code) == ("image", "invalid_image_file")
    assert "a.png" in error.message
    error = refusal(edit(upload(), mask=mask(content)))
    assert (error.param, error.code) == ("mask", "invalid_image_file")


# File ids, links


def test_file_ids():
    """A file id is only for models whose provider has it."""
    error = refusal(edit(FileID("file-1")))
    assert error.param == "images"
    assert "file id" in error.message
    assert check_uploads(edit(FileID("file-1")), ReferenceRule(forms=("objects",), file_ids=True)) == []


def test_links_cannot_be_checked():
    """What stands behind a link is not known here."""
    assert check_uploads(edit(Link("https://a.example/b.gif"), mask=Link("https://a.example/c.gif")), RULE) == []


# Masks


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_masks_that_fit(mode):
    """A PNG with alpha, of the size of the first image."""
    assert check_uploads(edit(upload(), mask=mask(picture(mode=mode))), RULE) == []


def test_masks_are_measured_against_the_first_image():
    """The sizes of the other images say nothing."""
    first, second = upload(picture(64, 32)), upload(picture(10, 10))
    assert check_uploads(edit(first, second, mask=mask(picture(64, 32))), RULE) == []
    refusal(edit(second, first, mask=mask(picture(64, 32))))


@pytest.mark.parametrize(
    ("content", "declared", "words"),
    [
        (picture(mode="RGB", form="JPEG"), "image/jpeg", ["image/jpeg", "PNG"]),
        (picture(mode="RGB", form="JPEG"), "image/png", ["image/jpeg", "PNG"]),
        (picture(mode="RGBA", form="WEBP"), "image/webp", ["image/webp", "PNG"]),
        (picture(mode="RGB"), "image/png", ["alpha", "transparent"]),
        (picture(mode="L"), "image/png", ["alpha"]),
        (picture(mode="1"), "image/png", ["alpha"]),
        (picture(64, 63), "image/png", ["64x63", "64x64"]),
        (picture(128, 128), "image/png", ["128x128", "64x64"]),
        (picture() + bytes(4_000_000), "image/png", ["4,000,", "bytes"]),
    ],
    ids=shown,
)
def test_masks_that_do_not_fit(content, declared, words):
    """Format, alpha, pixels and bytes of a mask are checked, and the error says which it is."""
    error = refusal(edit(upload(), mask=mask(content, declared)))
    assert (error.param, error.code) == ("mask", "invalid_image_file")
    assert all(word in error.message for word in words)


def test_a_mask_without_an_image_of_known_size():
    """Where the first image is a link, or tells no size, the mask is checked for itself."""
    assert check_uploads(edit(Link("https://a.example/b.png"), mask=mask(picture(7, 7))), RULE) == []
    assert check_uploads(edit(upload(b"\x89PNG\r\n\x1a\n"), mask=mask(picture(7, 7))), RULE) == []
    assert refusal(edit(Link("https://a.example/b.png"), mask=mask(picture(7, 7, "RGB")))).param == "mask"


# Lying types


@pytest.mark.parametrize(
    ("content", "declared", "expected"),
    [
        (picture(mode="RGB", form="JPEG"), "image/png", ("image/png", "image/jpeg")),
        (picture(), "image/webp", ("image/webp", "image/png")),
        (picture(), "image/heic", ("image/heic", "image/png")),
        (picture(), "application/pdf", ("application/pdf", "image/png")),
        (picture(), "text/html", ("text/html", "image/png")),
        (picture(), "image/png", None),
        (picture(), "", None),
        (picture(), "application/octet-stream", None),
        (picture(), "image/x-png", None),
        (picture(mode="RGB", form="JPEG"), "image/jpg", None),
        (picture(mode="RGB", form="JPEG"), "image/pjpeg", None),
    ],
    ids=shown,
)
def test_lying_types_are_disclosed(content, declared, expected):
    """Who says one thing and sends another is told what was sent on; who says nothing has not lied."""
    changes = check_uploads(edit(upload(content, declared)), RULE)
    assert ([Change("image[0].type", "mapped", *expected)] if expected else []) == changes


def test_each_lie_is_told_with_its_place():
    """The second image and the mask are named as such."""
    lying = upload(picture(mode="RGB", form="JPEG"), "image/png", part="image[]")
    changes = check_uploads(edit(upload(), lying, mask=mask(picture(), "image/jpeg")), RULE)
    expected = [
        Change("image[1].type", "mapped", "image/png", "image/jpeg"),
        Change("mask.type", "mapped", "image/jpeg", "image/png"),
    ]
    assert expected == changes


# The size of the source


SIZES = Contract(parameters={}, size=ListRule(values=("256x256", "512x512", "1024x1024")), references=DALL_E_2)


@pytest.mark.parametrize("edge", [256, 512, 1024])
def test_the_size_of_the_source_is_added(edge):
    """Where the model answers in the size of the image and the request names none, it is named."""
    assert f"{edge}x{edge}" == size_of_source(edit(upload(picture(edge, edge))), SIZES)


@pytest.mark.parametrize("size", ["256x256", " 256X256 ", "256*256"])
def test_the_same_size_is_left_alone(size):
    """Who names the size of the image, in any spelling, has nothing added."""
    assert size_of_source(edit(upload(picture(256, 256)), size=size), SIZES) is None


def test_another_size_is_refused():
    """A size that is not the image's own is an error that says both."""
    with pytest.raises(RequestError) as caught:
        size_of_source(edit(upload(picture(256, 256)), size="512x512"), SIZES)
    assert caught.value.param == "size"
    assert "512x512" in caught.value.message
    assert "256x256" in caught.value.message


@pytest.mark.parametrize("edge", [255, 300, 2048])
def test_a_source_of_a_size_that_is_not_made_is_refused(edge):
    """An image that the model cannot answer in is an error that names the sizes, whatever size was asked for."""
    for fields in ({}, {"size": "256x256"}):
        with pytest.raises(RequestError) as caught:
            size_of_source(edit(upload(picture(edge, edge), name="cat.png"), **fields), SIZES)
        assert (caught.value.param, caught.value.code) == ("image", "invalid_image_file")
        assert all(word in caught.value.message for word in ("cat.png", f"{edge}x{edge}", "512x512"))


def test_no_size_is_added_for_what_is_not_known():
    """Links, heads without a size, and sizes that cannot be read are somebody else's affair."""
    assert size_of_source(edit(Link("https://a.example/b.png")), SIZES) is None
    assert size_of_source(edit(upload(b"\x89PNG\r\n\x1a\n")), SIZES) is None
    assert size_of_source(edit(upload(picture(256, 256)), size="huge"), SIZES) is None
    assert size_of_source(edit(upload(picture(256, 256)), size="auto"), SIZES) is None


START = ReferenceRule(forms=("inline",), image_size=True)
GRID = Contract(parameters={}, size=FlexibleRule(multiple=8, min_edge=64, max_edge=2048, auto=False), references=START)


@pytest.mark.parametrize(("width", "height", "size"), [(512, 768, "512x768"), (513, 768, "512x768")])
@pytest.mark.parametrize("fields", [{}, {"size": "auto"}])
def test_the_size_of_the_start_picture_is_disclosed(width, height, size, fields):
    """Where the server's own would be another; as near as the model makes it."""
    contract = Contract(parameters={}, size=GRID.size, references=START, edits=GRID)
    request, changes = fit(edit(upload(picture(width, height)), **fields), contract)
    assert request.fields["size"] == size
    kind = Change("size", "mapped", "auto", size) if fields else Change("size", "added", to=size)
    assert kind in changes


@pytest.mark.parametrize("fields", [{"size": "64x64"}, {"aspect_ratio": "1:1"}, {"resolution": "1K"}])
def test_a_size_that_is_asked_for_stays(fields):
    """Nothing is added beside it, nor for what is not known, nor by another rule."""
    assert added_size(edit(upload(picture(512, 768)), **fields), GRID, START) is None
    assert added_size(edit(Link("https://a.example/b.png")), GRID, START) is None
    assert added_size(edit(upload(picture(512, 768))), GRID, RULE) is None
    assert added_size(edit(upload(picture(512, 768))), Contract(parameters={}), START) is None
