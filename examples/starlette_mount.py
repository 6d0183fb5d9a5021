"""A Starlette application with the gateway under a path of its own: /pictures/v1/images/generations.

A mounted application sees no lifespan of its own, so the parent runs the gateway's.

Run:  TOKENLAB_API_KEY=... uvicorn starlette_mount:app
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from imagegate import ImageGateway


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("Pictures are made under /pictures/v1.")


gateway = ImageGateway()
app = Starlette(routes=[Route("/", home), Mount("/pictures", gateway)], lifespan=gateway.lifespan)
