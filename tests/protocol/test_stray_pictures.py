"""Pictures under names that nobody foresaw: what has one reading is found, and nothing else."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.field_support import SMALL

from imagegate.protocol.messages import ReplyImage
from imagegate.protocol.stray_pictures import picture_of_body, stray_pictures

B64 = base64.b64encode(SMALL).decode()
LINK = "https://cdn.example/a/kunstwerk.png?sig=1"


def found(document: Any) -> list[str | None]:
    return [image.url or image.b64_json for image in stray_pictures(document)]


@pytest.mark.parametrize(
    ("document", "pictures"),
    [
        ({"a": {"b": [{"c": B64}, {"c": LINK}]}}, [B64, LINK]),
        ({"png": LINK, "webp": LINK.replace("png", "webp")}, [LINK]),
        ({"a": json.dumps({"b": json.dumps([LINK])})}, [LINK]),
        ({"text": f"![one]({LINK}) and ![two](<{LINK}>)"}, [LINK]),
        ({"text": f"See {LINK} for it"}, []),
        ({"page": "https://cdn.example/gallery/7"}, []),
        ({"page": "https://cdn.example/a.png/comments"}, []),
        ({"input_image": B64, "request": {"image": LINK}, "parameters": {"init_images": [B64]}}, []),
        ({"preview": LINK, "thumbnail_b64": B64, "mask": B64, "callback_url": LINK}, []),
        ({"note": "no picture", "n": 1, "x": None}, []),
    ],
)
def test_one_reading(document: Any, pictures: list[str]) -> None:
    assert found(document) == pictures


@pytest.mark.parametrize(
    ("body", "picture"),
    [
        (B64.encode(), ReplyImage(b64_json=B64)),
        (f" data:image/png;base64,{B64}\r\n".encode(), ReplyImage(b64_json=B64)),
        (f'"{LINK}"'.encode(), ReplyImage(url=LINK)),
        (f"{LINK} {LINK}".encode(), None),
        (b"queued", None),
        (b"", None),
        ("Größe".encode(), None),
    ],
)
def test_a_body_that_is_a_text(body: bytes, picture: ReplyImage | None) -> None:
    assert picture_of_body(body) == picture


def test_deep_and_wide_documents_end() -> None:
    deep: Any = LINK
    for _ in range(100):
        deep = [deep]
    assert found(deep) == []
    assert len(found([{"a": LINK}] * 10_000)) < 10_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from([B64, LINK, f"![]({LINK})"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


@given(JSON)
@settings(max_examples=60, deadline=None)
def test_whatever_a_document_is(document: Any) -> None:
    """Nothing is made up: every picture stands in the document, and none where there is no text of one."""
    text = json.dumps(document)
    for picture in found(document):
        assert picture in (B64, LINK)
        assert picture in text
