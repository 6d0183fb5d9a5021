"""Thirty typical requests, as OpenAI clients send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from imagegate.contract import Operation
from imagegate.testing import png

PROMPT: Final = "A hat on a table, in oil"
LINK: Final = "https://pictures.example/hat.png"


class File(NamedTuple):
    """A file of a form."""

    part: str
    name: str
    content: bytes


class Asked(NamedTuple):
    """A request beside its model and prompt."""

    title: str
    """What distinguishes it, as Markdown."""
    fields: Mapping[str, Any]
    operation: Operation = "generations"
    files: Sequence[File] = ()
    """Sent as a form, with `fields` as text."""

    @property
    def has_mask(self) -> bool:
        return any(file.part == "mask" for file in self.files)


def _images(count: int) -> list[File]:
    part = "image" if count == 1 else "image[]"
    return [File(part, f"{place}.png", png(1024, 1024, shade=place)) for place in range(count)]


_MASK: Final = File("mask", "mask.png", png(1024, 1024, shade=200))

PLAIN: Final = Asked("nothing but a prompt", {})
PLAIN_EDIT: Final = Asked("1 file", {}, "edits", _images(1))
PLAIN_MASK: Final = Asked("1 file and its mask", {}, "edits", [*_images(1), _MASK])

GROUPS: Final[Mapping[str, Sequence[Asked]]] = {
    "Sizes": (
        Asked("`size` 1024x1024", {"size": "1024x1024"}),
        Asked("1536x1024", {"size": "1536x1024"}),
        Asked("1024x1792", {"size": "1024x1792"}),
        Asked("1920x1080", {"size": "1920x1080"}),
        Asked("3840x2160", {"size": "3840x2160"}),
        Asked("`auto`", {"size": "auto"}),
        Asked("16:9", {"size": "16:9"}),
        Asked("2K", {"size": "2K"}),
        Asked("`aspect_ratio` 3:4, `resolution` 1K", {"aspect_ratio": "3:4", "resolution": "1K"}),
    ),
    "Formats": (
        Asked("`output_format` png", {"output_format": "png"}),
        Asked("jpeg, `output_compression` 80", {"output_format": "jpeg", "output_compression": 80}),
        Asked("webp", {"output_format": "webp"}),
        Asked("`background` transparent, png", {"background": "transparent", "output_format": "png"}),
        Asked("transparent, jpeg", {"background": "transparent", "output_format": "jpeg"}),
        Asked("`response_format` b64_json", {"response_format": "b64_json"}),
    ),
    "Numbers": (
        PLAIN,
        Asked("`n` 4", {"n": 4}),
        Asked("`n` 10", {"n": 10}),
        Asked("`seed` 42", {"seed": 42}),
        Asked("`n` 4, `seed` 42", {"n": 4, "seed": 42}),
    ),
    "Ways of making": (
        Asked("`quality` high", {"quality": "high"}),
        Asked("`quality` hd, `style` vivid", {"quality": "hd", "style": "vivid"}),
        Asked("`negative_prompt`", {"negative_prompt": "people"}),
        Asked("`stream`, `partial_images` 2", {"stream": True, "partial_images": 2}),
        Asked("`moderation` low, `user`", {"moderation": "low", "user": "user-17"}),
    ),
    "References": (
        PLAIN_EDIT,
        Asked("3 files, `input_fidelity` high", {"input_fidelity": "high"}, "edits", _images(3)),
        Asked("16 files", {}, "edits", _images(16)),
        PLAIN_MASK,
        Asked("a link", {"images": [{"image_url": LINK}]}, "edits"),
    ),
}
REQUESTS: Final[Sequence[Asked]] = tuple(asked for group in GROUPS.values() for asked in group)


def plain_request(asked: Asked) -> Asked:
    """Return the request of the same kind that asks for nothing else."""
    if asked.operation == "generations":
        return PLAIN
    return PLAIN_MASK if asked.has_mask else PLAIN_EDIT
