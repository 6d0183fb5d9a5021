"""Bodies as strict JSON APIs check them: nothing unknown, no number in a string, nothing outside a vocabulary."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from starlette.responses import Response
from tests.simulators.base import TextDialect, decode_base64, is_picture, picture, refuse, size_of

from imagegate.demo.providers.common import RefusedError
from imagegate.demo.providers.incoming import Incoming

GRUESOME: Final = "gruesome"
"""A prompt with this word passes, and its picture is withheld."""
HOPELESS: Final = "hopeless"
"""A prompt with this word makes a task that fails."""
STRANGE: Final = "strange"
"""A prompt with this word makes a task that is in a state that is not documented, before it is done."""
BUSY: Final = "busy"
"""A prompt with this word meets a limit."""
EXPIRED: Final = "expired"
"""A prompt with this word makes a picture whose link does not work any more."""
SHAKY: Final = "shaky"
"""A prompt with this word makes a task whose first questions are not answered: a page, then an empty reply."""
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


@dataclass(frozen=True, slots=True)
class Member:
    """What a member may be."""

    type: str = "string"
    values: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    multiple: int = 1
    required: bool = False
    check: Callable[[Any], str] | None = None
    """Returns what is wrong; empty: nothing."""


class Problem(NamedTuple):
    """What is wrong with a member."""

    name: str
    kind: str
    message: str


def problems(fields: Mapping[str, Any], members: Mapping[str, Member]) -> list[Problem]:
    """Return everything that is wrong, in the words of pydantic 2."""
    found = [
        Problem(name, "extra_forbidden", "Extra inputs are not permitted") for name in fields if name not in members
    ]
    for name, member in members.items():
        value = fields.get(name)
        if name not in fields:
            found += [Problem(name, "missing", "Field required")] if member.required else []
        elif not isinstance(value, _TYPES[member.type]) or (isinstance(value, bool) and member.type != "boolean"):
            found.append(Problem(name, f"{member.type}_type", f"Input should be a valid {member.type}"))
        elif member.values and value not in member.values:
            listed = ", ".join(repr(each) for each in member.values)
            found.append(Problem(name, "enum", f"Input should be {listed}"))
        elif member.type in ("integer", "number"):
            found += _of_number(name, member, value)
        elif member.check is not None and (wrong := member.check(value)):
            found.append(Problem(name, "value_error", wrong))
    return found


def _of_number(name: str, member: Member, value: Any) -> list[Problem]:
    if member.low is not None and value < member.low:
        return [Problem(name, "greater_than_equal", f"Input should be greater than or equal to {member.low:g}")]
    if member.high is not None and value > member.high:
        return [Problem(name, "less_than_equal", f"Input should be less than or equal to {member.high:g}")]
    if member.multiple > 1 and value % member.multiple:
        return [Problem(name, "multiple_of", f"Input should be a multiple of {member.multiple}")]
    return []


def is_shaken(prompt: str, asked: int) -> Response | None:
    """Return what comes in place of an answer to a question about a `SHAKY` task; None: it is answered."""
    if SHAKY not in prompt or asked > 2:
        return None
    return Response(
        "<html>Bad gateway</html>" if asked == 1 else "", 502 if asked == 1 else 200, media_type="text/html"
    )


def json_of(incoming: Incoming) -> dict[str, Any] | None:
    """Return the body; None: it is no JSON object."""
    is_json = incoming.headers.get("content-type", "").partition(";")[0] == "application/json"
    return incoming.fields if is_json and not incoming.is_form else None


def source(text: Any, *, bare: bool = False) -> bytes | None:
    """Return the picture of a data URL, a link, or plain base64 where that is taken; None: it is none of these."""
    if not isinstance(text, str):
        return None
    if text.startswith(("https://", "http://")):
        return picture(64, 64, prompt=text, seed=0)
    head, comma, body = text.partition(",")
    if comma and not re.fullmatch(r"data:image/(png|jpeg|webp);base64", head):
        return None
    if not comma and not bare:
        return None
    content = decode_base64(body if comma else text)
    return content if content is not None and is_picture(content) else None


def is_source(text: Any) -> str:
    """For `Member.check`: what is wrong with a link or a data URL."""
    return "" if source(text) is not None else "could not load the image"


def are_sources(most: int) -> Callable[[Any], str]:
    """For `Member.check` of lists."""

    def check(items: Any) -> str:
        if not 1 <= len(items) <= most:
            return f"List should have from 1 to {most} items"
        return next((wrong for item in items if (wrong := is_source(item))), "")

    return check


def edges(ratio: str, edge: float = 1024, multiple: int = 16) -> tuple[int, int]:
    """Width and height of about `edge` squared pixels in a ratio."""
    wide, high = (float(each) for each in ratio.split(":"))
    scale = edge / math.sqrt(wide * high)
    return tuple(max(multiple, round(each * scale / multiple) * multiple) for each in (wide, high))  # type: ignore[return-value]


@dataclass(slots=True)
class Shelf:
    """Pictures under links of the simulator's own."""

    kept: dict[str, tuple[bytes, str]] = field(default_factory=dict[str, tuple[bytes, str]])

    def put(self, width: int, height: int, *, prompt: str, seed: int, form: str = "png") -> str:
        """Keep a picture and return its path."""
        name = f"{len(self.kept)}.{form}"
        self.kept[name] = picture(width, height, prompt=prompt, seed=seed, form=form), form
        return f"/delivery/{name}?sig=abc%2Bdef&se=2026"

    async def get(self, incoming: Incoming) -> Response:
        """Answer with a picture. A key must not come here."""
        name = incoming.path_params["name"]
        if name not in self.kept or not incoming.query.get("sig") or "authorization" in incoming.headers:
            raise refuse(403, "Signature not valid in the specified time frame")
        content, form = self.kept[name]
        return Response(content, media_type=f"image/{form}")


def data_url(width: int, height: int, *, prompt: str, seed: int, form: str = "png") -> str:
    """A picture as a data URL."""
    content = picture(width, height, prompt=prompt, seed=seed, form=form)
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"


def first_size(images: list[Any], *, bare: bool = False) -> tuple[int, int]:
    """Width and height of the first picture that a request starts from."""
    return size_of(source(images[0], bare=bare) or b"")


class Refusals(TextDialect):
    """A provider's answers to a wrong key and to an unknown path, as JSON documents.

    Args:
        wrong_key: the document of its 401.
        no_route: the document of its 404 and 405.
    """

    def __init__(self, *, wrong_key: Mapping[str, Any], no_route: Mapping[str, Any]) -> None:
        self._wrong_key = wrong_key
        self._no_route = no_route

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(401, **self._wrong_key)

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(status, **self._no_route)


def form_of(
    incoming: Incoming, members: Mapping[str, Member], files: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, Any], dict[str, list[bytes]], list[Problem]]:
    """Return the texts and the files of a form, by name, and everything that is wrong with it.

    Args:
        files: name -> how many there must be, and how many there may be.
    """
    if not incoming.is_form:
        return {}, {}, [Problem("body", "content_type", "The body must be multipart/form-data")]
    fields: dict[str, Any] = {}
    found: list[Problem] = []
    for name, text in incoming.texts:
        if name.endswith("[]"):
            fields.setdefault(name.removesuffix("[]"), []).append(text)
        elif name in fields:
            found.append(Problem(name, "repeated", "Field is repeated"))
        else:
            fields[name] = _of_text(text, members.get(name))
    sent: dict[str, list[bytes]] = {name: [] for name in files}
    for file in incoming.files:
        if file.name not in files:
            found.append(Problem(file.name, "extra_forbidden", "Extra files are not permitted"))
        elif not is_picture(file.data) or not file.content_type.startswith("image/"):
            found.append(Problem(file.name, "value_error", "could not load the image"))
        else:
            sent[file.name].append(file.data)
    for name, (fewest, most) in files.items():
        if not fewest <= len(sent[name]) <= most:
            found.append(Problem(name, "missing", f"From {fewest} to {most} files are expected"))
    return fields, sent, [*found, *problems(fields, members)]


def _of_text(text: str, member: Member | None) -> Any:
    """What a text of a form is, where it is what its member has to be."""
    if member is not None and member.type in ("integer", "number"):
        pattern, kind = (r"-?[0-9]+", int) if member.type == "integer" else (r"-?[0-9]+(\.[0-9]+)?", float)
        return kind(text) if re.fullmatch(pattern, text, re.ASCII) else text
    if member is not None and member.type == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text
