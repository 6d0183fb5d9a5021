"""One layer in front of your own handler: any size a client asks for becomes one that gpt-image-1.5 makes.

The handler sees a request that is legal for the model; the client sees in Imagegate-Changes how its own was changed.

Run:  uvicorn fit_alone:app
"""

from typing import Any

from fastapi import FastAPI

from imagegate.layers import Fit

app = FastAPI()
app.add_middleware(Fit, adapter="openai")


@app.post("/v1/images/generations")
def generate(request: dict[str, Any]) -> dict[str, Any]:
    return {"received": request}  # call your model here
