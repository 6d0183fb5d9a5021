"""A FastAPI service that offers images beside its own routes.

Run:  TOKENLAB_API_KEY=... uvicorn fastapi_service:app
Then: POST /v1/images/generations, or any OpenAI SDK with base_url="http://127.0.0.1:8000/v1".
"""

from fastapi import FastAPI

from imagegate import ImageGateway

app = FastAPI()
app.add_middleware(ImageGateway)  # providers whose <NAME>_API_KEY is set; or config="imagegate.toml"


@app.get("/hello")
def hello() -> dict[str, str]:
    return {"hello": "world"}
