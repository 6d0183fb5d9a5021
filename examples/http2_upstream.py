"""A Starlette application whose requests to providers go over HTTP/2, through a transport of httpx.

Every `httpx.AsyncBaseTransport` fits; it belongs to the application, which closes it. Links of clients and providers
are fetched by the gateway's own guarded connections.

Run:  pip install "httpx[http2]";  TOKENLAB_API_KEY=... uvicorn http2_upstream:app
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.routing import Mount

from imagegate import ImageGateway

transport = httpx.AsyncHTTPTransport(http2=True)
gateway = ImageGateway(transport=transport)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    async with transport, gateway:
        yield


app = Starlette(routes=[Mount("/", gateway)], lifespan=lifespan)
