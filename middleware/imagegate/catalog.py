"""Which upstream answers for which model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from imagegate.contract import Contract, Contracts
from imagegate.errors import ModelNotFound
from imagegate.exchange import ImageRequest, Target


def find_contract(contracts: Contracts, model: str) -> Contract | None:
    """The contract of `model`: under its exact name, else under the longest pattern (``gemini-*``) that matches."""
    if exact := contracts.get(model):
        return exact
    patterns = [name for name in contracts if "*" in name and fnmatchcase(model, name)]
    return contracts[max(patterns, key=len)] if patterns else None


class Catalog:
    """Routes and contracts of all upstreams, in the order of the configuration.

    Args:
        upstreams: name -> contracts.
        routes: public model -> ``upstream/model``, in order of preference.
    """

    def __init__(self, upstreams: Mapping[str, Contracts], routes: Mapping[str, Sequence[str]]) -> None:
        self._upstreams = upstreams
        self._routes = {
            model: tuple(self._target(*address.split("/", 1)) for address in addresses)
            for model, addresses in routes.items()
        }

    def resolve(self, model: str) -> Sequence[Target]:
        """The candidates for a model as a client names it, best first.

        Raises:
            ModelNotFound: with the nearest names that exist.
        """
        if route := self._routes.get(model):
            return route
        upstream, slash, rest = model.partition("/")
        if slash and rest and upstream in self._upstreams:
            return (self._target(upstream, rest),)
        for name, contracts in self._upstreams.items():
            if "*" not in model and find_contract(contracts, model):
                return (self._target(name, model),)
        raise ModelNotFound(self._not_found(model), param="model")

    def may_stream(self, request: ImageRequest) -> bool:
        """Whether files may go upstream while they come in: one candidate, which takes them as they are."""
        try:
            candidates = self.resolve(request.model)
        except ModelNotFound:
            return False
        contract = candidates[0].contract
        own = contract.of(request.operation) if contract else None
        rule = own.references if own else None
        if len(candidates) > 1 or contract is None or own is None or rule is None:
            return False
        bridged = own.endpoint is not None or (request.operation == "variations" and contract.variations is None)
        simple = "files" in rule.forms and not rule.same_size and rule.mask_polarity == "alpha"
        return simple and not bridged and request.n <= own.max_images

    def models(self) -> Iterator[tuple[str, Sequence[Target]]]:
        """Every model that has a name of its own, and who answers for it: routes first, then by upstream."""
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
        return Target(upstream=upstream, model=model, contract=find_contract(self._upstreams[upstream], model))

    def _not_found(self, model: str) -> str:
        shown = model if len(model) <= 64 else model[:61] + "..."
        names = [name for name, _ in self.models()]
        near = get_close_matches(model[:128], names, n=3, cutoff=0.5)
        near += [name for name in names if name.endswith(f"/{model}") and name not in near]
        hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
        return f"The model '{shown}' does not exist.{hint} GET /v1/models lists what does."
