"""The Starlette app around a provider: routes, the key check, and refusals in the provider's dialect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from imagegate.demo.providers.common import ReceivedRequest, RefusedError
from imagegate.demo.providers.incoming import Incoming, Recorder, incoming_of

KEY_PREFIX: Final = "sk-demo-"
"""Every key that starts so, and only such a key, is right at every stand-in."""


def has_bearer_key(incoming: Incoming) -> bool:
    """Return whether the request carries a right key as most providers want it: `Authorization: Bearer`."""
    return incoming.key.startswith(KEY_PREFIX)


def is_open(incoming: Incoming) -> bool:
    """Let every request in, as servers without keys do."""
    return True


Handler = Callable[[Incoming], Awaitable[Response]]
Endpoints = Mapping[tuple[str, str], Handler]
"""(method, path) -> handler."""


class Dialect(Protocol):
    """How one provider speaks where all of them have something to say."""

    request_id_header: str
    """Name of the reply header that carries the provider's own request id."""

    def envelope(self, refusal: RefusedError, request_id: str) -> Mapping[str, object] | str:
        """Return the body of an error reply: JSON, or plain text."""
        ...

    def wrong_key(self, key: str) -> RefusedError:
        """Return the answer to a wrong key, or to none (empty)."""
        ...

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """Return the answer to a path that does not exist (404) or a method that it does not take (405)."""
        ...


def build_app(
    dialect: Dialect,
    endpoints: Endpoints,
    *,
    open_routes: Sequence[BaseRoute] = (),
    edge: Callable[[Incoming], None] | None = None,
    is_authorized: Callable[[Incoming], bool] = has_bearer_key,
) -> Starlette:
    """Return an app with `endpoints` behind the key check and `open_routes` (pictures) before it.

    `edge` refuses what the provider turns away before it looks at the key, and `is_authorized` is that look, for
    providers with a header of their own or with no keys. `app.state.received` lists the requests that arrived, the
    newest last; `app.state.requests_seen` counts all of them.
    """

    def guarded(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            incoming = incoming_of(request)
            try:
                if edge is not None:
                    edge(incoming)
                if not is_authorized(incoming):
                    raise dialect.wrong_key(incoming.key)
                response = await handler(incoming)
            except RefusedError as refusal:
                response = refused(incoming, refusal)
            response.headers.setdefault(dialect.request_id_header, incoming.request_id)
            return response

        return endpoint

    def refused(incoming: Incoming, refusal: RefusedError) -> Response:
        body = dialect.envelope(refusal, incoming.request_id)
        return PlainTextResponse(body, refusal.status) if isinstance(body, str) else JSONResponse(body, refusal.status)

    async def no_route(request: Request, error: Exception) -> Response:
        incoming = incoming_of(request)
        status = error.status_code if isinstance(error, HTTPException) else 404
        response = refused(incoming, dialect.no_route(incoming, status))
        response.headers[dialect.request_id_header] = incoming.request_id
        return response

    received: list[ReceivedRequest] = []
    app = Starlette(exception_handlers={404: no_route, 405: no_route})
    app.router.routes.extend(open_routes)
    for (method, path), handler in endpoints.items():
        app.router.routes.append(Route(path, guarded(handler), methods=[method]))
    # A provider that documents one spelling of a path answers 404 to the other, it does not redirect.
    app.router.redirect_slashes = False
    app.state.received = received
    app.state.requests_seen = 0
    app.add_middleware(Recorder, state=app.state)
    return app
