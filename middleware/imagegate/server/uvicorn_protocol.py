"""uvicorn's HTTP protocol, which reports to the connection what its parser reads."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from imagegate.errors import RequestError
from imagegate.server.connection import Connection


class NotifyingProtocol(HttpToolsProtocol):
    """Adds nothing but calls of `Connection`: from callbacks that httptools documents, and from two of uvicorn's."""

    def __init__(self, connection: Connection, **options: Any) -> None:
        super().__init__(**options)
        self._connection = connection

    def on_message_begin(self) -> None:
        self._connection.begins()
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        self._connection.has_data()
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._connection.ends()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._connection.answered()

    def send_400_response(self, msg: str) -> None:
        self._connection.refuse(RequestError("The request is not valid HTTP/1.1.", code="invalid_http"), "invalid_http")
