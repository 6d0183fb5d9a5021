"""Fit: rewrites the request into what the candidate's contract accepts."""

from __future__ import annotations

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.contracts.contract import Contracts, find_contract
from imagegate.contracts.documents import load_contracts
from imagegate.contracts.reference_rule import ReferenceRule
from imagegate.fitting.fit import Policy, fit
from imagegate.layers.base import ExchangeLayer, Work
from imagegate.protocol.messages import Exchange, ImageRequest, Link
from imagegate.registry import load_adapter
from imagegate.telemetry.progress import PROGRESS_KEY, Progress
from imagegate.upstream.dispatch_hooks import TASK


class Fit(ExchangeLayer):
    """Applies the contract of the candidate that Route chose; alone, that of the model in the request.

    Args:
        adapter: name of the adapter whose contracts apply where there is no Route above.
        contracts: the contracts themselves, instead of `adapter`.
        policy: ``nearest``, ``strict`` or ``pass``.
        tolerance: maximum relative change of an aspect ratio; 0.5 is 50 % wider.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        prefix: str = "/v1",
        adapter: str | None = None,
        contracts: Contracts | None = None,
        policy: Policy = "nearest",
        tolerance: float = 0.5,
    ) -> None:
        super().__init__(app, prefix=prefix)
        if contracts is None and adapter is not None:
            contracts = load_contracts(load_adapter(adapter).contracts())
        self._contracts = contracts or {}
        self._policy: Policy = policy
        self._tolerance = tolerance

    def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> Work:
        """Forward the fitted exchange. Raises `RequestError` where the request does not fit the contract."""
        progress: Progress = scope[PROGRESS_KEY]
        request = exchange.request
        contract = exchange.target.contract if exchange.target else find_contract(self._contracts, request.model)
        progress.contract = contract is not None
        progress.fit_changes = progress.reference_changes = ()
        own = contract.by_operation[request.operation] if contract is not None else None
        if TASK in scope and (own is None or "async" not in own.parameters):
            request = request.without("async")  # the gateway's own task does not need one of the provider's
        if contract is not None:
            request, progress.fit_changes = fit(request, contract, policy=self._policy, tolerance=self._tolerance)
            rule = own.references if own else None
            if rule is not None and self._policy == "pass":
                rule = _as_written(rule, request)
            exchange = msgspec.structs.replace(exchange, request=request, reference_rule=rule)
        elif request is not exchange.request:
            exchange = exchange.replace(request=request)
        return self.forward(scope, exchange, receive, send)


def _as_written(rule: ReferenceRule, request: ImageRequest) -> ReferenceRule:
    """Return the rule for a request of which nothing is to be changed: links stay links, where the model takes both."""
    has_links = any(isinstance(reference, Link) for reference in request.references)
    return msgspec.structs.replace(rule, forms=("objects",)) if has_links and "objects" in rule.forms else rule
