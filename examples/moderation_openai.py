"""A Starlette application that asks OpenAI's moderation endpoint about prompts, and about the images made of them.

Where the endpoint cannot be asked, nothing is sent and nothing is delivered (`[moderation] on_failure` says otherwise).

Run:  OPENAI_API_KEY=... TOKENLAB_API_KEY=... uvicorn moderation_openai:app
"""

import base64
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette

from imagegate import ImageGateway, Principal
from imagegate.moderation import ModeratedImage, ModeratedImages, ModerationRequest, Refuse, Withhold

URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1") + "/moderations"
LARGEST = 20_000_000  # bytes that the endpoint takes of one image


class OpenAIModeration:
    """Asks about each prompt and each image. Previews of streams pass, because the image after them is asked about."""

    def __init__(self) -> None:
        headers = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
        self._client = httpx.AsyncClient(headers=headers, timeout=8)

    async def before(self, request: ModerationRequest, principal: Principal | None) -> Refuse | None:
        found = await self._ask([{"type": "text", "text": request.prompt}]) if request.prompt else ()
        return Refuse(f"The prompt was flagged: {', '.join(found)}.") if found else None

    async def after(self, images: ModeratedImages) -> Withhold | None:
        for image in images:
            if not image.is_partial and (found := await self._ask([await self._shown(image)])):
                return Withhold(f"The image was flagged: {', '.join(found)}.")
        return None

    async def _shown(self, image: ModeratedImage) -> dict[str, Any]:
        content = base64.b64encode(await image.read(LARGEST)).decode()
        media_type = image.facts.kind.media_type if image.facts else "image/png"
        return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{content}"}}

    async def _ask(self, content: list[dict[str, Any]]) -> list[str]:
        """Return the categories that are flagged. What it raises makes the gateway refuse."""
        reply = await self._client.post(URL, json={"model": "omni-moderation-latest", "input": content})
        result = reply.raise_for_status().json()["results"][0]
        return sorted(name for name, flagged in result["categories"].items() if flagged)

    async def aclose(self) -> None:
        await self._client.aclose()


moderation = OpenAIModeration()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    yield
    await moderation.aclose()


app = Starlette(lifespan=lifespan)
app.add_middleware(ImageGateway, moderation=moderation)
