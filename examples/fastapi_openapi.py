"""A FastAPI service whose /docs and /openapi.json have the gateway's endpoints too.

Run:  TOKENLAB_API_KEY=... uvicorn fastapi_openapi:app
Then: open http://127.0.0.1:8000/docs
"""

from fastapi import FastAPI

from imagegate import ImageGateway
from imagegate.openapi import merge

gateway = ImageGateway()
app = FastAPI(lifespan=gateway.lifespan)
merge(app, gateway, mount="/pictures")


@app.get("/hello")
def hello() -> dict[str, str]:
    return {"hello": "world"}


app.mount("/pictures", gateway)
