"""A FastAPI service whose own authentication says who may ask for images, and for which.

The dependency that guards the service's routes is called for the gateway's requests too. Each user's tasks, idempotency
keys and images are their own; those of a plan that does not allow a model get an error that there is no such model.

Run:  TOKENLAB_API_KEY=... uvicorn fastapi_users:app
Then: any OpenAI SDK with base_url="http://127.0.0.1:8000/v1" and a user's token as api_key.
"""

from typing import Annotated, NamedTuple

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import OAuth2PasswordBearer
from starlette.types import Scope

from imagegate import ImageGateway, Limits, Principal


class User(NamedTuple):
    id: str
    name: str
    company: str
    plan: str


SESSIONS = {  # in a real service: a JWT that is verified, or a row of a session table
    "token-of-ada": User("u-17", "Ada", "analytical-engines", "studio"),
    "token-of-bob": User("u-18", "Bob", "builders", "free"),
}
PLANS = {"studio": ("*",), "free": ("nano-banana",)}
token_of = OAuth2PasswordBearer(tokenUrl="token")


async def current_user(token: Annotated[str, Depends(token_of)]) -> User:
    if token not in SESSIONS:
        raise HTTPException(401, "The token has expired.", headers={"WWW-Authenticate": "Bearer"})
    return SESSIONS[token]


async def principal_of(scope: Scope) -> Principal | None:
    """Who a request for images is from. What the dependencies raise, the client is answered in OpenAI's envelope."""
    user = await current_user(await token_of(Request(scope)) or "")
    return Principal(
        id=user.id,
        name=user.name,
        tenant=user.company,
        models=PLANS[user.plan],
        limits=Limits(images_per_day=50 if user.plan == "free" else None),
        metadata={"plan": user.plan},
    )


app = FastAPI()
app.add_middleware(ImageGateway, access=principal_of)


@app.get("/me")
async def me(user: Annotated[User, Depends(current_user)]) -> dict[str, str]:
    return {"name": user.name}
