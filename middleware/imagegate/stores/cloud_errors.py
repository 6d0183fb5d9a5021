"""What goes wrong with a bucket, in a few words: obstore's own texts carry addresses, XML and dumps of structures."""

from __future__ import annotations

import errno
import re
from typing import Final

from imagegate.stores.errors import StoreFull, StoreRefused, StoreTrouble, plain_error

_STATUS: Final = re.compile(r"status code: ([0-9]{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_FULL: Final = re.compile(r"StorageFull|QuotaExceeded|InsufficientCapacity|InsufficientStorage|NoSpace|EDQUOT", re.I)
_UNSENT: Final = "error sending request"


def plain_cloud_error(error: Exception) -> Exception:
    """Return an `OSError` that says what an operator must know and nothing else; `StoreFull` where there is no room.

    S3's codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; MinIO answers 507
    ``XMinioStorageFull``, Ceph 403 ``QuotaExceeded``.
    """
    text = str(error)
    if isinstance(error, TimeoutError):
        return StoreTrouble(errno.ETIMEDOUT, "the store did not answer in time")
    if isinstance(error, OSError) and error.errno is not None:  # the gateway's own disk
        return plain_error(error)
    status = found[1] if (found := _STATUS.search(text)) else ""
    code = found[1] if (found := _CODE.search(text)) else ""
    if status == "507" or _FULL.search(code):
        return StoreFull(f"the store is full ({_words(status, code)})")
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return StoreRefused(f"there is no such bucket ({_words(status, code)})")
    if status in ("401", "403"):
        return StoreRefused(f"the store refuses the credentials ({_words(status, code)})")
    if status:
        return StoreTrouble(f"the store answered {_words(status, code)}")
    if _UNSENT in text:
        return StoreTrouble("the store cannot be reached, or did not answer in time")
    if "redirect" in text:
        return StoreTrouble("the store redirects, which a wrong region or endpoint makes it do")
    if text == "the picture was aborted":
        return error
    return StoreTrouble("the store failed")


def _words(status: str, code: str) -> str:
    return " ".join(filter(None, (status, code)))
