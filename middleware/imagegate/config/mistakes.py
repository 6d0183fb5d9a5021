"""Messages about mistakes in a configuration: they name the key and what is allowed, in the terms of TOML."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from imagegate.errors import ConfigError
from imagegate.protocol.names import did_you_mean

Decode = Callable[[type, Any], Any]
"""msgspec's ``dec_hook``."""


class KeyedError(ConfigError):
    """A mistake with its key, from which its line is found."""

    def __init__(self, message: str, path: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.path = path


def shown(path: Sequence[str | int]) -> str:
    """Return a path as TOML would write it: ``upstreams[0].name``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def keyed(
    text: str, document: Any, kind: Any, *, above: Sequence[str | int] = (), decode: Decode | None = None
) -> KeyedError:
    """Return msgspec's message, such as ``... - at `$.upstreams[0].name` ``, as an error about a key.

    Args:
        document: that was converted.
        kind: that it was converted to.
        above: path of the document.
        decode: with which it was converted.
    """
    message, _, where = text.partition(" - at `$")
    path, around = [*above], kind
    for name, index in re.findall(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]", where):
        part = _part(name, index, document, kind, decode)
        path.append(part)
        document, kind, around = _value(document, part), _kind_of(kind, part), kind
    if found := re.search(r"unknown field `([^`]+)`", message):
        path.append(found[1])
        message = f"unknown key '{found[1]}'.{_known_keys(found[1], kind)}"
    elif message.startswith("Invalid ") and (values := _literals(kind) or _tags(around)):
        message += f"; allowed: {', '.join(map(repr, values))}"
    place = shown(path)
    return KeyedError(f"{place}: {message}" if place else message, tuple(path))


def _part(name: str, index: str, document: Any, kind: Any, decode: Decode | None) -> str | int:
    """Return a part of a path; of a mapping msgspec does not say under which key the value is that it refuses."""
    if name or index.isdecimal():
        return name or int(index)
    value_kind = _kind_of(kind, "")
    for key, value in document.items() if isinstance(document, Mapping) else ():
        try:
            msgspec.convert(value, value_kind, dec_hook=decode)
        except msgspec.ValidationError:
            return str(key)
    return "*"


def _value(document: Any, part: str | int) -> Any:
    if isinstance(part, int):
        return document[part] if isinstance(document, (list, tuple)) and part < len(document) else None
    return document.get(part) if isinstance(document, Mapping) else None


def _kind_of(kind: Any, part: str | int) -> Any:
    """Return the type of a part of a type: of a struct's field, of a mapping's values or of a list's items."""
    for each in _alternatives(kind):
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            return get_type_hints(each).get(str(part), Any)
        arguments = [argument for argument in get_args(each) if argument is not Ellipsis]
        if arguments and get_origin(each) is not Literal:
            return arguments[-1]
    return Any


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) in (Union, UnionType):
        return tuple(each for each in get_args(kind) if each is not NoneType)
    return (kind,)


def _literals(kind: Any) -> tuple[Any, ...]:
    return next((get_args(each) for each in _alternatives(kind) if get_origin(each) is Literal), ())


def _tags(kind: Any) -> tuple[Any, ...]:
    """Return the tag values of a union's structs."""
    structs = [each for each in _alternatives(kind) if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    return tuple(tag for each in structs if (tag := each.__struct_config__.tag) is not None)


def _known_keys(name: str, kind: Any) -> str:
    for each in _alternatives(kind):
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            known = each.__struct_encode_fields__
            return did_you_mean(name, known) or f" Known: {', '.join(known)}."
    return ""
