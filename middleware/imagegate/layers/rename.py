"""Rename: a count of images under another provider's name becomes ``n``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.contracts.changes import Change
from imagegate.contracts.parameter import Parameter
from imagegate.errors import ImagegateError
from imagegate.layers.base import Concern, ExchangeLayer
from imagegate.protocol.image_count import COUNT_MEMBERS
from imagegate.protocol.messages import Exchange, ImageRequest
from imagegate.protocol.requests import PARAMETERS, from_text
from imagegate.telemetry.progress import PROGRESS_KEY, Progress

_N: Final[Parameter] = PARAMETERS["n"]


class Rename(ExchangeLayer):
    """Makes ``num_images`` and its like ``n``, so that all layers below know how many images are asked for.

    It is disclosed, as in ``num_images;renamed="n"``, and errors about ``n`` name the client's member.

    Args:
        n_member: returns the member of a request that means ``n``; empty: none does.
    """

    concern = Concern(members=COUNT_MEMBERS)

    def __init__(self, app: ASGIApp, *, n_member: Callable[[ImageRequest], str], prefix: str = "/v1") -> None:
        super().__init__(app, prefix=prefix)
        self._n_member = n_member

    async def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
        """Forward the request with ``n``. Raises `RequestError` where its count is none."""
        request = exchange.request
        if name := self._n_member(request):
            value = request.fields[name]
            if request.from_form and isinstance(value, str):
                value = from_text(name, value, _N)
            _N.check(name, value)
            fields = {"n" if key == name else key: said for key, said in request.fields.items()}
            exchange = exchange.replace(request=request.with_fields({**fields, "n": value}))
            progress: Progress = scope[PROGRESS_KEY]
            progress.images_asked = exchange.request.n
            progress.rename_changes = (Change(name, "renamed", name, "n"),)
        try:
            await self.forward(scope, exchange, receive, send)
        except ImagegateError as error:
            if name and error.param == "n":
                error.message, error.param = error.message.replace("'n'", f"'{name}'"), name
            raise
