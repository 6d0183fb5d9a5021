"""Fit: a request rewritten into one that a contract accepts, and what had to change. Pure.

Nothing that is legal as it stands is touched. What has a twin is translated, what the model does not have is
dropped, what would change the meaning is refused with an error that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from imagegate.changes import Change
from imagegate.contract import Contract, Parameter
from imagegate.errors import RequestError, choice_error
from imagegate.exchange import ImageRequest
from imagegate.sizes import (
    Auto,
    Fitted,
    Pixels,
    Ratio,
    SizeRule,
    SizeSyntaxError,
    Tier,
    Wanted,
    parse_size,
    tier_of_area,
)

Policy = Literal["nearest", "strict", "pass"]

SIZE_FIELDS: Final = ("size", "aspect_ratio", "resolution", "metadata.resolution")
REFERENCE_FIELDS: Final = ("image_url", "image_urls", "reference_image_urls", "reference_images")
_TOLERANCE_SLACK: Final = 1e-9


def fit(
    request: ImageRequest, contract: Contract, *, policy: Policy = "nearest", tolerance: float = 0.5
) -> tuple[ImageRequest, tuple[Change, ...]]:
    """Rewrites `request` for `contract`.

    Args:
        policy: ``nearest`` takes the nearest legal value, ``strict`` refuses what would not mean the same,
            ``pass`` changes nothing.
        tolerance: how far a ratio may be moved before that is refused too; 0.5 is half as wide again.

    Raises:
        RequestError: naming the field and what is allowed.
    """
    if policy == "pass":
        return request, ()
    if request.operation not in contract.operations:
        raise RequestError(f"The model '{request.model}' has no {request.operation} at this provider.", param="model")
    work = _Fitting(request.fields, contract, strict=policy == "strict", tolerance=tolerance)
    work.rename()
    work.fit_references()
    work.fit_size()
    work.fit_parameters()
    if not work.changes:
        return request, ()
    return request.with_fields(work.fields), tuple(work.changes)


class _Fitting:
    """One request on its way through the rules of one contract."""

    def __init__(self, fields: Mapping[str, Any], contract: Contract, *, strict: bool, tolerance: float) -> None:
        self.fields = dict(fields)
        self.contract = contract
        self.strict = strict
        self.tolerance = tolerance
        self.changes: list[Change] = []

    # Names

    def rename(self) -> None:
        """Members that the model has under another name; its own name, where it was sent too, wins."""
        for name, own in self.contract.renames.items():
            if name in self.fields and own not in self.fields:
                self.changes.append(Change(name, "renamed", name, own))
                self.fields = {own if key == name else key: value for key, value in self.fields.items()}

    def drop(self, name: str) -> None:
        del self.fields[name]
        self.changes.append(Change(name, "dropped"))

    # Reference images

    @property
    def has_references(self) -> bool:
        rule = self.contract.references
        return bool(rule and any(self.fields.get(name) for name in rule.fields))

    def fit_references(self) -> None:
        rule = self.contract.references
        self._check_mask(rule.mask_field if rule else None)
        sent = [name for name in REFERENCE_FIELDS if name in self.fields]
        if not sent:
            return
        if rule is None:
            raise RequestError("This model takes no reference images.", param=sent[0], code="unsupported_parameter")
        urls = {name: _urls(name, self.fields[name]) for name in sent}
        if sum(len(listed) for listed in urls.values()) > rule.max:
            raise RequestError(f"This model takes at most {rule.max} reference images.", param=sent[0])
        for name in sent:
            if name not in rule.fields:
                target = rule.fields[0]
                self.fields[target] = [*_urls(target, self.fields.get(target, [])), *urls[name]]
                del self.fields[name]
                self.changes.append(Change(name, "renamed", name, target))
        if rule.operation and self.has_references and self.fields.get("operation") != rule.operation:
            if "operation" in self.fields:
                self.changes.append(Change("operation", "mapped", self.fields["operation"], rule.operation))
            else:
                self.changes.append(Change("operation", "added", to=rule.operation))
            self.fields["operation"] = rule.operation

    def _check_mask(self, mask_field: str | None) -> None:
        """A mask is never dropped: without it the whole picture would be made anew."""
        for name in ("mask", "mask_url"):
            if name in self.fields and name != mask_field:
                raise RequestError("This model takes no mask here.", param=name, code="unsupported_parameter")

    # Size

    def fit_size(self) -> None:
        sent = {name: value for name in SIZE_FIELDS if (value := self._nested(name)) is not None}
        if not sent:
            return
        rule = self.contract.size
        if rule is None:
            return
        wanted = wanted_size(sent)
        fitted = rule.fit(wanted, with_references=self.has_references)
        own = {name for name in SIZE_FIELDS if name in fitted.fields}
        if all(sent.get(name) == value for name, value in fitted.fields.items()) and own == set(sent):
            return
        self._check_distance(sent, rule, fitted)
        for name in sent:
            if name not in own:
                self._remove_nested(name)
        for name, value in fitted.fields.items():
            self._set_nested(name, value)
        self.changes += _size_changes(sent, fitted.fields)

    def _check_distance(self, sent: Mapping[str, str], rule: SizeRule, fitted: Fitted) -> None:
        name = next((name for name in ("aspect_ratio", "size") if name in sent), next(iter(sent)))
        nearest = " and ".join(f"{field} '{value}'" for field, value in fitted.fields.items())
        if fitted.off > self.tolerance + _TOLERANCE_SLACK:
            reason = "is too far from every shape that this model makes"
        elif self.strict and not fitted.exact:
            reason = "is not supported by this model"
        else:
            return
        raise RequestError(
            f"Invalid {name} '{sent[name]}': it {reason}. {rule.describe()}"
            + (f" The nearest is {nearest}." if nearest else ""),
            param=name,
            type="image_generation_user_error",
        )

    def _nested(self, path: str) -> Any:
        """The member, if it says something about the size: only strings do."""
        name, _, inner = path.partition(".")
        value = self.fields.get(name)
        if inner:
            value = value.get(inner) if isinstance(value, Mapping) else None
        return value if isinstance(value, str) else None

    def _set_nested(self, path: str, value: str) -> None:
        name, _, inner = path.partition(".")
        self.fields[name] = {**self.fields.get(name, {}), inner: value} if inner else value

    def _remove_nested(self, path: str) -> None:
        name, _, inner = path.partition(".")
        if inner:
            rest = {key: value for key, value in self.fields[name].items() if key != inner}
            if rest:
                self.fields[name] = rest
                return
        del self.fields[name]

    # Everything else

    def fit_parameters(self) -> None:
        keep = {"model", *SIZE_FIELDS}
        if rule := self.contract.references:
            keep |= {*rule.fields, rule.mask_field or ""}
        deferred: list[str] = []
        for name in list(self.fields):
            if name in keep:
                continue
            parameter = self.contract.parameters.get(name)
            if parameter is None:
                self._unknown(name)
            elif parameter.only_with:
                deferred.append(name)
            else:
                self._fit_value(name, parameter)
        for name in deferred:
            parameter = self.contract.parameters[name]
            accompanied = all(self.fields.get(other) in values for other, values in parameter.only_with.items())
            if accompanied or (parameter.neutral is not None and self.fields[name] == parameter.neutral):
                self._fit_value(name, parameter)
            else:
                self.drop(name)
        self._check_transparency()

    def _unknown(self, name: str) -> None:
        if name == "background" and self.fields[name] == "transparent":
            raise RequestError("This model cannot make transparent backgrounds.", param="background")
        if self.strict and name != "response_format":
            raise RequestError(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
        if self.contract.unknown == "drop":
            self.drop(name)

    def _fit_value(self, name: str, parameter: Parameter) -> None:
        value = self.fields[name]
        parameter.check_type(name, value)
        if isinstance(value, str) and value not in parameter.values:
            if value in parameter.omit:
                self.drop(name)
                return
            twin = parameter.translate.get(value)
            if twin is None and value in parameter.nearest:
                if self.strict:
                    raise choice_error(name, value, parameter.values)
                twin = parameter.nearest[value]
            if twin is not None:
                self.fields[name] = twin
                self.changes.append(Change(name, "mapped", value, twin))
        parameter.check(name, self.fields[name])

    def _check_transparency(self) -> None:
        if self.fields.get("background") == "transparent" and self.fields.get("output_format") == "jpeg":
            raise RequestError(
                "A transparent background needs output_format 'png' or 'webp': JPEG has no transparency.",
                param="background",
            )


def wanted_size(sent: Mapping[str, str]) -> Wanted:
    """What the size fields say together: an explicit ratio or tier beats ``size``.

    Raises:
        RequestError: naming the field that cannot be read.
    """
    parsed = {name: _parse(name, value) for name, value in sent.items()}
    size = parsed.get("size")
    shape = parsed.get("aspect_ratio", size)
    tier = parsed.get("resolution", parsed.get("metadata.resolution"))
    if isinstance(tier, (Pixels, Ratio)):  # some dialects call WIDTHxHEIGHT the resolution
        shape, tier = (tier if shape is None else shape), None
    if isinstance(shape, Tier):
        shape, tier = None, tier or shape
    if isinstance(tier, Auto):
        tier = None
    if shape is None or isinstance(shape, Auto):
        return Wanted(tier=tier, auto=isinstance(shape, Auto) or tier is None)
    ratio = Ratio(*shape)
    if isinstance(shape, Pixels) and tier is None and "aspect_ratio" not in parsed:
        return Wanted(ratio=ratio, pixels=shape)
    if tier is None and isinstance(size, Pixels):
        tier = tier_of_area(size.area)
    return Wanted(ratio=ratio, tier=tier)


def _parse(name: str, value: str) -> Pixels | Ratio | Tier | Auto:
    try:
        return parse_size(value)
    except SizeSyntaxError as error:
        shown = value if len(value) <= 64 else value[:61] + "..."
        raise RequestError(
            f"Invalid {name} '{shown}'. {error}", param=name, type="image_generation_user_error"
        ) from None


def _size_changes(sent: Mapping[str, str], fitted: Mapping[str, str]) -> list[Change]:
    """One change for the field that asked for the shape, and one for each other that fell away."""
    new = {name: value for name, value in fitted.items() if sent.get(name) != value}
    asked = [name for name in sent if sent[name] != fitted.get(name)]
    if not asked:
        return [Change(name, "added", to=value) for name, value in new.items()]
    if not new:
        return [Change(name, "dropped") for name in asked]
    lead = asked[0]
    same_field = list(new) == [lead]
    to = new[lead] if same_field else ",".join(f"{name}={value}" for name, value in new.items())
    rest = [name for name in asked[1:] if name not in new]
    return [Change(lead, "mapped", sent[lead], to), *(Change(name, "dropped") for name in rest)]


def _urls(name: str, value: Any) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(url, str) for url in listed):
        raise RequestError(f"'{name}' must be a URL or a list of URLs.", param=name, code="invalid_type")
    return listed
