"""Names of files reach the provider as the client wrote them, in whichever dialect of quoting."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tests.smallest_png import ONE_PIXEL
from tests.wire.edit_support import picture
from tests.wire.test_doors import config_of

from imagegate import ImageGateway
from imagegate.demo.servers import serving

NAMES = [
    "he said %22hi%22.png",  # browsers, httpx, curl
    r"he said \"hi\".png",  # Go, older curl
    r"C:\fakepath\a.png",  # browsers
    r"C:\\fakepath\\a.png",  # httpx
    r"\\server\a.png",
    "tail\\",
    r"tail\\",
    "猫 写真.png",
    "a%0Ab.png",
]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """A gateway, and the file names that its provider finds in the raw bytes of forms."""
    found: list[str] = []

    async def edits(request: Request) -> JSONResponse:
        head = (await request.body())[:2000].decode("utf-8", "replace")
        found.extend(re.findall(r'name="image"; filename="(.*)"\r\n', head))
        return JSONResponse({"created": 1, "data": [{"b64_json": ONE_PIXEL}]})

    with serving(Starlette(routes=[Route("/v1/images/edits", edits, methods=["POST"])])) as port:
        config = config_of(port, tmp_path_factory.mktemp("names"))
        with serving(ImageGateway(config=config, hooks=())) as bound:
            yield f"http://127.0.0.1:{bound}/v1/images/edits", found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 9_000_000], ids=["read whole", "streamed"])
def test_file_names(heads: tuple[str, list[str]], name: str, size: int) -> None:
    """Byte for byte what stands between the quotes."""
    url, found = heads
    found.clear()
    image = picture() + bytes(size)
    fields = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in (("model", "openai/gpt-image-1.5"), ("prompt", "A kite"))
    )
    head = f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    body = fields.encode() + head.encode() + image + b"\r\n--b--\r\n"
    reply = httpx.post(url, content=body, headers={"content-type": "multipart/form-data; boundary=b"}, timeout=60)
    assert reply.status_code == 200, reply.text
    assert found == [name]
    assert "filename" not in reply.headers.get("imagegate-changes", "")
