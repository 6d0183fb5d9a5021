"""Pictures and contact sheets of the demo."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat
from tests.demo.support import size_and_format

from imagegate.demo.lettering import drawable, fit, font_of, wrap
from imagegate.demo.pictures import SheetEntry, contact_sheet, draw_picture
from imagegate.demo.sheet import CELL

PROVIDERS = ("TokModel", "TokenBay", "TokenLab", "ToAPIs", "OneToken", "somebody else")


def draw(width: int = 320, height: int = 200, **changes: Any) -> bytes:
    options: dict[str, Any] = {"prompt": "a cat", "provider": "TokenLab", "model": "dall-e-3", **changes}
    return draw_picture(width=width, height=height, **options)


@pytest.mark.parametrize(
    ("image_format", "expected"), [("png", "PNG"), ("jpeg", "JPEG"), ("jpg", "JPEG"), ("webp", "WEBP")]
)
def test_a_picture_has_the_size_and_the_format_that_were_asked_for(image_format: str, expected: str) -> None:
    """Width, height and format in the file's head are those of the order."""
    assert (320, 200, expected) == size_and_format(draw(image_format=image_format))


def test_an_unknown_format_is_an_error() -> None:
    """A format that no model makes raises KeyError rather than making something else."""
    with pytest.raises(KeyError):
        draw(image_format="bmp")


def test_the_same_order_gives_the_same_bytes() -> None:
    """Drawing is deterministic."""
    assert draw() == draw()


@pytest.mark.parametrize("change", [{"prompt": "a dog"}, {"index": 1}, {"provider": "ToAPIs"}, {"note": "edit"}])
def test_what_was_asked_can_be_seen(change: dict[str, Any]) -> None:
    """Another prompt, index, provider or note gives another picture."""
    assert draw() != draw(**change)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_has_pictures(provider: str) -> None:
    """Known and unknown providers draw without an error."""
    assert size_and_format(draw(provider=provider)) == (320, 200, "PNG")


@pytest.mark.parametrize("size", [(16, 16), (64, 900), (352, 2928), (3072, 384), (1, 1)])
def test_extreme_shapes_are_drawn(size: tuple[int, int]) -> None:
    """Tiny and very long pictures keep their size and do not fail on their caption."""
    assert (*size, "PNG") == size_and_format(draw(*size, prompt="a very long prompt " * 60))


@pytest.mark.parametrize("size", [(320, 200), (1, 1), (7, 900), (1100, 16)])
def test_every_format_holds_the_same_picture(size: tuple[int, int]) -> None:
    """The PNG differs from the JPEG by no more than what JPEG loses."""
    with (
        Image.open(io.BytesIO(draw(*size))) as lossless,
        Image.open(io.BytesIO(draw(*size, image_format="jpeg"))) as lossy,
    ):
        difference = ImageStat.Stat(ImageChops.difference(lossless, lossy))
    assert max(difference.mean) < 6


def test_a_transparent_picture_has_transparent_pixels() -> None:
    """`transparent` leaves the background out where the format can do so, and only there."""
    with Image.open(io.BytesIO(draw(512, 512, transparent=True))) as image:
        alpha = image.getchannel("A").tobytes()
        assert min(alpha) == 0
        assert max(alpha) > 150
    with Image.open(io.BytesIO(draw(transparent=True, image_format="jpeg"))) as image:
        assert image.mode == "RGB"


def test_prompts_in_any_script_are_drawn() -> None:
    """Characters that the font lacks become characters that it has, never an error."""
    assert draw(prompt="一只猫 × café 😀\n\tнебо \ud800")
    assert drawable("× café → ß") == "x cafe -> ss"


def test_wrapped_lines_fit_and_lose_nothing() -> None:
    """Lines are no wider than allowed, and together they hold every character."""
    text = 'to="aspect_ratio=16:9,resolution=1k", input_fidelity;dropped and words'
    lines = wrap(text, font_of(19), 200)
    assert all(font_of(19).getlength(line) <= 200 for line in lines)
    assert text.replace(" ", "") == "".join(lines).replace(" ", "")


def test_text_that_cannot_fit_ends_in_an_ellipsis() -> None:
    """At the smallest size the rest of a text is left out, and one can see that."""
    block = fit("word " * 500, width=200, height=60, largest=30, smallest=12)
    assert block.size == 12
    assert block.lines[-1].endswith("...")
    assert block.width <= 200


def sheet_entries(count: int, subtitles: tuple[str, ...] = ("1024 x 1024",)) -> list[SheetEntry]:
    picture = draw(64, 64)
    return [SheetEntry(f"picture {number}", subtitles, picture) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 26])
def test_a_sheet_holds_any_number_of_pictures(count: int) -> None:
    """From none to many, the sheet is a PNG."""
    assert size_and_format(contact_sheet(sheet_entries(count), heading="demo"))[2] == "PNG"


def test_long_captions_make_the_sheet_taller() -> None:
    """A caption is written in full: more lines cost height, not words."""
    short = size_and_format(contact_sheet(sheet_entries(2)))
    long = size_and_format(contact_sheet(sheet_entries(2, ("many words " * 30, "and more"))))
    assert short[0] == long[0]
    assert short[1] < long[1]


def test_no_caption_leaves_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line of a caption ends inside its own card, and no two lines touch."""
    lines: list[tuple[float, float, float]] = []
    original = ImageDraw.ImageDraw.text

    def spy(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, **options: Any) -> None:
        lines.append((xy[0], xy[1], xy[0] + options["font"].getlength(text)))
        original(self, xy, text, **options)

    entries = sheet_entries(4, ("averyveryverylongwordwithoutanyspaceatallinsideofit" * 3, "x" * 200))
    contact_sheet(entries)
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", spy)
    width, height, _ = size_and_format(contact_sheet(entries))
    first, second = sorted({left for left, _, _ in lines})
    assert all(right <= left + CELL for left, _, right in lines)
    assert first + CELL < second
    assert second + CELL < width
    rows = sorted({middle for _, middle, _ in lines})
    assert all(below - above >= 19 for above, below in pairwise(rows))
    assert rows[-1] < height - 20


def test_an_unreadable_picture_does_not_spoil_the_sheet() -> None:
    """Bytes that are no picture leave an empty box with a word in it."""
    assert contact_sheet([SheetEntry("broken", (), b"no picture")])
