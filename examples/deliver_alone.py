"""Links for a service that makes its pictures itself: one middleware stores what the handler returns as base64.

The client gets links (or base64, where it asks for that) to pictures that went into the store while the handler's
reply was read. Any store will do: ``s3://bucket/prefix`` with a CDN in front of it is ``public_url="https://cdn..."``.

Run:  uvicorn deliver_alone:app
"""

import base64
import io
from typing import Any

from fastapi import FastAPI
from PIL import Image

from imagegate.layers import Deliver

app = FastAPI()
app.add_middleware(Deliver, store="file://./images", default="url")


@app.post("/v1/images/generations")
def generate(request: dict[str, Any]) -> dict[str, Any]:
    picture = io.BytesIO()
    Image.new("RGB", (512, 512), "crimson").save(picture, "PNG")  # call your model here
    return {"created": 1, "data": [{"b64_json": base64.b64encode(picture.getvalue()).decode()}]}
