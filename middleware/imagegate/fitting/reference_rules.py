"""Checks of uploaded files against a contract, from their heads, before anything is sent. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from imagegate.contracts.changes import Change
from imagegate.contracts.contract import SIZE_FIELDS, Contract
from imagegate.contracts.reference_rule import ReferenceForm, ReferenceRule
from imagegate.contracts.size_syntax import Pixels, SizeSyntaxError, parse_size
from imagegate.contracts.sizes import ListRule
from imagegate.errors import RequestError
from imagegate.fitting.size_fields import wanted_size
from imagegate.protocol.image_format import holds_picture
from imagegate.protocol.messages import FileID, FileRef, ImageRequest, Reference
from imagegate.protocol.references import references_of

AS_OPENAI = ReferenceRule(forms=("files", "objects"), mask=True, file_ids=True)
"""For models without a contract: unchanged, but a mixture of files and links becomes links."""

_REFERENCE_NAME = re.compile(r"mask|image|picture|photo|reference|img")
_LONGEST_NAME = 64
_INNER = ("url", "image_url", "image", "data", "b64_json", "file_id")
"""Members of an object that hold what it refers to."""
_HEAD = 400
"""Characters of base64 by which an image is recognized."""
_MOST_ITEMS = 16
_SAME_TYPE = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}


def check_stray_reference(name: str, value: Any) -> None:
    """Refuse a member that a model does not have where it holds a reference or a mask, by its name and its value.

    Providers call theirs ``input_image``, ``image_input``, ``input_references`` or ``mask_image_url``.

    Raises:
        RequestError: naming the member.
    """
    if _REFERENCE_NAME.search(name[:_LONGEST_NAME].lower()) is not None and _is_reference(value):
        raise RequestError(
            f"This model takes no '{name}'. Send references as the images of an edit, and a mask as its 'mask'.",
            param=name,
            code="unsupported_parameter",
        )


def _is_reference(value: Any) -> bool:
    if isinstance(value, str):
        is_link = value[:16].lstrip().lower().startswith(("http://", "https://", "data:"))
        return is_link or holds_picture(value[:_HEAD])
    if isinstance(value, Mapping):
        return any(_is_reference(value.get(key)) or (key == "file_id" and bool(value.get(key))) for key in _INNER)
    return isinstance(value, Sequence) and any(map(_is_reference, value[:_MOST_ITEMS]))


def links_in(name: str, value: Any) -> list[str]:
    """Return the URLs of a member of a generation's JSON."""
    if isinstance(value, list) and not value:
        return []
    _, sources, _ = references_of({name: value})
    for source in sources:
        if source.url is None:
            raise RequestError("Generations take links to images, no file ids.", param=source.member)
    return [source.url for source in sources if source.url is not None]


def part_of(references: Sequence[Reference]) -> str:
    """Return the part of a form that the first file came in."""
    first = next(iter(references), None)
    return first.part if isinstance(first, FileRef) else "image"


def check_uploads(request: ImageRequest, rule: ReferenceRule) -> list[Change]:
    """Refuses what the model would refuse, and discloses media types that are not what the client declared.

    Raises:
        RequestError: naming the part, with what to change.
    """
    for image in request.images:
        if isinstance(image, FileID) and not rule.file_ids:
            raise RequestError("This model takes no file ids here; send the file or a link.", param=image.member)
        if isinstance(image, FileRef):
            check_image(image, rule)
    first = next((image for image in request.images if isinstance(image, FileRef)), None)
    if isinstance(request.mask, FileRef):
        check_mask(request.mask, first, rule)
    if isinstance(request.markup, FileRef):
        check_markup(request.markup, first, rule)
    named = [(f"image[{place}]", image) for place, image in enumerate(request.images)]
    changes = [type_change(name, upload) for name, upload in [*named, ("mask", request.mask)] if upload is not None]
    return [change for change in changes if change is not None]


def type_change(name: str, upload: object) -> Change | None:
    """Disclose a media type that is not what the client declared; ``application/octet-stream`` declares none."""
    if not isinstance(upload, FileRef):
        return None
    declared = _SAME_TYPE.get(upload.declared_type, upload.declared_type)
    if declared in ("", "application/octet-stream") or declared == upload.media_type:
        return None
    return Change(f"{name}.type", "mapped", upload.declared_type, upload.media_type)


def check_image(upload: FileRef, rule: ReferenceRule) -> None:
    """Refuses an image that the model does not take. Raises `RequestError`."""
    if upload.media_type not in rule.kinds:
        kinds = ", ".join(kind.removeprefix("image/").upper() for kind in rule.kinds)
        raise RequestError(
            f"The image '{upload.filename}' is {upload.media_type}; this model takes {kinds}.",
            param=upload.part,
            code="invalid_image_file",
        )
    if upload.size > rule.max_bytes:
        raise RequestError(
            f"The image '{upload.filename}' has {upload.size:,} bytes; this model takes at most {rule.max_bytes:,}.",
            param=upload.part,
            code="image_too_large",
        )
    facts = upload.facts
    if facts is None:
        raise RequestError(
            f"'{upload.filename}' says that it is {upload.media_type}, but is no image that can be read.",
            param=upload.part,
            code="invalid_image_file",
        )
    if not facts.width:
        return
    if rule.square and facts.width != facts.height:
        raise RequestError(
            f"The image '{upload.filename}' is {facts.width}x{facts.height}, and must be square: crop or pad it.",
            param=upload.part,
            code="invalid_image_file",
        )
    if rule.alpha and not facts.alpha:
        raise RequestError(
            f"The image '{upload.filename}' has no alpha channel, which this model needs. Save it as an RGBA PNG.",
            param=upload.part,
            code="invalid_image_file",
        )


def check_mask(mask: FileRef, first: FileRef | None, rule: ReferenceRule) -> None:
    """Refuse a mask that does not belong to the `first` image. Raises `RequestError`."""
    _check_overlay("mask", mask, first, most=rule.max_mask_bytes, alpha="transparent pixels mark what is to be changed")


def check_markup(markup: FileRef, first: FileRef | None, rule: ReferenceRule) -> None:
    """Refuse a markup that cannot lie on the `first` image. Raises `RequestError`.

    openai-python 3.57: "a transparent PNG overlaid on the first image", which "must match that image's dimensions after
    orientation and contain transparent pixels".
    """
    may_be_turned = first is not None and first.media_type != "image/png"  # by what EXIF says of its orientation
    _check_overlay(
        "markup",
        markup,
        first,
        most=rule.max_bytes,
        alpha="the image must show through it",
        may_be_turned=may_be_turned,
    )


def _check_overlay(
    name: str, file: FileRef, first: FileRef | None, *, most: int, alpha: str, may_be_turned: bool = False
) -> None:
    """Refuse a file that is no PNG with transparency of the first image's size. Raises `RequestError`.

    Args:
        name: of the member.
        most: maximum bytes.
        alpha: what transparency is for, in the words of an error.
        may_be_turned: width and height may change places.
    """

    def refuse(reason: str) -> RequestError:
        return RequestError(f"The {name} {reason}", param=name, code="invalid_image_file")

    if file.media_type != "image/png":
        raise refuse(f"is {file.media_type}; it must be a PNG.")
    if file.size > most:
        raise refuse(f"has {file.size:,} bytes; this model takes at most {most:,}.")
    if file.facts is None:
        raise refuse("says that it is a PNG, but is no image that can be read.")
    if not file.facts.alpha:
        raise refuse(f"has no alpha channel; {alpha}.")
    if first is None or first.facts is None or not first.facts.width:
        return
    own, other = (file.facts.width, file.facts.height), (first.facts.width, first.facts.height)
    if own != other and not (may_be_turned and own == other[::-1]):
        raise refuse(f"is {own[0]}x{own[1]}; it must have the size of the first image, {other[0]}x{other[1]}.")


def size_of_source(request: ImageRequest, contract: Contract) -> str | None:
    """Return the size to add where the model answers in the size of the image and the request names none.

    TokModel, dall-e-2: the size "must match the source image size", and is 1024x1024 where it is left out.

    Raises:
        RequestError: the size is another than the image's, or one that the model does not make.
    """
    source = next((image for image in request.images if isinstance(image, FileRef)), None)
    if source is None or source.facts is None or not source.facts.width:
        return None
    own = Pixels(source.facts.width, source.facts.height)
    allowed = contract.size.values if isinstance(contract.size, ListRule) else ()
    if allowed and str(own) not in allowed:
        raise RequestError(
            f"The image '{source.filename}' is {own}; this model takes {', '.join(allowed)}. Scale it.",
            param=source.part,
            code="invalid_image_file",
        )
    size = request.fields.get("size")
    if not isinstance(size, str):
        return str(own)
    try:
        wanted = parse_size(size)
    except SizeSyntaxError:
        return None  # reported by the size rule
    if isinstance(wanted, Pixels) and wanted != own:
        raise RequestError(
            f"Invalid size '{size}': this model answers in the size of the image, which is {own}. "
            f"Send size '{own}' or another image.",
            param="size",
        )
    return None


def added_size(request: ImageRequest, contract: Contract, rule: ReferenceRule) -> str | None:
    """Return the size to add because of the image; None: none. Raises `RequestError`."""
    if rule.same_size:
        return size_of_source(request, contract)
    return default_size(request, contract) if rule.image_size else None


def default_size(request: ImageRequest, contract: Contract) -> str | None:
    """Return the size that the first image has, as the model makes it; None: it is not known, or the request has one.

    stable-diffusion-webui: a picture is 512x512 where no size is sent, whatever its start picture is.
    """
    source = next((image for image in request.images if isinstance(image, FileRef)), None)
    facts = source.facts if source is not None else None
    if facts is None or not facts.width or contract.size is None:
        return None
    named = {name.partition(".")[0] for name in SIZE_FIELDS} & request.fields.keys()
    if named and (named != {"size"} or request.fields["size"] != "auto"):
        return None
    wanted = wanted_size({"size": f"{facts.width}x{facts.height}"})
    return contract.size.fit(wanted, with_references=True).fields.get("size")


def chosen_form(request: ImageRequest, rule: ReferenceRule) -> ReferenceForm:
    """Return the form in which references go upstream: files where the model takes them, and links only where not.

    A model in no contract gets what the client wrote.
    """
    extras = (request.mask,) if request.mask is not None else ()
    references = (*request.images, *extras)
    if all(isinstance(reference, FileRef) for reference in references):
        order: tuple[ReferenceForm, ...] = ("files", "inline", "uploads", "links", "objects")
    elif rule is AS_OPENAI or any(isinstance(reference, FileID) for reference in references):
        order = ("objects", "links", "files", "inline", "uploads")
    else:
        order = ("files", "links", "objects", "inline", "uploads")
    return next(form for form in order if form in rule.forms)
