"""What the simulators of hosted JSON APIs share: members that are checked one by one, links to pictures, and tasks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.simulators.base import Simulator, TextDialect, decode_base64, is_picture, picture

from imagegate.demo.providers.common import RefusedError
from imagegate.demo.providers.frame import Endpoints, has_bearer_key
from imagegate.demo.providers.incoming import Incoming

BLOCKED_WORD: Final = "forbidden"
"""A prompt with this word is refused for its content."""
FAILING_WORD: Final = "unmakeable"
"""A prompt with this word is taken, and then no picture is made."""
ODD_WORD: Final = "peculiar"
"""The task of such a prompt is in a state that nobody documents before it is done."""
SHAKY_WORD: Final = "shaky"
"""The first questions about the task of such a prompt are answered by failures of the server."""
FORGOTTEN_WORD: Final = "forgotten"
"""The task of such a prompt is not known any more once it is asked for."""
LIMITED_WORD: Final = "crowded"
"""A prompt with this word is answered by 429."""
HIDDEN_WORD: Final = "hidden"
"""A prompt with this word is answered by an error in a 200."""

Check = type | tuple[Any, ...] | Callable[[Any], bool]
"""A JSON type, the only values, or a function that says whether a value is legal."""
Refuse = Callable[[str, str], RefusedError]
"""Returns the refusal of a member, by its name and a reason."""


def check_members(given: Any, known: Mapping[str, Check], refuse: Refuse, *, required: Sequence[str] = ()) -> None:
    """Refuse members that are missing, not known, of another type or with another value."""
    if not isinstance(given, dict):
        raise refuse("body", "must be a JSON object")
    for name in required:
        if given.get(name) in (None, "", []):
            raise refuse(name, "is required")
    for name, value in given.items():
        if name not in known:
            raise refuse(name, "is not a known parameter")
        if not _is_legal(value, known[name]):
            raise refuse(name, f"has an invalid value: {str(value)[:64]}")


def _is_legal(value: Any, check: Check) -> bool:
    if isinstance(check, tuple):
        return any(value == each and type(value) is type(each) for each in check)
    if isinstance(check, type):
        return isinstance(value, check) and not (isinstance(value, bool) and check is not bool)
    return check(value)


def between(low: float, high: float, kind: type | tuple[type, ...] = int) -> Callable[[Any], bool]:
    """Return the check of a number from `low` to `high`."""
    return lambda value: isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high


def at_most(length: int) -> Callable[[Any], bool]:
    """Return the check of a text."""
    return lambda value: isinstance(value, str) and len(value) <= length


def pixels(text: Any, separator: str = "x") -> tuple[int, int] | None:
    """Width and height of a size in pixels; None: it is none."""
    found = re.fullmatch(rf"([1-9][0-9]{{1,4}}){re.escape(separator)}([1-9][0-9]{{1,4}})", str(text), re.ASCII)
    return (int(found[1]), int(found[2])) if found else None


def reference(text: Any) -> bytes | None:
    """The content of a data URL with a lower-case media type, the text of a link; None: it is neither."""
    if isinstance(text, str) and text.startswith(("https://", "http://")):
        return text.encode()
    found = re.match(r"data:image/(?:png|jpeg|webp);base64,", str(text), re.ASCII)
    content = decode_base64(str(text)[found.end() :]) if found else None
    return content if content is not None and is_picture(content) else None


@dataclass
class Task:
    """A task at work."""

    states: list[str]
    """What is answered before the end, in order."""
    document: dict[str, Any]
    """The end."""
    failures: int = 0
    """Questions that the server fails to answer."""
    kind: str = ""
    asked: int = field(default=0)


class HostedSimulator(Simulator):
    """A hosted API behind bearer keys, whose pictures are links to files of its own."""

    def __init__(self, endpoints: Endpoints, dialect: TextDialect) -> None:
        self.files: dict[str, bytes] = {}
        self.tasks: dict[str, Task] = {}
        self._numbers = itertools.count(1)
        super().__init__(
            endpoints,
            dialect=dialect,
            is_authorized=has_bearer_key,
            open_routes=[Route("/files/{name}", self._file)],
        )
        self.sources: list[bytes] = []
        self.app.state.sources = self.sources
        self.app.state.tasks = self.tasks

    async def _file(self, request: Request) -> Response:
        content = self.files.get(request.path_params["name"])
        return Response(content, media_type="image/png") if content else Response(status_code=404)

    def link(self, incoming: Incoming, width: int, height: int, prompt: str, *, form: str = "png") -> str:
        """Make a picture, and return the link to it."""
        number = next(self._numbers)
        name = f"{number}.{form}"
        self.files[name] = picture(width, height, prompt=prompt, seed=number, form=form)
        return f"{incoming.origin}/files/{name}"

    def begin(self, prompt: str, states: Sequence[str], document: dict[str, Any], *, kind: str = "") -> str:
        """Begin a task, and return its id."""
        id_ = f"task-{next(self._numbers)}"
        odd = ["PONDERING"] if ODD_WORD in prompt else []
        if FORGOTTEN_WORD in prompt:
            return id_
        self.tasks[id_] = Task([*states, *odd], document, 2 if SHAKY_WORD in prompt else 0, kind)
        return id_

    def read_references(self, values: Sequence[Any], refuse: Refuse, name: str) -> list[bytes]:
        """Check references, and keep what they hold."""
        found = [reference(value) for value in values]
        read = [content for content in found if content is not None]
        if len(read) < len(found):
            raise refuse(name, "is neither a link nor a data URL of a picture")
        self.sources += read
        return read
