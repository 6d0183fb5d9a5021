"""Requests as JSON of a provider's own, as the `body` of their contract says. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import msgspec

from imagegate.contracts.body import BodyRule
from imagegate.contracts.size_syntax import Pixels, SizeSyntaxError, parse_size
from imagegate.errors import RequestError, type_error
from imagegate.protocol.messages import FileID, FileRef, ImageRequest, Link, Reference
from imagegate.protocol.request_encoding import FilePart, InlineFile, TextPart, form_texts, inline, linked

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*", re.ASCII)


def native_body(request: ImageRequest) -> dict[str, Any]:
    """Return the body of a request, without the model; where no contract has a `body`, members keep their names.

    Raises:
        RequestError: it has references or a mask, for which the contract names no member, or lacks what is required.
    """
    rule = request.body_rule or BodyRule()
    document: dict[str, Any] = {}
    for path, value in rule.constants.items():
        _put(document, path, value)
    for name, value in request.fields.items():
        size = _pixels(value) if name == "size" else None
        if size is not None:
            for path, constant in rule.with_size.items():
                _put(document, path, constant)
        if size is not None and rule.edges:
            _put(document, rule.edges[0], size.width)
            _put(document, rule.edges[1], size.height)
        elif name != "model" and (path := rule.names.get(name, name)):
            text = value if size is None else f"{size.width}{rule.separator}{size.height}"
            if name in rule.names:
                _put(document, path, text)
            elif isinstance(document.get(name), dict):  # what the rule puts there
                raise type_error(name, "an object", text)
            else:
                document[name] = text
    for path, value in _references(request, rule):
        _put(document, path, value)
    return document


def native_form(request: ImageRequest) -> tuple[TextPart | FilePart, ...]:
    """Return the same members as a form, with files after them: ``image`` as often as there are images, and ``mask``.

    Other names of those parts are the rule's ``images`` and ``mask``.
    """
    rule = request.body_rule or BodyRule()
    texts = form_texts(native_body(msgspec.structs.replace(request, images=(), mask=None)))
    names = [rule.images or "image"] * len(request.images) if isinstance(rule.images, str) else rule.images
    named = [*zip(names, request.images, strict=False), (rule.mask or "mask", request.mask)]
    return (*texts, *(FilePart(name, file) for name, file in named if isinstance(file, FileRef)))


def _references(request: ImageRequest, rule: BodyRule) -> Iterator[tuple[str, Any]]:
    for name, present in (("image", request.images), ("mask", request.mask)):
        if name in rule.required and not present:
            raise RequestError(f"This model needs {'an' if name == 'image' else 'a'} {name}.", param=name)
    if request.images:
        written = [_written(image, rule) for image in request.images]
        if isinstance(rule.images, str):
            if not rule.images:
                raise RequestError("This model takes no reference images.", param="image", code="unsupported_parameter")
            yield rule.images, written
        elif len(written) > len(rule.images):
            raise RequestError(f"This model takes at most {len(rule.images)} reference images.", param="image")
        else:
            yield from zip(rule.images, written, strict=False)
    if request.mask is not None:
        if not rule.mask:
            raise RequestError("This model takes no mask here.", param="mask", code="unsupported_parameter")
        yield rule.mask, _written(request.mask, rule)


def _written(reference: Reference, rule: BodyRule) -> InlineFile | str:
    if isinstance(reference, FileID):
        return reference.id
    is_base64 = rule.files == "base64" and not isinstance(reference, Link)
    return inline(reference) if is_base64 else linked(reference)


def _pixels(value: Any) -> Pixels | None:
    try:
        size = parse_size(value) if isinstance(value, str) else None
    except SizeSyntaxError:
        return None
    return size if isinstance(size, Pixels) else None


def _put(document: dict[str, Any], path: str, value: Any) -> None:
    *outer, name = path.split(".")
    for each in outer:
        document = document.setdefault(each, {})
        if not isinstance(document, dict):  # the client's own member of that name
            raise type_error(each, "an object", document)
    document[name] = value


def wire_path(request: ImageRequest, name: str = "path") -> str:
    """Return the path that the model's contract names under ``wire``.

    Raises:
        RequestError: the model has no contract, at a provider where every model has a path of its own.
    """
    path = request.wire.get(name)
    if not isinstance(path, str):
        raise RequestError(f"The provider has no model '{request.model[:128]}'.", param="model", code="model_not_found")
    return path


def model_path(model: str) -> str:
    """Return a model's name as a path, such as ``owner/name``.

    Raises:
        RequestError: it is no path, or leads out of its place.
    """
    if not all(_SEGMENT.fullmatch(segment) for segment in model.split("/")):
        raise RequestError(f"The provider has no model '{model[:128]}'.", param="model", code="model_not_found")
    return quote(model)
