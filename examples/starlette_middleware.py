"""A Starlette application with the gateway in front of it; lifespan needs no word.

Run:  TOKENLAB_API_KEY=... uvicorn starlette_middleware:app
"""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from imagegate import ImageGateway


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("Pictures are made under /v1.")


app = Starlette(routes=[Route("/", home)], middleware=[Middleware(ImageGateway)])
