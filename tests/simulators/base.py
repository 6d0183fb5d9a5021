"""What the simulators share: an app that notes what it drops, cheap pictures, and masks by what they mean."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from PIL import Image
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from imagegate.demo.providers.common import ReceivedRequest, RefusedError
from imagegate.demo.providers.frame import Dialect, Endpoints, build_app, is_open
from imagegate.demo.providers.incoming import Incoming

KEY: Final = "sk-demo-simulator"
"""A right key for those simulators that want one."""
_FORMS: Final = {"png": "PNG", "jpeg": "JPEG", "jpg": "JPEG", "webp": "WEBP"}


class TextDialect:
    """Refusals in whatever shape they carry: `extra` is the document, or else the message is plain text."""

    request_id_header = "x-request-id"

    def envelope(self, refusal: RefusedError, request_id: str) -> Mapping[str, object] | str:
        """See `frame.Dialect`."""
        return refusal.extra or refusal.message

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`. vLLM's and SGLang's answer."""
        return refuse(401, error="Unauthorized")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`. FastAPI's answer."""
        return refuse(status, detail="Not Found" if status == 404 else "Method Not Allowed")


def refuse(status: int, message: str = "", /, **document: object) -> RefusedError:
    """A refusal with a JSON document, or with a plain text."""
    return RefusedError(message, status=status, extra=document)


class Simulator:
    """A server with its routes; subclasses fill `endpoints`.

    ``app.state.dropped`` has the names of fields that came and were not read, and ``app.state.repainted`` for each mask
    what it lets the model paint, see `Repainted`.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        dialect: Dialect | None = None,
        is_authorized: Callable[[Incoming], bool] = is_open,
        open_routes: Sequence[BaseRoute] = (),
    ) -> None:
        self.dropped: list[str] = []
        self.repainted: list[Repainted] = []
        self.app: Starlette = build_app(
            dialect or TextDialect(), endpoints, is_authorized=is_authorized, open_routes=open_routes
        )
        self.app.state.dropped = self.dropped
        self.app.state.repainted = self.repainted

    def drop(self, given: Iterable[str], read: Iterable[str]) -> None:
        """Note what was sent and is not read."""
        self.dropped += [name for name in given if name not in set(read)]


class Repainted:
    """What a mask lets the model paint, by the server's own rule."""

    def __init__(self, mask: bytes, *, by: str) -> None:
        """Read a mask: ``by`` is ``white`` or ``black`` where that is painted, ``alpha`` where what is transparent."""
        picture = Image.open(io.BytesIO(mask))
        self.size = picture.size
        if by == "alpha":
            self._painted = picture.convert("RGBA").getchannel("A").point(lambda value: 255 * (value < 128))
        else:
            is_white = by == "white"
            self._painted = picture.convert("L").point(lambda value: 255 * ((value >= 128) == is_white))
        self.is_two_valued: bool = set(picture.convert("L").tobytes()) <= {0, 255}

    def at(self, x: float, y: float) -> bool:
        """Whether the model may paint there; both from 0 to 1."""
        width, height = self.size
        return self._painted.getpixel((int(x * (width - 1)), int(y * (height - 1)))) == 255

    @property
    def share(self) -> float:
        """How much of the picture may be painted, 0 to 1."""
        return self._painted.histogram()[255] / (self.size[0] * self.size[1])


def picture(width: int, height: int, *, prompt: str, seed: int, form: str = "png") -> bytes:
    """A picture of one colour, which prompt and seed decide."""
    red, green, blue = hashlib.sha256(f"{prompt}\n{seed}".encode("utf-8", "surrogatepass")).digest()[:3]
    encoded = io.BytesIO()
    Image.new("RGB", (width, height), (red, green, blue)).save(encoded, _FORMS[form], compress_level=1)
    return encoded.getvalue()


def picture_base64(width: int, height: int, *, prompt: str, seed: int, form: str = "png") -> str:
    """The same as base64."""
    return base64.b64encode(picture(width, height, prompt=prompt, seed=seed, form=form)).decode()


def decode_base64(text: str) -> bytes | None:
    """Strictly; None where it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None


def is_picture(content: bytes) -> bool:
    """Whether Pillow can open it."""
    try:
        with Image.open(io.BytesIO(content)):
            return True
    except (OSError, ValueError):
        return False


def size_of(content: bytes) -> tuple[int, int]:
    """Width and height of a picture."""
    with Image.open(io.BytesIO(content)) as image:
        return image.size


def received(app: Starlette) -> list[ReceivedRequest]:
    """What the simulator received, oldest first."""
    found: list[ReceivedRequest] = app.state.received
    return found


def members(incoming: Incoming) -> dict[str, Any]:
    """The members of a JSON body that was checked to be an object."""
    if incoming.fields is None:
        raise AssertionError("the body was not checked")
    return incoming.fields
