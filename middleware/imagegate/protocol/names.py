"""Names: members that mean the same, however they are spelled, and the known names nearest to an unknown one. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final


@lru_cache(maxsize=1024)
def plain(name: str) -> str:
    """Return a member's name without what spellings differ in: ``taskId``, ``task_id`` and ``task-id`` are one."""
    return name[:64].lower().replace("_", "").replace("-", "")


def members_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object's members under their plain names; of two that mean the same the first one counts."""
    return {plain(name): node[name] for name in reversed(list(node))}


def did_you_mean(
    name: str, known: Collection[str], *, most: int = 1, cutoff: float = 0.6, also: Collection[str] = ()
) -> str:
    """Return a sentence with the known names nearest to `name`; empty: none is near.

    Args:
        most: maximum number of names.
        cutoff: least similarity, from 0 to 1 (`difflib.get_close_matches`).
        also: further names to suggest.
    """
    near = dict.fromkeys((*get_close_matches(name, known, n=most, cutoff=cutoff), *also))
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


BASE64_MEMBERS: Final = (
    *("b64json", "base64", "b64", "imagebase64", "imageb64", "base64image", "bytesbase64encoded"),
    *("imagebase64data", "base64data", "imagedata", "b64image", "imagebytes", "binarydatabase64", "generatedimage"),
    *("imagesbase64", "base64images", "b64images"),
)
"""Members that hold a picture's base64."""
LINK_MEMBERS: Final = (
    *("url", "imageurl", "uri", "imageuri", "link", "resulturl", "downloadurl", "fileurl", "outputurl", "signedurl"),
    *("publicurl", "fullurl", "imagedatauri", "datauri", "src", "sample", "imgurl", "picurl", "pictureurl", "photourl"),
    *("imagelink", "mediaurl", "ossurl", "cdnurl", "originurl", "originalurl", "rawurl"),
)
"""Members that hold a link to a picture, or a whole picture as a data URL."""
EITHER: Final = ("image", "output", "result", "data", "content", "img", "picture", "photo")
"""Members that may hold the one or the other, or something else."""
LISTS: Final = (
    *("data", "result", "results", "images", "image", "output", "outputs", "artifacts", "predictions"),
    *("generatedimages", "generations", "imageurls", "urls", "url", "imageurl", "resulturl", "items", "candidates"),
    *("outputimages", "imageresult", "imageresults", "taskresult", "resulturls", "imgurls", "pictures", "photos"),
    *("imgs", "files", "file", "assets", "media", "works", "img", "picture", "photo"),
    *("imagebase64", "imagesbase64", "base64images", "b64images", "binarydatabase64"),
    *("content", "parts", "inlinedata", "message", "delta", "choices", "response", "base64"),
)
"""Members of a reply in which its pictures may be; the first one with any has them all."""
_NO_RESULTS: Final = re.compile(
    r"param|request|input|argument|config|setting|option|mask|^init|reference|prompt|preview|thumb|partial|latent|avatar"
    r"|logo|icon|poll|status|callback|webhook|cancel|error|docs?$|help|source|usage|example|watermark"
)


@lru_cache(maxsize=1024)
def may_hold_result(name: str) -> bool:
    """Return whether a member of any name may hold a result: not what is repeated of a request, nor a preview."""
    return _NO_RESULTS.search(plain(name)) is None


TASK_IDS: Final = ("taskid", "jobid", "generationid", "predictionid", "operationid")
"""Members that hold the id of a task, and nothing else."""
