"""A generation whose links pass through makes nothing that only other replies need."""

from __future__ import annotations

import asyncio
import sys
from base64 import b64encode
from pathlib import Path
from types import FrameType
from typing import Final

import httpx
import pytest

import imagegate
from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.testing import Answer, FakeUpstream, png

ROOT: Final = Path(imagegate.__file__).parent
FOR_OTHERS: Final = frozenset(
    {
        "delivery/converter.py",
        "delivery/inner_response.py",
        "delivery/response_format.py",
        "delivery/response_writer.py",
        "delivery/stream_session.py",
        "protocol/headers.py",
        "protocol/parsers/lenient_json.py",
        "protocol/reply_encoding.py",
        "protocol/reply_pictures.py",
        "routing/circuit_breaker.py",
        "routing/retry.py",
        "streaming/image_sinks.py",
        "upstream/account.py",
        "upstream/polling.py",
    }
)
"""What is made or asked when a reply needs it: a store, signs of life, forgiveness, a second attempt."""
PICTURE: Final = b64encode(png()).decode()
LINK: Final = Answer(document={"created": 1, "data": [{"url": "https://images.example.com/1.png"}]})


async def _touched(provider: FakeUpstream, tmp_path: Path) -> set[str]:
    """Files of ours that a warm request runs through, as paths below the package."""
    config = parse_config(
        f"""
        [[upstreams]]
        name = "openai"
        api_key = "sk-provider"
        [delivery]
        store = "file://{tmp_path}"
        """
    )
    gateway = ImageGateway(config=config, hooks=(), transport=provider.transport)
    files: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (name := frame.f_code.co_filename).startswith(str(ROOT)):
            files.add(str(Path(name).relative_to(ROOT)))

    body = {"model": "gpt-image-1.5", "prompt": "A cat", "response_format": "url"}
    transport = httpx.ASGITransport(gateway)
    async with gateway, httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        for _ in range(5):
            files.clear()
            sys.setprofile(note)
            try:
                reply = await client.post("/v1/images/generations", json=body)
            finally:
                sys.setprofile(None)
            assert reply.status_code == 200, reply.text
    return files


def test_nothing_is_made_that_only_other_replies_need(tmp_path: Path) -> None:
    files = asyncio.run(_touched(FakeUpstream(LINK), tmp_path))
    assert "delivery/session.py" in files
    assert sorted(FOR_OTHERS & files) == []


@pytest.mark.parametrize(
    ("answer", "made"),
    [
        (Answer(document={"data": [{"b64_json": PICTURE}]}), "delivery/converter.py"),
        (Answer(body=b'\xef\xbb\xbf{"data":[{"url":"https://a.example/1"}]}'), "parsers/lenient_json.py"),
    ],
)
def test_other_replies_make_it(answer: Answer, made: str, tmp_path: Path) -> None:
    files = asyncio.run(_touched(FakeUpstream(answer), tmp_path))
    assert any(file.endswith(made) for file in files)
