"""Fit: a request rewritten into one that a contract accepts, and what had to change. Pure.

Nothing that is legal as sent is touched. What has a twin is translated, what the model does not have is
dropped, what would change the meaning is refused with an error that names the field.
"""

from __future__ import annotations

from collections.abc import Callable
from random import randint
from typing import Any, Final, Literal

import msgspec

from imagegate.contracts.changes import Change
from imagegate.contracts.contract import SIZE_FIELDS, Contract
from imagegate.contracts.parameter import Parameter
from imagegate.contracts.reference_rule import ReferenceRule
from imagegate.errors import RequestError, choice_error, type_error
from imagegate.fitting.reference_rules import added_size, check_stray_reference, check_uploads, links_in, part_of
from imagegate.fitting.size_fields import (
    check_distance,
    join_edges,
    nested,
    remove_nested,
    set_nested,
    size_changes,
    wanted_size,
)
from imagegate.protocol.messages import ImageRequest
from imagegate.protocol.references import LIST_MEMBERS, MASK_MEMBERS
from imagegate.protocol.requests import from_text

Policy = Literal["nearest", "strict", "pass"]
VARIATION_PROMPT: Final = "Make a variation of this image: the same subject and style, with differences in detail."
_SIZES_KEPT: Final = 1024
_LARGEST_SEED: Final = 2**31 - 1
_REFERENCES: Final = frozenset((*LIST_MEMBERS, *MASK_MEMBERS))
_OTHER_SIZES: Final = frozenset(name.partition(".")[0] for name in SIZE_FIELDS) - {"size"}


def fit(
    request: ImageRequest,
    contract: Contract,
    *,
    policy: Policy = "nearest",
    tolerance: float = 0.5,
    random: Callable[[int, int], int] = randint,
) -> tuple[ImageRequest, tuple[Change, ...]]:
    """Rewrites `request` for `contract`.

    Args:
        policy: ``nearest`` takes the nearest legal value, ``strict`` refuses what would not mean the same,
            ``pass`` changes nothing.
        tolerance: how far a ratio may be moved before that is refused too; 0.5 is half as wide again.
        random: returns an integer between two, for parameters that say ``random``.

    Raises:
        RequestError: naming the field and what is allowed.
    """
    own = contract.by_operation[request.operation]
    if own is not None and (own.wire or own.body is not None):
        request = msgspec.structs.replace(request, wire=own.wire, body_rule=own.body)
    if policy == "pass":
        return request, ()
    if own is None:
        raise RequestError(
            f"The model '{request.model}' has no {request.operation} at this provider.",
            param="model",
            code="unsupported_operation",
        )
    work = _Fitting(request, own, strict=policy == "strict", tolerance=tolerance)
    if request.operation == "variations" and contract.variations is None:
        work.vary_by_edit()
    work.rename()
    work.join_edges()
    work.fit_references()
    try:
        work.fit_size()
        work.fit_parameters()
    except RequestError as error:
        if error.param not in work.named_by_client:
            raise
        raise _as_named(error, work.named_by_client[error.param]) from None
    work.check_group()
    work.add_defaults(random)
    fitted = work.request()
    return (request if fitted is request or fitted == request else fitted), tuple(work.changes)


class _Fitting:
    """One request on its way through the rules of one contract."""

    def __init__(self, request: ImageRequest, contract: Contract, *, strict: bool, tolerance: float) -> None:
        self._request = request
        self._operation = contract.endpoint or request.operation
        self.fields = dict(request.fields)
        self.contract = contract
        self.strict = strict
        self.tolerance = tolerance
        self.changes: list[Change] = []
        self.named_by_client: dict[str, str] = {}
        """The model's own name of a member -> the client's."""
        self._has_joined = False

    def request(self) -> ImageRequest:
        """Return the request as it has become."""
        unchanged = not self.changes and not self._request.from_form and not self._has_joined
        fitted = self._request if unchanged else self._request.with_fields(self.fields)
        if fitted.operation != self._operation:
            fitted = msgspec.structs.replace(fitted, operation=self._operation)
        return fitted

    def vary_by_edit(self) -> None:
        """Turn variations, where the provider has none, into edits that ask for one."""
        self._operation = self.contract.endpoint or "edits"
        self.changes.append(Change("endpoint", "mapped", "variations", self._operation))
        if "prompt" not in self.fields:
            self.fields["prompt"] = VARIATION_PROMPT
            self.changes.append(Change("prompt", "added", to=VARIATION_PROMPT))

    # Names

    def rename(self) -> None:
        """Members that the model has under another name; its own name, where it was sent too, wins.

        But `safety_identifier` wins over `user`, as at OpenAI.
        """
        if self.contract.renames.keys().isdisjoint(self.fields):
            return
        for name, own in self.contract.renames.items():
            if name == "safety_identifier" and self.fields.get(name) and own in self.fields:
                self.drop(own)
            if name in self.fields and own not in self.fields:
                self.changes.append(Change(name, "renamed", name, own))
                self.fields = {own if key == name else key: value for key, value in self.fields.items()}
                self.named_by_client[own] = name

    def join_edges(self) -> None:
        """Width and height in the model's own members are a size like any other."""
        body = self.contract.body
        if body is None or not body.edges or "size" in self.fields:
            return
        if self.contract.parameters.keys().isdisjoint(body.edges):
            self._has_joined = join_edges(self.fields, body.edges, body.size_words)
            if self._has_joined:
                self.named_by_client["size"] = body.edges[0].partition(".")[0]

    def drop(self, name: str) -> None:
        del self.fields[name]
        if (clients := self.named_by_client.pop(name, None)) is not None:
            self.changes.remove(Change(clients, "renamed", clients, name))
        self.changes.append(Change(clients or name, "dropped"))

    # Reference images

    @property
    def has_references(self) -> bool:
        rule = self.contract.references
        own = self._request.images or self._request.live
        return bool(own or (rule and any(self.fields.get(name) for name in rule.fields)))

    def fit_references(self) -> None:
        if not self._request.references and not self._request.live and _REFERENCES.isdisjoint(self.fields):
            return
        rule = self.contract.references
        self._check_mask(rule)
        sent = [name for name in LIST_MEMBERS if name in self.fields]
        if not sent and not self._request.images and not self._request.live:
            return
        first = sent[0] if sent else part_of(self._request.images)
        if rule is None:
            raise RequestError("This model takes no reference images.", param=first, code="unsupported_parameter")
        links = {name: links_in(name, self.fields[name]) for name in sent}
        if sum(len(listed) for listed in links.values()) + len(self._request.images) > rule.max:
            raise RequestError(f"This model takes at most {rule.max} reference images.", param=first)
        for name in sent:
            if name not in rule.fields:
                self._move_links(name, links[name], rule)
        self.changes += check_uploads(self._request, rule)
        if size := added_size(self._request, self.contract, rule):
            asked = self.fields.get("size")
            self.changes.append(Change("size", "added" if asked is None else "mapped", asked, size))
            self.fields["size"] = size
        self._name_operation(rule)

    def _move_links(self, name: str, links: list[str], rule: ReferenceRule) -> None:
        """Links in a member that the model does not have go to the one that it has."""
        if not rule.fields:
            raise RequestError("This model takes no links to images here.", param=name, code="unsupported_parameter")
        target = rule.fields[0]
        self.fields[target] = [*links_in(target, self.fields.get(target, [])), *links]
        del self.fields[name]
        self.changes.append(Change(name, "renamed", name, target))

    def _name_operation(self, rule: ReferenceRule) -> None:
        if rule.operation is None or not self.has_references or self.fields.get("operation") == rule.operation:
            return
        if "operation" in self.fields:
            self.changes.append(Change("operation", "mapped", self.fields["operation"], rule.operation))
        else:
            self.changes.append(Change("operation", "added", to=rule.operation))
        self.fields["operation"] = rule.operation

    def _check_mask(self, rule: ReferenceRule | None) -> None:
        """Refuse a mask that cannot be sent: without it the whole picture would be made anew."""
        own = rule.mask_field if rule else None
        name = next((name for name in MASK_MEMBERS if name in self.fields and name != own), None)
        if own in self.fields and not isinstance(self.fields[own], str):
            raise type_error(own, "a string", self.fields[own])
        if name or (self._request.mask is not None and not (rule and rule.takes_mask)):
            raise RequestError("This model takes no mask here.", param=name or "mask", code="unsupported_parameter")
        if self._request.mask is not None and rule is not None:
            self._check_company(rule)
            self._leave_out_beside_mask(rule)
        if self._request.markup is None:
            return
        if rule is None or not rule.markup:
            raise RequestError("This model takes no markup here.", param="markup", code="unsupported_parameter")
        if self._request.mask is not None:
            raise RequestError("A request has a mask or a markup, not both.", param="markup")

    def _check_company(self, rule: ReferenceRule) -> None:
        for name, values in rule.mask_not_with.items():
            if self.fields.get(name) in values:
                raise RequestError(f"With {name} '{self.fields[name]}' this model takes no mask.", param="mask")

    def _leave_out_beside_mask(self, rule: ReferenceRule) -> None:
        for name in rule.mask_without:
            if name in self.fields:
                if self.strict and name != "response_format":
                    raise RequestError(f"With a mask this model takes no '{name}'.", param=name)
                self.drop(name)

    # Size

    def fit_size(self) -> None:
        known, size = self.contract.legal_sizes, self.fields.get("size")
        if "size" in self.named_by_client and not isinstance(size, str):
            raise type_error("size", "a string", size)
        is_alone = isinstance(size, str) and _OTHER_SIZES.isdisjoint(self.fields)
        if is_alone and (size, self.has_references) in known:
            return
        sent = {name: value for name in SIZE_FIELDS if (value := nested(self.fields, name)) is not None}
        if not sent:
            return
        rule = self.contract.size
        if rule is None:
            return
        wanted = wanted_size(sent)
        fitted = rule.fit(wanted, with_references=self.has_references)
        own = {name for name in SIZE_FIELDS if name in fitted.fields}
        if all(sent.get(name) == value for name, value in fitted.fields.items()) and own == set(sent):
            if is_alone and len(known) < _SIZES_KEPT:
                known.add((sent["size"], self.has_references))
            return
        check_distance(sent, rule, fitted, strict=self.strict, tolerance=self.tolerance)
        for name in sent:
            if name not in own:
                remove_nested(self.fields, name)
        for name, value in fitted.fields.items():
            set_nested(self.fields, name, value)
        self.changes += size_changes(sent, fitted.fields)

    # Everything else

    def fit_parameters(self) -> None:
        keep, parameters = self.contract.members_of_rules, self.contract.parameters
        free_texts, choices = self.contract.free_texts, self.contract.choices
        deferred: list[str] = []
        if self.fields.get("stream") is True:
            self._fit_stream()
        for name, value in list(self.fields.items()):
            if name in keep:
                continue
            if isinstance(value, str) and (len(value) <= free_texts.get(name, -1) or value in choices.get(name, ())):
                continue
            parameter = parameters.get(name)
            if parameter is None:
                self._unknown(name)
            elif parameter.only_with or parameter.not_with:
                deferred.append(name)
            else:
                self._fit_value(name, parameter)
        for name in deferred:
            parameter = parameters[name]
            accompanied = all(self.fields.get(other) in values for other, values in parameter.only_with.items())
            accompanied &= all(self.fields.get(other) not in values for other, values in parameter.not_with.items())
            if accompanied or (parameter.neutral is not None and self.fields[name] == parameter.neutral):
                self._fit_value(name, parameter)
            else:
                self.drop(name)
        if self.fields.get("background") == "transparent":
            self._check_transparency()

    def check_group(self) -> None:
        """Raise `RequestError` where a group of pictures is larger than the model makes."""
        group = self.contract.group
        if group is None or not group.is_asked(self.fields) or (asked := group.asked(self.fields)) is None:
            return
        references = len(self._request.images) if group.with_references else 0
        Parameter(type="integer", min=1, max=max(group.most - references, 1)).check(group.member, asked)

    def add_defaults(self, random: Callable[[int, int], int]) -> None:
        """Add what the client left out and the provider would choose otherwise than clients expect."""
        rule = self.contract.references
        left_out = rule.mask_without if rule is not None and self._request.mask is not None else ()
        for name in self.contract.supplied:
            parameter = self.contract.parameters[name]
            if name in self.fields or name in left_out:
                continue
            value = parameter.default
            if parameter.random:
                value = random(int(parameter.min or 0), int(parameter.max or _LARGEST_SEED))
            self.fields[name] = value
            self._note_added(name, "random" if parameter.random else value)

    def _note_added(self, name: str, value: Any) -> None:
        """One item for each member: what was dropped before has become the default."""
        clients = self.named_by_client.get(name, name)
        if (dropped := Change(clients, "dropped")) not in self.changes:
            self.changes.append(Change(name, "added", to=value))
            return
        self.changes[self.changes.index(dropped)] = Change(clients, "mapped", self._request.fields.get(clients), value)

    def _fit_stream(self) -> None:
        """Leave the stream to the gateway where the model has none; what belongs to the model's own goes, too."""
        if not self.contract.streams:
            self.drop("stream")
            if "partial_images" in self.contract.parameters and "partial_images" in self.fields:
                self.drop("partial_images")

    def _unknown(self, name: str) -> None:
        if name == "background" and self.fields[name] == "transparent" and self.contract.unknown == "drop":
            raise RequestError("This model cannot make transparent backgrounds.", param="background")
        if self.contract.unknown == "drop":
            check_stray_reference(name, self.fields[name])
        if self.strict and name != "response_format":
            raise RequestError(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
        if self.contract.unknown == "drop":
            self.drop(name)

    def _fit_value(self, name: str, parameter: Parameter) -> None:
        value = self.fields[name]
        if self._request.from_form and isinstance(value, str):
            value = self.fields[name] = from_text(name, value, parameter)
        if not isinstance(value, str):
            parameter.check_type(name, value)
        elif value not in parameter.values:
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
        if parameter.replace:
            self._replace_texts(name, parameter)
        parameter.check(name, self.fields[name])

    def _replace_texts(self, name: str, parameter: Parameter) -> None:
        """Replace texts; only these are disclosed, not the value around them."""
        for text, instead in parameter.replace.items():
            value = self.fields[name]
            if not isinstance(value, str) or text not in value:
                continue
            if self.strict:
                raise RequestError(f"Invalid '{name}': it must not contain '{text}'.", param=name)
            self.fields[name] = value.replace(text, instead)
            self.changes.append(Change(name, "mapped", text, instead))

    def _check_transparency(self) -> None:
        if self.fields.get("output_format") == "jpeg":
            raise RequestError(
                "A transparent background needs output_format 'png' or 'webp': JPEG has no transparency.",
                param="background",
            )


def _as_named(error: RequestError, name: str) -> RequestError:
    """Return the same error about the member as the client called it."""
    message = error.message.replace(f"'{error.param}'", f"'{name}'")
    return RequestError(message, param=name, code=error.code, type=error.type)
