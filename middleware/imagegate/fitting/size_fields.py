"""The members of a request that say its size: read together, compared with what a model makes, and set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from imagegate.contracts.changes import Change
from imagegate.contracts.size_syntax import Auto, Pixels, Ratio, SizeSyntaxError, Tier, parse_size
from imagegate.contracts.sizes import PUBLISHED_RATIO_ERROR, Fitted, SizeRule, Wanted, tier_of_area
from imagegate.errors import RequestError, type_error

_TOLERANCE_SLACK: Final = 1e-9
_MOST_DIGITS: Final = 6
"""Of a width or a height."""


def wanted_size(sent: Mapping[str, str]) -> Wanted:
    """Return what the size fields say together: a ratio or tier beats ``size``, which says what they leave open.

    Raises:
        RequestError: naming the field that cannot be read.
    """
    parsed = {name: _parse(name, value) for name, value in sent.items()}
    size = parsed.get("size")
    tier = parsed.get("resolution", parsed.get("metadata.resolution"))
    if isinstance(tier, (Pixels, Ratio)):  # some dialects call WIDTHxHEIGHT the resolution
        size, tier = tier, None
    shape = parsed.get("aspect_ratio", size)
    if isinstance(size, Tier):
        tier = size if tier is None or isinstance(tier, Auto) else tier
    if isinstance(tier, Auto):
        tier = None
    if isinstance(shape, Tier):
        shape, tier = None, tier or shape
    if shape is None or isinstance(shape, Auto):
        return Wanted(tier=tier, auto=isinstance(shape, Auto) or tier is None)
    if isinstance(shape, Pixels) and tier is None and "aspect_ratio" not in parsed:
        return Wanted(ratio=Ratio(*shape), pixels=shape)
    if tier is None and isinstance(size, Pixels):
        tier = tier_of_area(size.area)
    return Wanted(ratio=Ratio(*shape), tier=tier)


def _parse(name: str, value: str) -> Pixels | Ratio | Tier | Auto:
    try:
        return parse_size(value)
    except SizeSyntaxError as error:
        shown = value if len(value) <= 64 else value[:61] + "..."
        raise RequestError(
            f"Invalid {name} '{shown}'. {error}", param=name, type="image_generation_user_error"
        ) from None


def check_distance(sent: Mapping[str, str], rule: SizeRule, fitted: Fitted, *, strict: bool, tolerance: float) -> None:
    """Raise `RequestError` where the nearest size is not what was meant."""
    name = next((name for name in ("aspect_ratio", "size") if name in sent), next(iter(sent)))
    tier = next((name for name in ("resolution", "metadata.resolution") if name in sent), None)
    if tier and fitted.off <= PUBLISHED_RATIO_ERROR:
        name = tier  # the shape can be had
    nearest = " and ".join(f"{field} '{value}'" for field, value in fitted.fields.items())
    if fitted.off > tolerance + _TOLERANCE_SLACK:
        reason = "is too far from every shape that this model makes"
    elif strict and not fitted.exact:
        reason = "is not supported by this model"
    else:
        return
    raise RequestError(
        f"Invalid {name} '{sent[name]}': it {reason}. {rule.describe()}"
        + (f" The nearest is {nearest}." if nearest else ""),
        param=name,
        type="image_generation_user_error",
    )


def size_changes(sent: Mapping[str, str], fitted: Mapping[str, str]) -> list[Change]:
    """One item for each field that was sent and did not stay; the first one has the new value."""
    created = {name: value for name, value in fitted.items() if name not in sent}
    asked = [name for name in sent if sent[name] != fitted.get(name)]
    changes: list[Change] = []
    for place, name in enumerate(asked):
        became = {name: fitted[name]} if name in fitted else {}
        if place == 0:
            became |= created
        if not became:
            changes.append(Change(name, "dropped"))
            continue
        alone = list(became) == [name]
        to = became[name] if alone else ",".join(f"{field}={value}" for field, value in became.items())
        changes.append(Change(name, "mapped", sent[name], to))
    if not asked:
        changes += [Change(name, "added", to=value) for name, value in created.items()]
    return changes


def nested(fields: Mapping[str, Any], path: str) -> Any:
    """Return the member, if it says something about the size: only strings do."""
    value = _member(fields, path)
    return value if isinstance(value, str) else None


def _member(fields: Mapping[str, Any], path: str) -> Any:
    name, _, inner = path.partition(".")
    value = fields.get(name)
    if inner:
        value = value.get(inner) if isinstance(value, Mapping) else None
    return value


def join_edges(fields: dict[str, Any], edges: Sequence[str], words: Mapping[str, str]) -> bool:
    """Replace width and height, or a word in their place, by the size that they are; return whether they were there.

    Args:
        edges: paths of the two members.
        words: what the member around them may say instead -> the size.
    """
    around = edges[0].partition(".")[0]
    word = fields.get(around)
    if isinstance(word, str) and word in words:
        del fields[around]
        fields["size"] = words[word]
        return True
    sent = [_edge(fields, path) for path in edges]
    if None in sent:
        return False
    for path in edges:
        remove_nested(fields, path)
    fields["size"] = "x".join(map(str, sent))
    return True


def _edge(fields: Mapping[str, Any], path: str) -> int | None:
    """Return a width or a height, which a form has as text; None: there is none."""
    value = _member(fields, path)
    if isinstance(value, str) and len(value) <= _MOST_DIGITS and value.isascii() and value.isdecimal():
        value = int(value)
    return value if type(value) is int and value > 0 else None


def set_nested(fields: dict[str, Any], path: str, value: str) -> None:
    """Give a member, which may lie in another one, its value."""
    name, _, inner = path.partition(".")
    if inner:
        node = fields.get(name, {})
        if not isinstance(node, Mapping):
            raise type_error(name, "an object", node)
        fields[name] = {**node, inner: value}
    else:
        fields[name] = value


def remove_nested(fields: dict[str, Any], path: str) -> None:
    """Remove a member; one that it lay in goes too once it is empty."""
    name, _, inner = path.partition(".")
    if inner:
        rest = {key: value for key, value in fields[name].items() if key != inner}
        if rest:
            fields[name] = rest
            return
    del fields[name]
