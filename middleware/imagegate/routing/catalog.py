"""Maps public model names to upstreams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from math import log
from typing import Final

from imagegate.access.permissions import may_ask_for
from imagegate.access.principal import Principal
from imagegate.config.routes import Choice, address_of
from imagegate.contracts.contract import Contract, Contracts, find_contract
from imagegate.errors import ModelNotFound
from imagegate.protocol.image_count import COUNT_MEMBERS
from imagegate.protocol.messages import ImageRequest, Target
from imagegate.protocol.names import did_you_mean

ANY_MODEL: Final = "*"
"""Contract of the models that no other one of its upstream names. It claims no public name: a model
without an upstream's name means a listed one."""
_SETTLED_KEPT: Final = 1024
"""Maximum number of cached models; clients choose the names, so the cache is bounded."""
_LONGEST_KEPT: Final = 256
"""Maximum length of a cached name, in characters; a client may send a name as long as a body."""


class Catalog:
    """Routes and contracts of all upstreams, in the order of the configuration.

    Args:
        upstreams: name -> contracts.
        routes: public model -> ``upstream/model``, in order of preference. Adjacent `Choice`s form one weighted group:
            each comes first in its share of the requests, and the others follow it.
    """

    def __init__(self, upstreams: Mapping[str, Contracts], routes: Mapping[str, Sequence[str | Choice]]) -> None:
        self._upstreams = upstreams
        self._routes: dict[str, tuple[Target, ...]] = {}
        self._groups: dict[str, tuple[tuple[tuple[Target, float], ...], ...]] = {}
        for model, entries in routes.items():
            groups = [
                [(self._target(*address_of(entry).split("/", 1)), _weight(entry)) for entry in group]
                for group in _groups(entries)
            ]
            if any(len(group) > 1 for group in groups):
                self._groups[model] = tuple(tuple(group) for group in groups)
            self._routes[model] = tuple(target for group in groups for target, _ in group)
        self.settled: dict[str, Sequence[Target]] = {}
        """Candidates of models that were asked for, where they always come in the same order."""

    def resolve(self, model: str) -> Sequence[Target]:
        """Return the candidates for a public model, best first.

        Raises:
            ModelNotFound: with the closest existing names.
        """
        if (settled := self.settled.get(model)) is not None:
            return settled
        # Weighted groups come in the order of the configuration.
        targets = self._routes.get(model) or self._resolve(model)
        if model not in self._groups and len(model) <= _LONGEST_KEPT:
            if len(self.settled) >= _SETTLED_KEPT:
                del self.settled[next(iter(self.settled))]
            self.settled[model] = targets
        return targets

    def resolve_for(self, principal: Principal | None, model: str) -> Sequence[Target]:
        """Return the candidates for a public model that a principal may ask for.

        Raises:
            ModelNotFound: there is none, or it is not for this principal; both get the same answer.
        """
        if may_ask_for(principal, model):
            try:
                return self.resolve(model)
            except ModelNotFound:
                if principal is None or not principal.models:
                    raise
        raise ModelNotFound(self._not_found(model, principal), param="model")

    def _resolve(self, model: str) -> Sequence[Target]:
        """Raise `ModelNotFound`."""
        upstream, slash, rest = model.partition("/")
        if slash and rest and upstream in self._upstreams:
            return (self._target(upstream, rest),)
        for name, contracts in self._upstreams.items():
            found = None if "*" in model else find_contract(contracts, model)
            if found is not None and found is not contracts.get(ANY_MODEL):
                return (self._target(name, model),)
        raise ModelNotFound(self._not_found(model), param="model")

    def draw(self, model: str, random: Callable[[], float]) -> Sequence[Target]:
        """Return the candidates for one request, in the order in which it asks them. Raises `ModelNotFound`.

        Args:
            model: the public name.
            random: returns a number in [0, 1).
        """
        groups = self._groups.get(model)
        if groups is None:
            return self.resolve(model)
        return tuple(target for group in groups for target in weighted_order(group, random))

    def may_stream(self, request: ImageRequest) -> bool:
        """Return whether files may be streamed upstream: there is one candidate, and it takes them unchanged."""
        try:
            candidates = self.resolve(request.model)
        except ModelNotFound:
            return False
        contract = candidates[0].contract
        own = contract.by_operation[request.operation] if contract else None
        rule = own.references if own else None
        if len(candidates) > 1 or contract is None or own is None or rule is None:
            return False
        bridged = own.endpoint is not None or (request.operation == "variations" and contract.variations is None)
        reads_image = rule.same_size or rule.image_size or rule.mask_polarity != "alpha"
        simple = "files" in rule.forms and not reads_image and rule.live
        is_one = COUNT_MEMBERS.isdisjoint(request.fields) and request.n <= own.most_images(request.fields)
        return simple and not bridged and is_one

    def n_member(self, request: ImageRequest) -> str:
        """Return the member that means ``n`` to every candidate, under another provider's name; empty: there is none.

        A model that has a member of that name, or gets what nobody knows as it is, is not asked for it otherwise.
        """
        if "n" in request.fields:
            return ""
        try:
            candidates = self.resolve(request.model)
        except ModelNotFound:
            return ""
        names = {_n_member(target.contract, request) for target in candidates}
        return names.pop() if len(names) == 1 else ""

    def models_of(self, principal: Principal | None) -> Iterator[tuple[str, Sequence[Target]]]:
        """Yield those of `models` that a principal may ask for."""
        return ((name, targets) for name, targets in self.models() if may_ask_for(principal, name))

    def models(self) -> Iterator[tuple[str, Sequence[Target]]]:
        """Yield every named model with its candidates: routes first, then by upstream."""
        seen: set[str] = set()
        for model, targets in self._routes.items():
            seen.add(model)
            yield model, targets
        for contracts in self._upstreams.values():
            for model in contracts:
                if model not in seen and "*" not in model:
                    seen.add(model)
                    yield model, self.resolve(model)

    def _target(self, upstream: str, model: str) -> Target:
        """Return a model of an upstream, or what came after it where it is retired."""
        contracts = self._upstreams[upstream]
        contract = find_contract(contracts, model)
        for _ in contracts:
            if contract is None or contract.retired is None:
                break
            model = contract.retired.successor
            contract = find_contract(contracts, model)
        return Target(upstream=upstream, model=model, contract=contract)

    def _not_found(self, model: str, principal: Principal | None = None) -> str:
        shown = model if len(model) <= 64 else model[:61] + "..."
        names = [name for name, _ in self.models_of(principal)]
        hint = did_you_mean(
            model[:128], names, most=3, cutoff=0.5, also=[name for name in names if name.endswith(f"/{model}")]
        )
        return f"The model '{shown}' does not exist.{hint} GET /v1/models lists the available models."


def weighted_order(choices: Sequence[tuple[Target, float]], random: Callable[[], float]) -> Sequence[Target]:
    """Return all targets in a random order: the first drawn by its share, the next by the shares of the rest.

    Exponential times with the weights as rates (Efraimidis and Spirakis, 2006, in logarithms).
    """
    if len(choices) == 1:
        return (choices[0][0],)
    times = [(-log(1.0 - random()) / weight, place) for place, (_, weight) in enumerate(choices)]
    return tuple(choices[place][0] for _, place in sorted(times))


def _groups(entries: Sequence[str | Choice]) -> Iterator[list[str | Choice]]:
    """Yield adjacent choices as one group, and every address as a group of its own."""
    for _, group in groupby(enumerate(entries), lambda entry: -1 if isinstance(entry[1], Choice) else entry[0]):
        yield [entry for _, entry in group]


def _weight(entry: str | Choice) -> float:
    return entry.weight if isinstance(entry, Choice) else 1.0


def _n_member(contract: Contract | None, request: ImageRequest) -> str:
    own = contract.by_operation[request.operation] if contract is not None else None
    if own is None or own.unknown == "pass":
        return ""
    names = (name for name in request.fields if name in COUNT_MEMBERS and name not in own.parameters)
    return next(names, "")
