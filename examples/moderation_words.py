"""A Starlette application that has a word list, and keeps telephone numbers from providers.

Run:  TOKENLAB_API_KEY=... uvicorn moderation_words:app
"""

import re

from starlette.applications import Starlette

from imagegate import ImageGateway, Principal
from imagegate.moderation import ModerationRequest, Refuse, Replace

WORDS = re.compile(r"\b(gore|gory|beheading)\b", re.IGNORECASE)
NUMBER = re.compile(r"\+?\d[\d ()-]{6,}\d")


class WordList:
    """Refuses what the list names, and replaces numbers; both are disclosed to the client."""

    async def before(self, request: ModerationRequest, principal: Principal | None) -> Refuse | Replace | None:
        if found := WORDS.search(request.prompt):
            return Refuse(f"The word {found[0]!r} may not be used here.")
        prompt = NUMBER.sub("[number]", request.prompt)
        return Replace(prompt) if prompt != request.prompt else None


app = Starlette()
app.add_middleware(ImageGateway, moderation=WordList())
